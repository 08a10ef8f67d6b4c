"""A style sheet of an output changes nothing outside of that output, and nothing is drawn beside it: no notice of the
page, of Jupyter's or of ours, can be covered or restyled.

Counted in the screenshot, where a person would see it: every case paints in one colour that the page does not have. In
a plain kernel each reaches the page outside of its output.
"""

from __future__ import annotations

import base64
from typing import Any

import pytest

from tests.browser.outputs import PREAMBLE
from tests.support.lab import Cell, Lab, Notebook

PAINT = "background: #f0f !important"
LARGE = f"top: 0; left: 0; width: 900px; height: 600px; z-index: 99999; {PAINT}"


def sheet(rules: str, body: str = "<div class=a>x</div>") -> str:
    return f"<style>{rules}</style>{body}"


CASES = {
    "fixed": sheet(f".a {{ position: fixed; {LARGE} }}"),
    "fixed, in an attribute": f'<div style="position: fixed; {LARGE}">x</div>',
    "fixed by a variable": sheet(f".a {{ --p: fixed; position: var(--p); {LARGE} }}"),
    "fixed, spelled with an escape": sheet(f".a {{ position: f\\69xed; {LARGE} }}"),
    "fixed, what stands before": sheet(f".a::before {{ content: 'x'; position: fixed; {LARGE} }}"),
    "the output itself is fixed": sheet(f"article, .jp-RenderedHTMLCommon {{ position: fixed; {LARGE} }}"),
    "the whole page": sheet(f"body, body * {{ {PAINT} }}"),
    "everything": sheet(f"* {{ {PAINT} }}"),
    "everything, by :is": sheet(f":is(body, *) {{ {PAINT} }}"),
    "everything, by :not": sheet(f":not(.x) {{ {PAINT} }}"),
    "cells, by Jupyter's class": sheet(f".jp-Cell, .jp-Toolbar {{ {PAINT} }}"),
    "cells, by an attribute": sheet(f"[class] {{ {PAINT} }}"),
    "Jupyter's colours": sheet(":root { --jp-layout-color0: #f0f !important; --jp-layout-color1: #f0f !important }"),
    "a drawing that is fixed": (
        f'<svg style="position: fixed; {LARGE}" width=900 height=600><rect width=900 height=600 fill="#f0f"/></svg>'
    ),
    "in a condition": sheet(f"@media all {{ body, body * {{ {PAINT} }} }}"),
    "nested": sheet(f".a {{ :is(body *):not(&) {{ {PAINT} }} }}"),
    "by what it holds": sheet(f"body:has(.a) {{ {PAINT} }} div:has(.a) {{ {PAINT} }}"),
}

# No attacks on a page, but on whoever reads a style sheet and writes it anew.
TRICKS = {
    "a drawing": (
        '<svg width=9 height=9 style="overflow: visible">'
        '<rect x=-2000 y=-2000 width=4000 height=4000 fill="#f0f"/></svg>'
    ),
    "a drawing that is moved": (
        '<svg width=9 height=9 overflow=visible transform="translate(0 -300) scale(90)"><rect width=9 height=9'
        ' transform="scale(90)" stroke="#f0f" stroke-width=2000 /></svg>'
    ),
    "a comma in an escape": sheet(f".a\\2c body * {{ {PAINT} }}"),
    "a brace in an escape": sheet(f".a\\7d body * {{ {PAINT} }}"),
    "the end of the element in a string": sheet(f".a {{ font-family: '<\\/style><style>body * {{ {PAINT} }}'; }}"),
    "the end of a rule in a variable": sheet(f".a {{ --v: x\\7d body * {{ {PAINT} }}; }}"),
    "a comment that does not end": sheet(f".a {{ color: red }} /* body * {{ {PAINT} }}")
    + sheet(f"*/ body * {{ {PAINT} }}"),
    "a bracket that does not end": sheet(".a:not( {") + sheet(f"}} body * {{ {PAINT} }}"),
}

# The picture is decoded by the browser: pixels of the colour outside of the rectangle, and inside.
COUNT = """
async ([picture, box]) => {
    const image = await createImageBitmap(await (await fetch('data:image/png;base64,' + picture)).blob());
    const canvas = new OffscreenCanvas(image.width, image.height);
    const context = canvas.getContext('2d');
    context.drawImage(image, 0, 0);
    const data = context.getImageData(0, 0, image.width, image.height).data;
    const counted = [0, 0];
    for (let i = 0; i < data.length; i += 4) {
        if (data[i] < 250 || data[i + 1] > 5 || data[i + 2] < 250) { continue; }
        const x = (i / 4) % image.width, y = Math.floor(i / 4 / image.width);
        const inside = x >= box.x - 1 && x <= box.x + box.width && y >= box.y - 1 && y <= box.y + box.height;
        counted[inside ? 1 : 0] += 1;
    }
    return counted;
}
"""


def painted(page: Any, notebook: Notebook, cell: Cell) -> tuple[int, int]:
    """Pixels of the colour outside of the cell's output, and in it."""
    # Where the output stands: the row of the cell, since what is fixed leaves no place behind.
    box = cell.element.locator(".jp-Cell-outputWrapper").bounding_box()
    assert box is not None
    picture = base64.b64encode(notebook.page.screenshot()).decode()
    outside, inside = page.evaluate(COUNT, [picture, box])
    return outside, inside


@pytest.mark.parametrize("kernel", ["python3", "sandboxed"])
def test_no_style_sheet_paints_outside_of_its_output(lab: Lab, kernel: str) -> None:
    context = lab.browser.new_context()
    counted = {}
    try:
        decoder = context.new_page()
        with lab.notebook(kernel) as notebook:
            notebook.run(PREAMBLE)
            for name, text in (CASES if kernel == "python3" else CASES | TRICKS).items():
                cell = notebook.run(f"html({text!r})")
                counted[name] = painted(decoder, notebook, cell)
                notebook.command("notebook:clear-all-cell-outputs")
                notebook.settle()
    finally:
        context.close()
    outside = {name for name, (pixels, _) in counted.items() if pixels}
    if kernel == "python3":
        assert outside == set(CASES), counted
    else:
        assert outside == set(), counted
        # It is the boundary that holds, not that nothing is drawn at all.
        assert counted["everything"][1] > 0, counted
