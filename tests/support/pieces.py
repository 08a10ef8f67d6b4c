"""Pieces of HTML, Markdown and TeX of which attacks are made, to be put together in ways that nobody thought of."""

from __future__ import annotations

PIECES = [
    "<script>", "</script>", "alert(1)", "<style>", "</style>", "<style class='data'>", "<svg>", "</svg>", "<math>",
    "<mtext>", "<mglyph>", "<table>", "<tr>", "<td>", "<img ", "src=", "x", " onerror=", "'", '"', ">", "<", "</",
    "<!--", "-->", "<![CDATA[", "]]>", "<a href=", "javascript:", "java\tscript:", "data:text/html,", "&#106;",
    "&lt;",
    "<iframe ", "srcdoc=", "<noscript>", "<template>", "<p style=", "background:url(//e)", "u\\72l(", "@import",
    "/*",
    "*/", "}", "{", ";", "#T_1", ".dataframe", "color:red", " on\nload=", "<textarea>", "<title>", "<form action=",
    "<plaintext>", "<xmp>", "<br>", "<wbr>", "$", "\\", "href", "\\href{javascript:x}", "\x00", "\u2028",
    "\ud800", " ",
    "<T_1 id=T_1 class='jp-Cell data'", "margin:-9px", "position:fixed", "&", "!", "[", "](", ")", "`", "\n",
    "<base ",
    # of drawings
    "<svg><g>", "<use href='", "#x", "xlink:href=", "<path d='", "fill='url(#x)'", "url(", "<animate ", "<set to=",
    "<foreignObject>", "<desc>", "</title>", "</desc>", "<symbol id=x>", "<mask id='x' ", "<text>", "<p>", "</p>",
    "<svg><style>", "<svg viewBox='0 0 9 9' id=x ", "</svg>", "<mi>", "<a id='", "<image href=", "</g>",
    "<input type=checkbox>",
    "<feImage href='//e'>", "<li><li>", "<form>", "<b><p>", "aria-labelledby=x ", "<pre>\n", "<select>",
]  # fmt: skip
