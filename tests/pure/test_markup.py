"""Whatever the sandbox displays as HTML, Markdown, TeX or SVG, what comes out neither acts nor fetches."""

from __future__ import annotations

import html
import random
import re
import time
from collections.abc import Callable
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxed_kernel.relay import drawings, markup, sheets
from tests.support.effort import SHARE, few
from tests.support.pieces import PIECES

TEXTS = st.one_of(st.lists(st.sampled_from(PIECES), max_size=25).map("".join), st.text(max_size=200))

ALLOWED_TAGS = markup._TAGS | {tag.lower() for tag in drawings.TAGS} | {"input", "label"}
ALLOWED_ATTRIBUTES = {
    name.lower() for names in (*markup._ATTRIBUTES.values(), *drawings.ATTRIBUTES.values()) for name in names
} | {"xlink:href"}
_HARMLESS_STYLE = re.compile(r"[\w\s#.,%()+/!*:;-]*")


TEXTUAL = {"alt", "aria-label", "class", "datetime", "download", "href", "id", "for", "lang", "title", "dir", "align"}
TEXTUAL |= {
    "valign",
    "scope",
    "value",
    "min",
    "max",
    "start",
    "width",
    "height",
    "border",
    "cellpadding",
    "cellspacing",
}
TEXTUAL |= {"colspan", "rowspan", "span", "preload", "type", "aria-controls", "aria-describedby", "aria-hidden"}
TEXTUAL |= {"aria-labelledby"}


