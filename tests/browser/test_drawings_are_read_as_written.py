"""A page makes of a cleaned output the elements that were written, and no others: seen in Chromium, whose parser is not
the one that cleaned it.
"""

from __future__ import annotations

import random
from pathlib import Path

from sandboxed_kernel.relay import drawings, markup
from tests.support.lab import Lab
from tests.support.pieces import PIECES

LIBRARIES = {
    "dask": "<svg width=9 height=9 style='stroke:rgb(0,0,0)'><line x1=1 x2=9 style='stroke-width:2' /></svg>",
    "xarray": "<svg style='position:absolute;width:0'><defs><symbol id=i><path d='M0 0'></symbol></defs></svg>"
    "<label for=x><svg class='icon xr-icon'><use xlink:href='#i'></use></svg></label>",
    "great_tables": "<svg viewBox='0 0 9 9'><style>.a > text { fill: red }</style><g class=a><text>x</text></g></svg>",
}

# As JupyterLab does it. What the page read, as it would write it; and what could act or is not in the tables.
READ = """
([text, tags, attributes]) => {
    const host = document.createElement('div');
    document.body.replaceChildren(host);
    host.innerHTML = text;
    const found = [];
    for (const element of host.querySelectorAll('*')) {
        if (!tags.includes(element.localName.toLowerCase())) { found.push(element.localName); }
        for (const {name, value} of element.attributes) {
            if (!attributes.includes(name.toLowerCase())) { found.push(name); }
            if (/script:/i.test(value) && name.includes('href')) { found.push(value); }
        }
    }
    return [host.innerHTML, found];
}
"""


def texts(count: int) -> list[str]:
    """The same in every run."""
    chance = random.Random(0)
    return ["<svg><g>" + "".join(chance.choices(PIECES, k=chance.randrange(25))) for _ in range(count)]


def test_a_page_reads_what_was_written(lab: Lab, pictures: Path) -> None:
    tags = sorted(tag.lower() for tag in {*markup._TAGS, *drawings.TAGS, "article", "input", "label"})
    names = {name for known in (markup._ATTRIBUTES | drawings.ATTRIBUTES).values() for name in known}
    attributes = sorted(name.lower() for name in names | {"type", "rel", "target", "xlink:href"})
    context = lab.browser.new_context()
    asked: list[str] = []
    try:
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url) if not request.url.startswith("data:") else None)
        for text in [*LIBRARIES.values(), *texts(600)]:
            cleaned = markup.clean_html(text)
            if cleaned is None or "<svg" not in cleaned:
                continue
            read, found = page.evaluate(READ, [cleaned, tags, attributes])
            assert found == [], (text, cleaned)
            assert read.replace("&gt;", ">") == cleaned.replace("&gt;", ">"), text
        assert asked == []
        page.evaluate(READ, ["".join(markup.clean_html(text) or "" for text in LIBRARIES.values()), tags, attributes])
        page.screenshot(path=pictures / "drawings.png")
    finally:
        context.close()
