"""Pure: HTML, Markdown, TeX, SVG and style sheets without anything that acts or fetches.

Every function takes untrusted text and gives text that may reach a browser page of the user. What is not in a table
here is removed. HTML is parsed by nh3 (the ammonia library, an HTML5 parser), never matched as it came; regular
expressions only look at what nh3 wrote.
"""

from __future__ import annotations

import hashlib
import re

from sandboxed_kernel.relay import drawings


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# --- style sheets ----------------------------------------------------------------------------------------------------

# What changes how an element looks, and neither where it is nor what it covers: a sandboxed output must not be able
# to lie over a notice. No property here takes a URL, with _FUNCTIONS as the only functions.
_PROPERTIES = _words(
    "background background-color border border-bottom border-bottom-color border-bottom-style border-bottom-width"
    " border-collapse border-color border-left border-left-color border-left-style border-left-width border-radius"
    " border-right border-right-color border-right-style border-right-width border-spacing border-style border-top"
    " border-top-color border-top-style border-top-width border-width caption-side color empty-cells fill"
    " fill-opacity font-family font-size font-style font-variant font-weight height letter-spacing line-height"
    " margin margin-bottom margin-left margin-right margin-top max-height max-width min-width overflow overflow-x"
    " overflow-y padding padding-bottom padding-left padding-right padding-top stroke stroke-dasharray"
    " stroke-linecap stroke-linejoin stroke-opacity stroke-width table-layout text-align text-decoration"
    " text-indent text-transform vertical-align white-space width word-break word-wrap"
)
_FUNCTIONS = _words("rgb rgba hsl hsla calc min max clamp minmax repeat fit-content linear-gradient")
_VALUE = re.compile(r"[\w\s#.,%()+/!*-]{1,500}")
_MOVES = re.compile(r"-|\(", re.ASCII)  # a margin that may be negative draws its element over its neighbours
_CALL = re.compile(r"(?<![\w-])([\w-]*)\(")


def clean_declarations(text: str) -> str:
    """The declarations of one rule or of a ``style`` attribute that are in the tables."""
    kept = []
    for declaration in text.split(";"):
        name, _, value = declaration.partition(":")
        name, value = name.strip().lower(), value.strip()
        if name in _PROPERTIES and is_harmless_value(name, value):
            kept.append(f"{name}: {value}")
    return "; ".join(kept)


def is_harmless_value(name: str, value: str) -> bool:
    """Whether a CSS value fetches nothing, ends no rule, and moves nothing over its neighbours."""
    if not _VALUE.fullmatch(value) or not calls_only_harmless(value):
        return False
    return not (name.startswith("margin") and _MOVES.search(value))


def calls_only_harmless(text: str) -> bool:
    """Whether a text without escapes has no CSS function but those that compute or mix."""
    return all(call.lower() in _FUNCTIONS for call in _CALL.findall(text))


def clean_style_sheet(text: str, selector: re.Pattern[str]) -> str:
    """Of a drawing: the rules whose every selector matches. No quote, backslash, ``<`` or ``@`` comes out of here."""
    kept = []
    for piece in _without_comments(text).split("}"):
        selectors, _, declarations = piece.rpartition("{")
        names = [name.strip() for name in selectors.split(",")]
        cleaned = clean_declarations(declarations)
        if cleaned and all(selector.fullmatch(name) for name in names):
            kept.append(f"{', '.join(names)} {{{cleaned}}}")
    return "\n".join(kept)


def _without_comments(text: str) -> str:
    """In one pass: a regular expression, or a copy of the rest per comment, takes quadratic time over many ``/*``."""
    pieces, end = [], 0
    while (begin := text.find("/*", end)) >= 0:
        pieces.append(text[end:begin])
        end = text.find("*/", begin + 2) + 2
        if end < 2:
            return " ".join(pieces)
    return " ".join([*pieces, text[end:]])


# --- TeX -------------------------------------------------------------------------------------------------------------

# MathJax typesets HTML, Markdown and LaTeX outputs alike. These macros make links, classes, styles and ids, load
# extensions, or make macros out of which the former can be made
# (https://docs.mathjax.org/en/latest/input/tex/macros/index.html).
_TEX = re.compile(
    r"\\(?=(?:href|url|class|style|cssId|data|require|[egx]?def|let|futurelet|(?:new|renew|provide)(?:command|environment)"
    r"|newtagform|Declare[A-Za-z]*|csname|includegraphics|unicode|mmlToken|bbox|html[A-Za-z]*)(?![A-Za-z]))"
)