class Looker(HTMLParser):
    """Reads HTML as a page would, and keeps what could act."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[str] = []
        self._in_style = self._in_box = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in_style = tag == "style"
        self._in_box = self._in_box or tag == "article"
        if tag not in ALLOWED_TAGS and (tag, attrs[1:]) != ("article", [("style", sheets.CONTAINER)]):
            self.found.append(f"<{tag}>")
        for name, value in attrs if tag != "article" else []:
            self._look_at(name, value or "")

    def _look_at(self, name: str, value: str) -> None:
        harmless = {
            "type": r"checkbox|[\w/.+-]*",
            "href": r"(?i)(https?://|mailto:|#).*|(?!.*(\.\.|//|%2e|%2f|%5c))[\w ~./%,()@=-]*",
            "src": r"data:(image/(png|jpeg|gif|webp|bmp)|(audio|video)/[\w.+-]+);base64,[\w+/=\s]*",
            "style": _HARMLESS_STYLE.pattern,
            "xlink:href": r"#o[0-9a-f]{16}-.*|data:image/(png|jpeg|gif|webp|bmp);base64,[\w+/=\s]*",
            "id": r"o[0-9a-f]{16}-.*",
            "target": "_blank|_self",
            "rel": "noopener noreferrer",
        }
        if name == "style" and self._in_box:
            harmless["style"] = r"[^<>@\\&]*"
        known = ALLOWED_ATTRIBUTES | harmless.keys()
        if name not in known or not re.fullmatch(harmless.get(name, ".*"), value, re.DOTALL):
            self.found.append(f"{name}={value}")
        if name == "style" and re.search(r"expression|import|image-set|fixed", value):
            self.found.append(value)
        if name == "style" and not self._in_box and re.search(r"url|image|position|margin[\w-]*: -", value):
            self.found.append(value)
        if name not in TEXTUAL and re.search(r"url\((?!#o[0-9a-f]{16}-)", value, re.IGNORECASE):
            self.found.append(value)

    def handle_endtag(self, tag: str) -> None:
        self._in_style = False

    def handle_data(self, data: str) -> None:
        if self._in_style and not re.fullmatch(r"[\w\s#.,%()+/!*:;{}>~\"@=\[\]^$|-]*", data):
            self.found.append(data)
        if self._in_style and re.search(r"url|import|@(?!media |supports )|fixed", data):
            self.found.append(data)

    def handle_comment(self, data: str) -> None:
        self.found.append(data)

    def handle_decl(self, decl: str) -> None:
        self.found.append(decl)

    def handle_pi(self, data: str) -> None:
        self.found.append(data)

    def unknown_decl(self, data: str) -> None:
        self.found.append(data)


@given(TEXTS)
def test_no_html_acts(text: str) -> None:
    cleaned = markup.clean_html(text)
    if cleaned is not None:
        assert Looker(cleaned).found == []
        assert not re.search(r"\\(href|class|style|url|require)(?![A-Za-z])", cleaned)


@given(TEXTS)
def test_what_was_cleaned_is_clean(text: str) -> None:
    """Parsed once more, as a page does, it is still the same to us: nothing changes its meaning on the way."""
    once = markup.clean_html(text)
    if once is not None:
        twice = markup.clean_html(once)
        assert twice is not None
        assert Looker(twice).found == []


@given(TEXTS)
def test_a_page_reads_drawings_as_they_were_written(text: str) -> None:
    """HTML, parsed and written once more, is the same: else it could have changed its meaning on the way (mXSS)."""
    cleaned = markup.clean_html(f"<svg><rect/></svg>{text}")
    if cleaned is not None and "<svg" in cleaned:
        assert markup._is_read_as_written(cleaned)


DRAWN = '<rect x="1" width="2" style="fill: #414487; stroke: rgb(255,255,255)"></rect>'


def test_a_drawing_is_shown_and_its_names_are_the_outputs_own() -> None:
    text = (
        f"<svg viewbox='0 0 9 9' class=k-1><defs><linearGradient id=g><stop offset=1></stop></linearGradient>"
        f"<symbol id='s'>{DRAWN}</symbol></defs><use xlink:href='#s'></use>"
        "<path d='M 0 1 L 2 3z' fill='url(#g) red' style='clip-path:url(\"#c\")' aria-labelledby='g s'/></svg>"
    )
    removed: list[str] = []
    cleaned = re.sub(r"o[0-9a-f]{16}", "o", markup.clean_html(text, removed) or "")
    assert cleaned.startswith(f'<article class="o" style="{sheets.CONTAINER}"><svg viewBox="0 0 9 9" class="o-k-1">')
    for part in ('<linearGradient id="o-g">', f'<symbol id="o-s">{DRAWN}', '<use xlink:href="#o-s">'):
        assert part in cleaned
    for part in ('fill="url(#o-g) red"', 'style="clip-path: url(#o-c)"', 'aria-labelledby="o-g o-s"', 'd="M 0 1'):
        assert part in cleaned
    assert (removed, markup.active_parts(text)) == ([], [])


@pytest.mark.parametrize(
    "inside",
    [
        "<script>//e</script>", "<a href='javascript:x'>x</a>", "<a href='http://e'>x</a>", "<rect onload='//e'/>",
        "<image href='//e'/>", "<image xlink:href='http://e'/>", "<rect fill='url(http://e)'/>", "<use href='//e#x'/>",
        "<rect style='fill:url( //e)'/>", "<style>@import '//e';</style>", "<style>*{background:url(//e)}</style>",
        "<style>rect { fill: u\\72l(//e) }</style>", "<foreignObject><p>//e</p></foreignObject>", "<title>//e</title>",
        "<rect style='background-image:image-set(\"//e\")'/>", "<animate attributeName='href' to='javascript:x'/>",
        "<set attributeName='onload' to='//e'/>", "<rect style='fill:u\\72l(//e)'/>", "<rect fill='src(\"//e\")'/>",
        "<rect fill='url(#a) url(//e)'/>", "<filter id=f><feImage href='//e'/></filter>", "<desc><img src=//e></desc>",
        "<rect filter='url(//e#f)'/>", "<rect cursor='url(//e)'/>", "<rect mask=\"url('//e#m')\"/>",
        "<rect fill='u/**/rl(//e)'/>", "<rect fill='url/**/(//e)'/>", "<style><g></style><img src=//e>",
        "<style><style>a{}</style>*{background:url(//e)}</style>",
    ],
)  # fmt: skip
def test_known_attacks_in_a_drawing_within_html(inside: str) -> None:
    cleaned = markup.clean_html(f"<svg>{inside}</svg>x")
    assert cleaned is not None
    assert not re.search(r"//e|javascript|onload|<script|foreign|import|<set|<animate|title|desc", cleaned)
    assert Looker(cleaned).found == []


@pytest.mark.parametrize(
    "text",
    [
        "<svg></p><style><a id=\"</style><img src=1 onerror=x>\">",
        "<svg><style><img src='</style><img src=x onerror=x>'>",
        "<svg><title><style><a title='</style><img src=x onerror=x>'>",
        "<svg><![CDATA[</svg><img src=x onerror=x>]]>", "<svg><desc><svg><style><a id='</style><img onerror=x>'>",
        "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=1 onerror=x&gt;'>",
        "<form><math><mtext></form><form><mglyph><svg><mtext><style><path id='</style><img onerror=x src>'>",
        "<svg><foreignObject><math><mi><style><a id='</style><img src onerror=x>'>",
    ],
)  # fmt: skip
def test_what_parsers_read_differently_has_nothing_that_acts(text: str) -> None:
    """In a text it is harmless: what counts is that no parser makes an element with it."""
    cleaned = markup.clean_html(text)
    assert cleaned is not None
    assert Looker(cleaned).found == []
    assert markup._is_read_as_written(cleaned) or "<svg" not in cleaned


def test_parts_of_a_drawing_are_not_drawn_without_end() -> None:
    levels = "".join(f"<g id=a{n}>{f'<use href=#a{n + 1} />' * 10}</g>" for n in range(20))
    cleaned = markup.clean_html(f"<svg>{levels}<rect id=a20 /><use href=#a20 /></svg>") or ""
    assert cleaned.count("href=") == 11  # of the first, which no other draws, and the last
    nested = "".join(f"<pattern id=p{n}>{f'<rect fill=url(#p{n + 1}) />' * 10}</pattern>" for n in range(20))
    assert "url(" not in (markup.clean_html(f"<svg>{nested}</svg>") or "url(")
    many = f"<svg><g id=m>{'<rect/>' * 1000}</g>{'<use href=#m />' * 200}</svg>"
    assert 0 < (markup.clean_html(many) or "").count("href=") <= drawings.MAX_DRAWN // 2000


def test_where_parsers_differ_drawings_are_left_out_and_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(markup, "_is_read_as_written", lambda text: False)
    removed: list[str] = []
    cleaned = markup.clean_html(f"<p>kept</p><svg>{DRAWN}</svg>", removed)
    assert cleaned is not None
    assert ("<p>kept</p>" in cleaned, "<svg" in cleaned, "drawings" in removed[0]) == (True, False, True)


@pytest.mark.parametrize(
    "text",
    [
        "<style class=data>body{background:url(//e)}</style>",
        "<style>@import '//e';</style>",
        "<style>#T_1 td{background:u\\72l(//e)}</style>",
        "<p style='margin-top:calc(0px*-900)'>x</p>",
        "<p style='margin:-900px'>x</p>",
        "<p style='position:fixed;top:0'>x</p>",
        "<img src='http://e/?secret'>",
        "<img src='data:image/svg+xml,<svg onload=x>'>",
        "<a href='javascript:x'>x</a>",
        "<svg><a xlink:href='javascript:x'>x</a></svg>",
        "<math><mtext><table><mglyph><style><!--</style><img src=x onerror=x>",
        "<base href='//e'><meta http-equiv=refresh content='0;url=//e'>",
        "<input type=image src='//e'><form action='//e'><button>x</button></form>",
    ],
)
def test_known_attacks_on_a_page(text: str) -> None:
    cleaned = markup.clean_html(text)
    assert cleaned is not None
    assert not re.search(r"//e|url\(|script|onload|onerror|fixed|margin|import", cleaned)
    assert Looker(cleaned).found == []


@pytest.mark.parametrize("middle", ["", "<wbr>", "<!-- -->", "&#8203;<wbr/>"])
def test_no_macro_is_put_together_from_halves(middle: str) -> None:
    cleaned = markup.clean_html(f"$\\{middle}href{{javascript:x}}{{y}}$")
    assert cleaned is not None
    assert "\\href" not in re.sub(r"<wbr/?>|<!--.*?-->", "", cleaned)


def test_a_table_of_pandas_keeps_its_looks() -> None:
    table = (
        "<style scoped>\n.dataframe tbody tr th:only-of-type { vertical-align: middle; }\n</style>"
        '<table border="1" class="dataframe"><thead><tr style="text-align: right;"><th></th><th>a</th></tr></thead>'
        '<tbody><tr><th>0</th><td class="data row0 col0" id="T_1_row0_col0">1</td></tr></tbody></table>'
    )
    cleaned = markup.clean_html(table)
    assert cleaned is not None
    assert ".dataframe tbody tr th:only-of-type {vertical-align: middle}" in cleaned
    assert '<table border="1" class="dataframe">' in cleaned
    assert '<tr style="text-align: right">' in cleaned
    assert re.search(r'id="o[0-9a-f]{16}-T_1_row0_col0"', cleaned)
    assert 'class="data row0 col0"' in cleaned


def test_a_style_of_pandas_keeps_its_colours() -> None:
    styled = "<style>\n#T_1_row0_col0, #T_1_row1_col0 {\n  background-color: #fff7fb;\n  color: #000000;\n}\n</style>"
    cleaned = markup.clean_html(styled)
    box = re.search(r'<article class="(\w+)"', cleaned or "")
    assert box is not None
    names = f".{box[1]} #{box[1]}-T_1_row0_col0, .{box[1]} #{box[1]}-T_1_row1_col0"
    assert f"<style>{names} {{background-color: #fff7fb; color: #000000}}</style>" in (cleaned or "")


def test_a_selector_that_is_left_out_takes_no_other_with_it() -> None:
    sheet = sheets.scoped(".a, td::x, a:visited.b {color: red; --c: 1}", "box", "p-", markup._CLASS)
    assert sheet == ".box .a, .box a:visited.b {color: red; --c: 1}"
    root = sheets.scoped(":root, .xyz {color: red; --c: 1}", "box", "p-", markup._CLASS)
    assert root == ".box, .box .p-xyz {--c: 1}"


@pytest.mark.parametrize(
    "rule",
    [
        "~ div {color: red}", "+ div {color: red}", "> div, ~ p {position: fixed}", "a\\, body {color: red}",
        "a {background: url(//e)}", "a {background: u\\72l(//e)}", "a {content: '</style><script>'}",
        "a {background: image-set('//e')}", "a {position: fixed}", "@import '//e';", "@font-face {src: url(//e)}",
        ":root {position: absolute}", "html:has(a) {color: red}", "body :root {color: red}", "a {behavior: x}",
        "a:is(b, body) {color: red}", "a {color: red; b {color: red}}", "a {color: #\x00}", "a {color: 1\U0001f600}",
        "@supports (x: y) {~ div {color: red}}", "{" * 1000, "a\\} * {color: red}",
    ],
)  # fmt: skip
def test_no_rule_reaches_out_of_its_output(rule: str) -> None:
    sheet = sheets.scoped(rule, "box", "box-", markup._CLASS)
    for line in sheet.splitlines():
        names, _, declarations = line.partition(" {")
        assert all(re.match(r"\.box( [^~+]|$)", one) for one in re.sub(r"\([^()]*\)", "()", names).split(", ")), line
        assert not re.search(r"url|fixed|image-set|//e|[<\\@]", line), line
        assert "position" not in declarations, line


@pytest.mark.parametrize(
    ("rule", "kept"),
    [
        ("details[open] > p {color: red}", ".b details[open] > p {color: red}"),
        ('input[type=checkbox] {color: red}', '.b input[type="checkbox"] {color: red}'),
        ("a[title*='x\\\\'] {color: red}", ""),
        (".tbl :is(td, th) {color: red}", ".b .p-tbl :is(td, th) {color: red}"),
        (":where(.tbl, a\\\\,b) {color: red}", ".b :where(.p-tbl) {color: red}"),
        ("p:not(.tbl, #u) {color: red}", ".b p:not(.p-tbl, #p-u) {color: red}"),
        ("p:not(.tbl, a\\\\,b) {color: red}", ""),
        ("p:has(> img, + b) {color: red}", ".b p:has(> img, + b) {color: red}"),
        (":is(> p) {color: red}", ""),
        (
            "@media (prefers-color-scheme: dark) and (min-width: 9px) {p {color: red; background: url(//e)}}",
            "@media (prefers-color-scheme: dark) and (min-width: 9px) {\n.b p {color: red}\n}",
        ),
        (
            "@media print {@media all {p {color: red}} @import '//e'; }",
            "@media print {\n@media all {\n.b p {color: red}\n}\n}",
        ),
        ("@media x <y {p {color: red}}", ""),
        ("@media \\\\7b {p {color: red}}", ""),
        (
            "@supports (display: grid) and (not (gap: calc(1px + 1%))) {p {color: red; position: fixed}}",
            "@supports (display: grid) and (not (gap: calc(1px + 1%))) {\n.b p {color: red}\n}",
        ),
        (
            "@supports selector(a) {@media print {p {top: 1px}} @SUPPORTS not (x: y) {b {top: 0}}}",
            "@supports selector(a) {\n@media print {\n.b p {top: 1px}\n}\n@supports not (x: y) {\n.b b {top: 0}\n}\n}",
        ),
        ("@supports selector(:has(> a)) {p {top: 1px}}", "@supports selector(:has(> a)) {\n.b p {top: 1px}\n}"),
        (".output_html .k {color: red} a .output_html {top: 0}", ".b .k {color: red}\n.b a .p-output_html {top: 0}"),
        ("p {font-style: italic; justify-content: center}", ".b p {font-style: italic; justify-content: center}"),
        ("p {flex-wrap: wrap; grid-template-areas: 'a b'}", ".b p {flex-wrap: wrap; grid-template-areas: \"a b\"}"),
        (".output_html ~ div, .output_html + div {color: red}", ""),
        (".output_html > div, .output_html {color: red}", ""),
        ("@supports (background: url(//e)) {p {color: red}}", ""),
        ("@supports (background: u\\72l(//e)) {p {color: red}}", ""),
        ("@supports (background: image-set('//e')) {p {color: red}}", ""),
        ("@supports font-tech(variations) {p {color: red}}", ""),
        ("@supports (x: {}) {p {color: red}}", ""),
        ("@supports (x: y {p {color: red}}", ""),
        ("@supports (x: y); p {color: red}", ".b p {color: red}"),
        ("@supports (x: y) {@import '//e'; b {color: red}}", "@supports (x: y) {\n.b b {color: red}\n}"),
        ("@supports (x: y) {@font-face {src: url(//e)}}", ""),
        ("@supports (x: y) {a {background: url(//e)} ~ div {color: red}}", ""),
        ("@container (width > 1px) {p {color: red}}", ""),
        ("@layer a {p {color: red}}", ""),
        (
            "html[theme=dark], body.vscode-dark {--c: red; color: red}",
            "html[theme=dark] .b, body.vscode-dark .b {--c: red}",
        ),
    ],
)  # fmt: skip
def test_conditions_and_lists_hold_in_the_output_only(rule: str, kept: str) -> None:
    assert sheets.scoped(rule.replace("\\\\", "\\"), "b", "p-", markup._CLASS) == kept


def test_a_script_that_tells_the_theme_is_not_needed() -> None:
    sheet = ".sk-global.light {--c: red} .sk-global.dark {--c: blue}"
    lines = sheets.scoped(sheet, "b", "p-", markup._CLASS).splitlines()
    assert lines[0] == ".b .p-sk-global.p-light, .b .p-sk-global {--c: red}"
    assert lines[1].startswith(".b .p-sk-global.p-dark, :is([data-jp-theme-light=")
    assert lines[1].endswith(" .b .p-sk-global {--c: blue}")
    container = '<div id="sk-container-id-1" tabindex="0" class="sk-top-container sk-global"><button onclick="x">'
    assert markup.active_parts(f"{container}</button></div><script>x</script>") == []
    assert markup.active_parts(f"{container}</button></div><iframe>") == ["frames"]


def test_a_library_shows_its_rich_form_and_not_its_fallback() -> None:
    """As scikit-learn writes it."""
    text = (
        "<style>#sk-1 {--c: #123; color: var(--c)} #sk-1 div.sk-fallback {display: none}"
        " #sk-1 input.sk-t:checked ~ div.sk-c {display: block}</style><div id='sk-1'><div class='sk-fallback'>rerun"
        "</div><div class='sk-c' hidden><input class='sk-t' id='i' type='checkbox'><label for='i'>Model</label></div>"
    )
    cleaned = re.sub(r"o[0-9a-f]{16}", "o", markup.clean_html(text) or "")
    assert ".o #o-sk-1 div.o-sk-fallback {display: none}" in cleaned
    assert ".o #o-sk-1 {--c: #123; color: var(--c)}" in cleaned
    assert ".o #o-sk-1 input.o-sk-t:checked ~ div.o-sk-c {display: block}" in cleaned
    assert '<div class="o-sk-c">' in cleaned
    assert '<label for="o-i">' in cleaned
    assert 'type="checkbox"' in cleaned


def test_what_would_take_the_parser_long_is_not_parsed() -> None:
    assert markup.clean_html("<div>" * (markup.MAX_NESTING_TAGS + 1)) is None
    rows = "<tr><td>x</td></tr>" * (markup.MAX_NESTING_TAGS + 1)
    assert (markup.clean_html(f"<table>{rows}</table>") or "").count("<td>") > markup.MAX_NESTING_TAGS


@given(TEXTS)
def test_no_markdown_acts(text: str) -> None:
    cleaned = markup.clean_markdown(text)
    assert "<" not in cleaned.replace("<\u200b", "")
    assert not re.search(r"&[#A-Za-z]", cleaned)
    images = re.findall(r"!\[.{0,230}", cleaned, re.DOTALL)
    assert all(re.match(r"!\[[\w .,-]*\]\(data:image/(png|jpeg|gif|webp|bmp);base64,[\w+/=]*\)", one) for one in images)
    without_images = markup._DATA_IMAGE.sub("", cleaned)
    assert not re.search(r"(?i)(script|data|vbs|file|blob|filesystem)\\?:[^\s\u200b]", without_images)


@pytest.mark.parametrize(
    "text",
    [
        "[x](javascript:alert)", "[x]: javascript\\:alert", "[x](< java\tscript:alert(1)>)", "![x](http://e)",
        r"\![<img src=x onerror=x>](data:image/png;base64,AAAA)", "[x](&#106;avascript:alert)", "![x][y]\n\n[y]: //e",
        "```mermaid\nA@{ img: 'http://e' }\n```", "$\\href{javascript:x}{y}$",
    ],
)  # fmt: skip
def test_known_attacks_in_markdown_are_changed(text: str) -> None:
    cleaned = markup.clean_markdown(text)
    assert "\u200b" in cleaned
    assert cleaned.replace("\u200b", "") == text


def test_markdown_still_looks_right() -> None:
    text = "# T\n\nif `a < b` then **the data: x**, [link](https://example.org) and ![dot](data:image/png;base64,AAAA)"
    assert markup.clean_markdown(text).replace("<\u200b", "<") == text


@given(TEXTS)
def test_no_macro_of_tex_acts(text: str) -> None:
    cleaned = markup.clean_tex(text)
    assert not re.search(r"\\(href|url|class|style|cssId|require|def|let|newcommand)(?![A-Za-z])", cleaned)
    assert cleaned.replace("\u200b", "") == text.replace("\u200b", "")


SVG = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'


@pytest.mark.parametrize(
    "inside",
    [
        "<script>x</script>", "<a href='javascript:x'><text>x</text></a>", "<rect onload='x'/>", "<image href='//e'/>",
        "<image xlink:href='http://e'/>", "<rect fill='url(http://e)'/>", "<rect style='fill:url( //e)'/>",
        "<style>@import '//e';</style>", "<style>*{background:url(//e)}</style>", "<use href='http://e#x'/>",
        "<foreignObject><p xmlns='http://www.w3.org/1999/xhtml'>e</p></foreignObject>",
        "<rect style='background-image:image-set(\"//e\")'/>", "<animate attributeName='href' to='javascript:x'/>",
        "<set attributeName='onload' to='x'/>", "<rect style='fill:u\\72l(//e)'/>",
    ],
)  # fmt: skip
def test_known_attacks_in_a_drawing(inside: str) -> None:
    without_namespace = '<svg xmlns:xlink="http://www.w3.org/1999/xlink">'
    for start in (SVG, without_namespace):
        cleaned = markup.clean_svg(f"{start}{inside}</svg>")
        assert cleaned is not None
        assert not re.search(r"//e|http://e|javascript|onload|<script|foreign|import|<set|<animate", cleaned)


def test_a_drawing_without_a_namespace_stays_without() -> None:
    drawing = '<svg height="9"><style>* {stroke-linecap: butt}</style><circle r="4" fill="red" /></svg>'
    assert markup.clean_svg(drawing) == drawing
    mixed = '<svg><h:script xmlns:h="http://www.w3.org/1999/xhtml">x</h:script><h:g xmlns:h="urn:other" /></svg>'
    assert markup.clean_svg(mixed) == "<svg />"


@pytest.mark.parametrize(
    "text",
    [
        "", "<svg>", "<html/>", "<!DOCTYPE svg [<!ENTITY a 'b'>]>" + SVG + "&a;</svg>",
        "<!-- <!DOCTYPE x> --><!DOCTYPE svg [<!ENTITY a 'b'>]>" + SVG + "</svg>", SVG + "<g>" * few(100_000), "\ud800",
        "\x00",
    ],
    ids=range(8),
)  # fmt: skip
def test_what_is_no_drawing_is_not_passed(text: str) -> None:
    assert markup.clean_svg(text) is None


def test_a_drawing_with_many_parts_is_cleaned_in_one_go() -> None:
    cleaned = markup.clean_svg(f"{SVG}{'<a/>' * few(50_000)}<rect/></svg>")
    assert cleaned is not None
    assert [child.tag for child in ElementTree.fromstring(cleaned)] == ["{http://www.w3.org/2000/svg}rect"]


def test_a_drawing_of_matplotlib_is_left_as_it_is() -> None:
    drawing = (
        f'{SVG}<defs><style type="text/css">*{{stroke-linejoin: round; stroke-linecap: butt}}</style></defs>'
        '<g id="f"><path d="M 0 1 L 2 3 z" style="fill: #fff; clip-path: url(#p1)" transform="translate(1 2)"/>'
        '<use xlink:href="#m1" x="3"/><text style="font: 10px \'DejaVu Sans\'">a</text></g></svg>'
    )
    cleaned = markup.clean_svg(drawing)
    assert cleaned is not None
    for part in ("stroke-linejoin: round", "clip-path: url(#p1)", "translate(1 2)", '"#m1"', "DejaVu Sans", "M 0 1"):
        assert part in cleaned


@given(TEXTS)
def test_the_kinds_of_active_content_are_found_in_any_text(text: str) -> None:
    assert set(markup.active_parts(text)) <= {name for name, _ in (*markup._ACTIVE_TAGS, *markup._ACTIVE_TEXTS)} | {
        "styles in escapes"
    }


FLOODS = {
    "comments in a style sheet": "<style>" + "/*" * few(2 << 20) + "</style>",
    "comments that touch": "<style>" + "/*/" * few(1 << 20) + "</style>",
    "styles of one tag": "<" + " style=" * few(600_000),
    "styles of one tag that ends": "<p" + " style='a'" * few(400_000) + "\\>",
    "rules": "<style>" + "a{b:c}" * few(80_000) + "</style>",
    "brackets in a style sheet": "<style>" + "a{b:((((" * few(50_000) + "</style>",
    "strings without an end": "<style>" + "a{b:'\n" * few(60_000) + "</style>",
    "attributes": "<p " + "".join(f"a{number}=1 " for number in range(few(300_000))) + ">",
    "handlers": "<" + " on" * few(1 << 20),
    "tags without an end": "<" * few(4 << 20),
    "comments without an end": "<!--" * few(1 << 20),
    "entities": "&amp" * few(1 << 20),
    "elements": "<b>" * few(1 << 20),
    "blocks": "<style>" + "{" * few(4 << 20) + "</style>",
    "brackets": "![" * few(2 << 20),
    "shapes": "<svg>" + "".join(f"<path style='fill:#{n}'/>" for n in range(few(9_000))),
    "styles of shapes": "<svg>" + "".join(f"<path style='{f'fill:#{n};' * 400}'/>" for n in range(few(700))),
    "uses": "<svg><g id=a>" + "<use href=#a />" * few(9_000),
    "references": "<svg><g fill='" + "url(#" * few(600_000) + "'>",
    "pictures in pictures": "<svg>" * few(9_000),
    "names": "<svg><a href='#" + "href=" * few(600_000) + "'>",
    "sources": "<img" + " src=" * few(800_000) + ">",
}


LIMITS = [(markup, "MAX_ATTRIBUTES"), (markup, "MAX_ENTITIES"), (markup, "MAX_NESTING_TAGS"), (sheets, "MAX_SHEET")]


@pytest.mark.parametrize("text", FLOODS.values(), ids=FLOODS.keys())
def test_no_markup_takes_more_than_linear_time(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The relay has one thread: while it reads an output, no interrupt and no heartbeat is answered."""
    for module, name in LIMITS:
        monkeypatch.setattr(module, name, few(getattr(module, name)))
    text = text[: few(4 << 20)]
    begin = time.thread_time()  # of the processor: a busy machine is no fault of ours
    markup.clean_html(text)
    markup.active_parts(text)
    markup.clean_markdown(text)
    markup.clean_svg(text)
    assert time.thread_time() - begin < 20 / SHARE


@pytest.mark.parametrize(
    ("name", "start", "many", "end"),
    [
        ("MAX_ATTRIBUTES", "<p", " a=1", ">"),
        ("MAX_ATTRIBUTES", "<p", " a='>'", ">"),
        ("MAX_ENTITIES", "", "&amp;", ""),
        ("MAX_NESTING_TAGS", "", "<b>", ""),
    ],
    ids=["attributes", "attributes with an end in quotes", "entities", "elements"],
)
def test_only_what_is_beyond_a_limit_is_not_parsed(
    name: str, start: str, many: str, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(markup, name, 1000)
    assert markup.clean_html(f"{start}{many * 2000}{end}") is None
    assert markup.clean_html(f"{start}{many * 100}{end}") is not None


def test_a_style_sheet_beyond_its_limit_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    sheet = "a {color: red}\n" * 10
    monkeypatch.setattr(sheets, "MAX_SHEET", len(sheet))
    assert sheets.scoped(sheet, "box", "p-", markup._CLASS) != ""
    assert sheets.scoped(f"{sheet} ", "box", "p-", markup._CLASS) == ""
    removed: list[str] = []
    assert "color" in (markup.clean_html(f"<style>{sheet}</style>", removed) or "")
    assert removed == []
    assert "color" not in (markup.clean_html(f"<style>{sheet} </style>", removed) or "color")
    assert removed == [f"style sheets over {len(sheet)} characters (too large)"]


@pytest.mark.parametrize(
    ("text", "stays"),
    [
        ('<audio controls><source src="data:audio/wav;base64,AAAA" type="audio/wav"></audio>', "data:audio/wav;base64"),
        ('<video controls src="data:video/mp4;base64,AAAA"></video>', "data:video/mp4;base64"),
        ("<a href='a%20b/c.txt'>c</a>", 'href="a%20b/c.txt"'),
    ],
)
def test_sound_film_and_links_to_files_pass(text: str, stays: str) -> None:
    assert stays in (markup.clean_html(text) or "")
    assert markup.active_parts(text) == []


def test_a_link_within_an_output_stays_on_the_page() -> None:
    text = "<h1 id=x>t</h1><a title='a' href='#x'>l</a><a href='http://e/#x'>x</a>"
    cleaned = re.sub(r"o[0-9a-f]{16}", "o", markup.clean_html(text) or "")
    assert '<h1 id="o-x">' in cleaned
    assert '<a title="a" href="#o-x" target="_self"' in cleaned
    assert '<a href="http://e/#x" target="_blank"' in cleaned


@pytest.mark.parametrize("link", ["../x", "a/../../x", "/x", "//e", "a/%2E%2e/x", "a\\b", "x?y", "javascript:x"])
def test_a_link_to_elsewhere_on_this_server_does_not_pass(link: str) -> None:
    assert "href" not in (markup.clean_html(f'<a href="{link}">x</a>') or "href")


# --- tables ----------------------------------------------------------------------------------------------------------

TABLES = few(10_000)
_LETTERS = "<>&\"'/=\\$:;{}()#%@ -+.,abcxyz0189" + "éßЖ日本語한\u05d0\u0661\U0001f600"


def table(choose: random.Random, cell: Callable[[], str], more: str = "") -> str:
    """As pandas and Styler write one."""
    columns = choose.randrange(1, 5)
    heads = "".join(f"<th>{cell()}</th>" for _ in range(columns))
    rows = []
    for number in range(choose.randrange(1, 6)):
        cells = "".join(f'<td id="T_1_row{number}_col0" class="data row{number}">{cell()}</td>' for _ in range(columns))
        rows.append(f'<tr><th class="row_heading" scope="row">{number}</th>{cells}</tr>')
    sheet = f"#T_1_row0_col0 {{background-color: #{choose.randrange(16**6):06x}; color: #f1f1f1}} {more}"
    head = f'<thead><tr style="text-align: right;"><th></th>{heads}</tr></thead>'
    body = "\n".join(rows)
    inner = f'<table border="1" class="dataframe">{head}<tbody>{body}</tbody></table>'
    return f"<div><style scoped>{sheet}</style>{inner}</div>"


class Cells(HTMLParser):
    """The texts of a table, and what they stand in."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[str] = []
        self._in_style = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in_style = tag == "style"
        if tag in ("th", "td", "tr", "table"):
            self.found.append(f"<{tag} {dict(attrs).get('class')}>")

    def handle_endtag(self, tag: str) -> None:
        self._in_style = False

    def handle_data(self, data: str) -> None:
        if not self._in_style:
            self.found.append(data)


def test_tables_of_any_text_keep_what_stands_in_them() -> None:
    choose = random.Random(3)
    pieces = [piece for piece in PIECES if not set(piece) & set("\\\x00\ud800")]  # TeX is another test's
    words = [*pieces, "https://e.org//x", "a // b", "on load = 1", "javascript: no", "<b>", "&amp;lt;"]

    def cell() -> str:
        if choose.random() < 0.3:
            return html.escape("".join(choose.choices(words, k=2)))
        return html.escape("".join(choose.choices(_LETTERS, k=choose.randrange(12))).replace("\\", ""))

    for _ in range(TABLES):
        one, removed = table(choose, cell), list[str]()
        cleaned = markup.clean_html(one, removed)
        assert cleaned is not None
        assert "".join(Cells(cleaned).found) == "".join(Cells(one).found)
        assert "background-color: #" in cleaned
        assert removed == []


def test_nothing_acts_in_any_hostile_table() -> None:
    choose = random.Random(4)
    for _ in range(TABLES):
        parts = ["".join(choose.choices(PIECES, k=choose.randrange(1, 6))) for _ in range(4)]
        one = table(choose, lambda parts=parts: choose.choice(parts), more=choose.choice(parts))  # type: ignore[misc]
        place = choose.randrange(len(one))
        cleaned = markup.clean_html(one[:place] + choose.choice(parts) + one[place:])
        if cleaned is not None:
            assert Looker(cleaned).found == []