def clean_tex(text: str) -> str:
    """A zero-width space behind the backslash makes another, undefined macro of it."""
    return _TEX.sub("\\\\\u200b", text)


# --- HTML ------------------------------------------------------------------------------------------------------------

# No wbr: MathJax reads over it, so that a macro could be written in two halves (its option includeHtmlTags).
_TAGS = _words(
    "a abbr audio b bdi bdo blockquote br caption center cite code col colgroup dd del details dfn div dl dt em"
    " figcaption figure h1 h2 h3 h4 h5 h6 hr i img ins kbd li mark meter ol p pre progress q rp rt ruby s samp small"
    " source span strike strong style sub summary sup table tbody td tfoot th thead time tr tt u ul var video"
)
_ATTRIBUTES = {
    "*": _words(
        "align aria-controls aria-describedby aria-hidden aria-label aria-labelledby class dir id lang style title"
        " valign"
    ),
    "a": _words("download href"),
    "audio": _words("controls loop muted preload src"),
    "video": _words("controls height loop muted preload src width"),
    "source": _words("src type"),
    "img": _words("alt height src width"),
    "table": _words("border cellpadding cellspacing"),
    "td": _words("colspan rowspan"),
    "th": _words("colspan rowspan scope"),
    "col": _words("span width"),
    "ol": _words("start type"),
    "progress": _words("max value"),
    "meter": _words("max min value"),
    "details": frozenset({"open"}),
    "input": _words("checked disabled"),  # of check boxes, by which style sheets open and close parts
    "label": frozenset({"for"}),
    "time": frozenset({"datetime"}),
}
_IMAGE = re.compile(r"data:image/(?:png|jpeg|gif|webp|bmp);base64,[A-Za-z0-9+/=\s]*")
_MEDIUM = re.compile(r"data:(?:audio|video)/[\w.+-]{1,40};base64,[A-Za-z0-9+/=\s]*", re.ASCII)
# To elsewhere, within the page, and to a file beneath the notebook's folder (FileLink): no "..", no query.
_LINK = re.compile(r"(?:https?://|mailto:|#).*|[\w ~-](?:(?!\.\.|//|%2[ef]|%5c)[\w ~./%,()@=-])*", re.I | re.DOTALL)
_WHOLE = {"src": _IMAGE, "href": _LINK}  # values that match, or do not pass
# Classes of the page's own style sheets move and cover things (jp-, lm-, ...); these have none there.
_CLASS = re.compile(
    r"dataframe|data|row\d+|col\d+|level\d+|row_heading|col_heading|row_trim|col_trim|blank|index_name|tex2jax_ignore"
    r"|[a-z]{1,2}"  # Pygments' names of tokens
)
_NAMES = _words("id for aria-controls aria-describedby aria-labelledby")  # of elements of the same output
# As nh3 writes it: no value holds a quote or ">".
_ANCHOR = re.compile(r'(<a (?:(?!href=)[\w:-]+="[^">]*" )*href="#[^">]*"[^>]*?) target="_blank"')
_BARE = _words("checked controls disabled loop muted open")  # attributes that mean something without a value
_CHECK_BOX = re.compile(r"type=[\"']?checkbox", re.IGNORECASE)
_STYLE_ELEMENT = re.compile(r"<style[^>]*>(.*?)</style>", re.DOTALL)  # no attribute holds a ">", see _attribute
_NESTING_TAG = re.compile(r"<(?!/|t[drh]\b|tbody\b|thead\b)", re.IGNORECASE)
_TAG_NAME = re.compile(r"<[A-Za-z]")
_QUOTED = re.compile(r"""=\s{0,9}(?:"[^"]*"|'[^']*')""")
_OPEN_QUOTE = re.compile(r"""=\s*(["'])""")
_BETWEEN_ATTRIBUTES = re.compile(r"""[\s/"'=]+""")
MAX_ATTRIBUTES = 50_000  # of one tag; so many cost the parser a second or two; more, the square of that
# Styles in tags that are kept in a box alone.
_LAID_OUT = re.compile(r"display\s{0,9}:\s{0,9}(?:inline-)?(?:flex|grid)|gradient\(")
MAX_ENTITIES = 200_000
MAX_STYLES = 100_000  # characters of different style attributes that tinycss2 reads: a second at the most
MAX_NESTING_TAGS = 10_000  # nested deeply, so many cost the parser a second; more, the square of that


class _Output:
    """One HTML output while it is cleaned. ``prefix`` begins its ids, and with a box its classes too. ``boxed``: it has
    a style sheet or a drawing, or lays its parts out, and stands in a box out of which nothing is drawn.
    """

    def __init__(self, text: str) -> None:
        lower = text.lower()
        self.draws = "<svg" in lower
        self.boxed = self.draws or "<style" in lower or _LAID_OUT.search(lower) is not None
        self.has_check_boxes = self.boxed and _CHECK_BOX.search(text) is not None
        # A name that no other text can ask for: it would have to contain its own hash.
        self.prefix = f"o{hashlib.sha256(text.encode(errors='replace')).hexdigest()[:16]}-"
        self.removed: list[str] = []
        self._styles: dict[str, str] = {}
        self._budget = MAX_STYLES

    def attribute(self, tag: str, name: str, value: str) -> str | None:
        """nh3 asks for every attribute that is in the tables: what it becomes, or None."""
        cleaned = self._attribute(tag, name, value)
        # nh3 writes these as they are; without them <style> in its output is an element (see _STYLE_ELEMENT)
        if cleaned is None or "<" in cleaned or ">" in cleaned:
            return None
        return cleaned if cleaned or name in _BARE else None

    def _attribute(self, tag: str, name: str, value: str) -> str | None:
        if name == "src" and tag != "img":
            return value if _MEDIUM.fullmatch(value) else None
        if name in _BARE:
            return ""
        if name == "style":
            return self._style(value)
        if name == "class":
            names = value.split() if self.boxed else filter(_CLASS.fullmatch, value.split())
            return " ".join(word if _CLASS.fullmatch(word) else self.prefix + word for word in names)
        if name in _NAMES:
            return " ".join(self.prefix + word for word in value.split())
        if name == "href" and value.startswith("#"):
            return f"#{self.prefix}{value[1:]}"
        if name == "href" and tag in drawings.TAGS:
            return value if tag == "image" and _IMAGE.fullmatch(value) else None
        if name in _WHOLE:
            return value if _WHOLE[name].fullmatch(value) else None
        if tag in drawings.TAGS and name in drawings.ATTRIBUTES[tag]:
            return drawings.attribute(value, self.prefix)
        return value

    def _style(self, value: str) -> str:
        """In a box as in a style sheet, up to a budget."""
        if not self.boxed:
            return clean_declarations(value)
        if value not in self._styles:
            self._budget -= len(value)
            if self._budget < 0:
                return clean_declarations(value)
            self._styles[value] = self._declared(value)
        return self._styles[value]

    def _declared(self, value: str) -> str:
        from sandboxed_kernel.relay import sheets

        if sheets.depth(value) > sheets.MAX_DEPTH:
            return ""
        return "; ".join(sheets.declared(drawings.renamed(value, self.prefix), f"#{self.prefix}"))

    def in_its_box(self, cleaned: str) -> str:
        """The tag <article> is in no output of nh3: nothing in the box can close it."""
        from sandboxed_kernel.relay import sheets  # tinycss2, for outputs with a style sheet

        box = self.prefix.rstrip("-")
        budget = sheets.MAX_SHEET

        def scoped(match: re.Match[str]) -> str:
            nonlocal budget
            budget -= len(match[1])
            if budget < 0:
                return ""
            # In a drawing nh3 writes the sheet as text, with entities.
            text = match[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
            return f"<style>{sheets.scoped(text, box, self.prefix, _CLASS)}</style>"

        text = _STYLE_ELEMENT.sub(scoped, cleaned)
        if budget < 0:
            self.removed.append(f"style sheets over {sheets.MAX_SHEET} characters (too large)")
        text = drawings.without_loops(text) if self.draws else text
        return f'<article class="{box}" style="{sheets.CONTAINER}">{text}</article>'


def clean_html(text: str, removed: list[str] | None = None) -> str | None:
    """Without scripts, handlers, frames, forms and remote resources; styles hold in this output only. None where the
    parser cannot, or would take too long. Appends to ``removed``, in words, what ``active_parts`` cannot know.
    """
    if len(_NESTING_TAG.findall(text)) > MAX_NESTING_TAGS or text.count("&") > MAX_ENTITIES:
        return None
    if _most_attributes(text) > MAX_ATTRIBUTES:
        return None
    output = _Output(text)
    try:
        cleaned = _parse_and_clean(text, output)
        cleaned = output.in_its_box(cleaned) if output.boxed else cleaned
        if output.draws and not _is_read_as_written(cleaned):
            output.draws = False
            output.removed = ["drawings (that browsers read in more than one way)"]
            cleaned = output.in_its_box(_parse_and_clean(text, output))
    except BaseException:  # noqa: BLE001 - a panic of the parser's Rust is no Exception (pyo3)
        return None
    if removed is not None:
        removed += output.removed
    return clean_tex(_ANCHOR.sub(r'\1 target="_self"', cleaned))


def _most_attributes(text: str) -> int:
    """No tag of the text has more attributes than this. One pass, before the parser, which compares each with each.

    A tag ends at a ">" outside of quotes. So the pieces between ">" are counted, without what is quoted in them; and as
    many pieces as end within a quote may belong to one tag.
    """
    most, open_ends, quote = 0, 1, ""
    for piece in text.split(">"):
        tag = _TAG_NAME.search(piece)
        inside = _QUOTED.sub("=", piece[tag.start() :]) if tag else ""
        opened = _OPEN_QUOTE.search(inside)
        if quote:
            rest = _QUOTED.sub("=", piece.partition(quote)[2])
            opened = _OPEN_QUOTE.search(rest) or opened
            inside = piece
        if opened:
            quote = opened[1]
        elif quote in piece:
            quote = ""
        open_ends += bool(quote)
        most = max(most, len(_BETWEEN_ATTRIBUTES.findall(inside)))
    return most * open_ends


_UNSHOWN = _words("script noscript template iframe object math title textarea foreignObject desc metadata")


def _parse_and_clean(text: str, output: _Output) -> str:
    import nh3  # 5 ms that a kernel without HTML output does not pay

    known = _ATTRIBUTES | (drawings.ATTRIBUTES if output.draws else {})
    tags = {*_TAGS, *(("input", "label") if output.has_check_boxes else ()), *(drawings.TAGS if output.draws else ())}
    return nh3.clean(
        text,
        tags=tags,
        clean_content_tags={*_UNSHOWN, *(() if output.draws else ("svg",))},
        attributes={tag: set(names) for tag, names in known.items()},
        attribute_filter=output.attribute,
        strip_comments=True,
        link_rel="noopener noreferrer",
        set_tag_attribute_values={"a": {"target": "_blank"}, "input": {"type": "checkbox"}},
        url_schemes={"http", "https", "mailto", "data"},
    )


def _is_read_as_written(cleaned: str) -> bool:
    """Whether a parser makes of what was written what it was written from. Otherwise a page might see other elements in
    it than those that were looked at ("mutation XSS"), which drawings are known for.
    """
    import nh3

    names = {"rel", "target", "type"}.union(*_ATTRIBUTES.values(), *drawings.ATTRIBUTES.values())
    again = nh3.clean(
        cleaned,
        tags={*_TAGS, *drawings.TAGS, "input", "label", "article"},
        clean_content_tags=set(),
        attributes={"*": names},
        link_rel=None,
        url_schemes={"http", "https", "mailto", "data"},
    )
    return again.replace("&gt;", ">") == cleaned.replace("&gt;", ">")  # ">" is the same either way in a text


MAX_LOOKED_AT = 100_000  # characters; only for the sentence
# What a person would miss, for the sentence that says so. Not what decides: that is nh3 and the tables. Tags are cut
# out first, each as far as the next "<" or ">", and each pattern is one pass over a tag: linear over any text.
_TAG = re.compile(r"<[^<>]*")
_ACTIVE_TAGS = (
    ("scripts", re.compile(r"<\s*script", re.IGNORECASE)),
    ("handlers", re.compile(r"\son\w{1,40}\s{0,9}=", re.IGNORECASE)),
    ("frames", re.compile(r"<\s*(?:iframe|frame|object|embed|portal)", re.IGNORECASE)),
    ("forms", re.compile(r"<\s*(?:form|button|select|textarea)", re.IGNORECASE)),
    ("drawings", re.compile(r"<\s*(?:math|canvas)\b", re.IGNORECASE)),
    ("parts of drawings", re.compile(r"<\s*(?:animate\w{0,20}|set|foreignObject|filter|fe[A-Z]\w{1,30})\b")),
    ("remote resources", re.compile(r"<\s*(?:link|base|meta|track)\b", re.IGNORECASE)),
    (
        "remote images",
        re.compile(r"<\s*(?:img|image|input|picture)\b.*\ssrc\s{0,9}=\s{0,9}[\"']?(?!data:)\w", re.I | re.DOTALL),
    ),
    (
        "remote images",
        re.compile(r"<\s*(?:image|use|feImage)\b.*\shref\s{0,9}=\s{0,9}[\"']?(?!data:|#)\w", re.I | re.DOTALL),
    ),
    ("remote images", re.compile(r"\s(?:srcset|background)\s{0,9}=", re.IGNORECASE)),
    (
        "sound or film from elsewhere",
        re.compile(r"<\s*(?:video|audio|source)\b.*\s(?:src|poster)\s{0,9}=\s{0,9}[\"']?(?!data:)\w", re.I | re.DOTALL),
    ),
)
_ACTIVE_TEXTS = (
    ("javascript: links", re.compile(r"(?:java|vb)script\s{0,9}:", re.IGNORECASE)),
    ("remote resources", re.compile(r"@import|url\((?![\"']?(?:data:|#))", re.IGNORECASE)),
    ("remote images", re.compile(r"!\[[^\[\]]{0,300}\](?:\((?!data:)|\[)")),
)


_ESTIMATOR = re.compile(r'<div id="sk-container-id-[\w-]{1,50}"[^<>]{0,100} class="sk-top-container')


def active_parts(text: str) -> list[str]:
    """The kinds of active content that an HTML or Markdown text seems to have had."""
    text = text[:MAX_LOOKED_AT]
    found = {name for name, pattern in _ACTIVE_TEXTS if pattern.search(text)}
    for tag in _TAG.findall(text):
        if len(tag) > 3:  # "<a>"
            found |= {name for name, pattern in _ACTIVE_TAGS if name not in found and pattern.search(tag)}
            if "\\" in tag and "style" in tag.lower():
                found.add("styles in escapes")
    # scikit-learn's script says whether the page is dark, which ``sheets`` does too, and copies a parameter's name.
    return sorted(found - {"scripts", "handlers", "forms"} if _ESTIMATOR.search(text) else found)


ALLOW_LINE = '[outputs] active_content = "allow"'


_IN_WORDS = {
    "application/javascript": "a script",
    "text/javascript": "a script",
    "application/vnd.jupyter.widget-view+json": "an interactive widget",
    "application/vnd.plotly.v1+json": "a plotly figure",
    "application/pdf": "a PDF document (viewers follow its links by themselves)",
    "text/vnd.mermaid": "a diagram",
}
_OF_LIBRARIES = (
    ("application/vnd.vega", "a Vega chart"),
    ("application/vnd.bokeh", "a Bokeh plot"),
    ("application/vnd.holoviews", "a HoloViews plot"),
)


def in_words(mime: str) -> str:
    """A MIME type as users know what it shows."""
    known = next((words for start, words in _OF_LIBRARIES if mime.startswith(start)), mime)
    return _IN_WORDS.get(mime, known)


def removed_text(removed: list[str]) -> str:
    """What is said in the place of it. ``removed`` may hold a MIME type that the sandbox chose: text only, and cut."""
    names = ", ".join(re.sub(r"[^\w/+.:() -]", "?", name, flags=re.ASCII)[:60] for name in removed[:8])
    return f"Removed by the sandbox: {names}. To allow active content, write in the policy: {ALLOW_LINE}"


def removed_html(removed: list[str]) -> str:
    note = removed_text(removed).replace('"', "&quot;")
    return f'<div style="border-left:4px solid #c77700;padding-left:10px"><small>{note}</small></div>'


# --- Markdown --------------------------------------------------------------------------------------------------------

_DATA_IMAGE = re.compile(r"!\[[\w .,-]{0,200}\]\(data:image/(?:png|jpeg|gif|webp|bmp);base64,[A-Za-z0-9+/=]*\)")
# Tags, autolinks and destinations in <>; entities, which could spell a scheme; images; schemes that act; diagrams,
# whose language has images too. A zero-width space behind what is matched makes text of it, in prose as in code.
_ACTING = re.compile(
    r"<|&(?=[#A-Za-z])|!(?=\[)|(?:script|data|vbs|file|blob|filesystem)(?=\\?:(?!\s))|mer(?=maid)", re.IGNORECASE
)


def clean_markdown(text: str) -> str:
    """Markdown has HTML, links and images in it, and every renderer parses it differently. So without parsing: wherever
    they are, the few characters that such things begin with begin nothing any more. Inline images remain.
    """
    pieces = []
    end = 0
    for match in _DATA_IMAGE.finditer(text):
        pieces += [_defuse(text[end : match.start()]), match[0]]
        end = match.end()
    return clean_tex("".join([*pieces, _defuse(text[end:])]))


def _defuse(text: str) -> str:
    return _ACTING.sub("\\g<0>\u200b", text)


# --- SVG -------------------------------------------------------------------------------------------------------------

_SVG = "{http://www.w3.org/2000/svg}"
_XLINK_HREF = "{http://www.w3.org/1999/xlink}href"
_SVG_TAGS = _words(
    "svg g path rect circle ellipse line polyline polygon text tspan defs use clipPath linearGradient radialGradient"
    " stop title desc symbol pattern mask marker image style"
)
_SVG_SELECTOR = re.compile(r"\*")  # matplotlib: *{stroke-linejoin: round; stroke-linecap: butt}
_SVG_NAME = re.compile(r"(?!on)[A-Za-z][\w:-]*", re.IGNORECASE)
_SVG_FUNCTIONS = _FUNCTIONS | _words("matrix translate scale rotate skewx skewy url")
_SVG_REFUSED = re.compile(r"url\((?!#)|[\\<@]|script", re.IGNORECASE)  # url(#...) is a part of the same drawing


def clean_svg(text: str) -> str | None:
    """An SVG drawing without script, handler, link or remote part; None when it is not well-formed, or declares
    entities.
    """
    doctype = text.partition("<!DOCTYPE")[2].partition(">")[0]
    if "[" in doctype or "<!ENTITY" in text:
        return None
    from xml.etree import ElementTree as Tree

    Tree.register_namespace("", _SVG[1:-1])
    Tree.register_namespace("xlink", "http://www.w3.org/1999/xlink")
    try:
        root = Tree.fromstring(text)  # noqa: S314 - no entities, see above
        # Written by hand it often has no namespace: pages take it for SVG all the same (JupyterLab adds the namespace).
        if root.tag not in (f"{_SVG}svg", "svg"):
            return None
        for parent in list(root.iter()):
            _clean_element(parent.attrib)
            # comments have a function for a tag
            parent[:] = [child for child in parent if str(child.tag).removeprefix(_SVG) in _SVG_TAGS]
            if parent.tag in (f"{_SVG}style", "style"):
                parent[:], parent.text = [], clean_style_sheet(parent.text or "", _SVG_SELECTOR)
        return Tree.tostring(root, encoding="unicode")
    except (Tree.ParseError, ValueError, RecursionError):
        return None


def _clean_element(attributes: dict[str, str]) -> None:
    for name, value in list(attributes.items()):
        if name in ("href", _XLINK_HREF):
            harmless = value.startswith("#") or _IMAGE.fullmatch(value) is not None
        elif name == "style":
            attributes[name] = ";".join(part for part in value.split(";") if _is_harmless_in_svg(part))
            harmless = True
        else:
            harmless = _SVG_NAME.fullmatch(name) is not None and _is_harmless_in_svg(value)
        if not harmless:
            del attributes[name]


def _is_harmless_in_svg(value: str) -> bool:
    calls = _CALL.findall(value)
    return not _SVG_REFUSED.search(value) and all(call.lower() in _SVG_FUNCTIONS for call in calls)
