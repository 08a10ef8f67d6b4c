"""Does: draws executed notebooks in JupyterLab, and says how far two pictures of one cell are apart.

The outputs are those that nbclient has collected, opened as a notebook that the user trusts: what JupyterLab's
renderers make of them is what a person sees, and no cell runs a third time.
"""

from __future__ import annotations

import io
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
from PIL import Image
from skimage import color, filters

from tests.support.lab import DEADLINE, SETTLED, Lab

# In CIELAB's units, after a blur of one pixel. 2 is what a trained eye just sees; edges of letters fall below 10.
VISIBLE = 10.0

OPEN = """
async ([path, kernel]) => {
    const open = async () => {
        const kept = kernel ? {path, kernel: {id: kernel}} : {path};
        const panel = await jupyterapp.commands.execute('docmanager:open', kept);
        await panel.context.ready;
        await panel.revealed;
        await panel.sessionContext.ready;
    };
    const late = new Promise((_, fail) => setTimeout(() => {
        const asked = [...document.querySelectorAll('.jp-Dialog')].map(one => one.innerText);
        fail(new Error(`${path} is not open yet. The page asks: ${JSON.stringify(asked)}`));
    }, DEADLINE));
    await Promise.race([open(), late]);
}
""".replace("DEADLINE", str(int(DEADLINE * 1000)))
# Draws every output anew, as one that the user trusts.
TRUST = """
() => {
    for (const trusted of [false, true]) {
        for (const cell of jupyterapp.shell.currentWidget.content.model.cells) { cell.trusted = trusted; }
    }
}
"""
# ipywidgets looks for the notebook's widgets after it has said, in the place of each, that it found none; now and then
# it does not look again, and the notebook has to be opened anew.
ATTEMPTS = 4
WAITING = ("Loading widget...", "Error displaying widget: model not found")
CLOSE = """
async own => {
    const panel = jupyterapp.shell.currentWidget;
    if (own) { await panel.sessionContext.shutdown(); }
    panel.context.model.dirty = false;
    panel.close();
}
"""
PLAIN = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
ELSEWHERE = re.compile(r"https?://(?!127\.0\.0\.1[:/])")
KERNEL = "jupyterapp.shell.currentWidget.sessionContext.session.kernel.id"


class Gallery:
    """One page of JupyterLab in which one notebook after the other is hung."""

    def __init__(self, lab: Lab, page: Any) -> None:
        self._lab, self._page = lab, page
        self._kernel = page.evaluate(KERNEL)  # a plain one, in which nothing runs
        self._opened_before = 0

    def draw(self, book: Any, cells: Collection[int]) -> dict[int, Image.Image]:
        """Number of a cell, from 1 -> a picture of its outputs."""
        for left in reversed(range(ATTEMPTS)):
            with self._opened(book) as panel:
                if self._settle(panel) or not left:
                    areas = panel.locator(".jp-Cell")
                    return {one: self._rest(areas.nth(one - 1).locator(".jp-Cell-outputWrapper")) for one in cells}
        raise AssertionError("not reached: the last attempt returns")

    @contextmanager
    def _opened(self, book: Any) -> Iterator[Any]:
        self._opened_before += 1
        path = self._lab.folder / f"drawn{self._opened_before}.ipynb"
        book.metadata.kernelspec = PLAIN  # without one JupyterLab asks, and waits, which kernel is meant
        nbformat.write(book, path)
        widgets = "widgets" in book.metadata  # ipywidgets finds a notebook's only beside a kernel of the notebook's own
        self._page.evaluate(OPEN, [path.name, None if widgets else self._kernel])
        try:
            yield self._page.locator(".jp-NotebookPanel:not(.lm-mod-hidden)")
        finally:
            self._page.evaluate(CLOSE, widgets)

    def _settle(self, panel: Any) -> bool:
        """Whether everything is there."""
        for _ in range(15):
            self._page.evaluate(TRUST)
            self._page.evaluate(SETTLED)
            shown = panel.locator(".jp-OutputArea").all_inner_texts()
            if not any(text in one for one in shown for text in WAITING):
                return True
            self._page.wait_for_timeout(200)
        return False

    def _rest(self, area: Any) -> Image.Image:
        """Until two pictures are the same: renderers are loaded late. What moves for ever is taken as it is then."""
        before = b""
        for _ in range(12):
            area.scroll_into_view_if_needed()
            now = area.screenshot(animations="disabled", caret="hide")
            if now == before:
                break
            before = now
            self._page.wait_for_timeout(250)
        return Image.open(io.BytesIO(before)).convert("RGB")


@contextmanager
def gallery(lab: Lab) -> Iterator[Gallery]:
    with lab.notebook("python3") as notebook:
        # The same pictures with and without an internet.
        notebook.page.route(ELSEWHERE, lambda route: route.abort("internetdisconnected"))
        yield Gallery(lab, notebook.page)


def distance(one: Image.Image, other: Image.Image) -> float:
    """The share of the larger picture, 0 to 1, in which a person sees a difference."""
    size = max(one.width, other.width), max(one.height, other.height)
    seen = [filters.gaussian(color.rgb2lab(_on(picture, size)), sigma=1, channel_axis=-1) for picture in (one, other)]
    return float(np.mean(color.deltaE_cie76(*seen) > VISIBLE))


def _on(picture: Image.Image, size: tuple[int, int]) -> np.ndarray[Any, Any]:
    paper = Image.new("RGB", size, "white")
    paper.paste(picture)
    return np.asarray(paper)


def save_pair(folder: Path, name: str, one: Image.Image, other: Image.Image) -> None:
    """Side by side, for a person to look at."""
    pair = Image.new("RGB", (one.width + other.width + 8, max(one.height, other.height)), "black")
    pair.paste(one)
    pair.paste(other, (one.width + 8, 0))
    folder.mkdir(parents=True, exist_ok=True)
    pair.save(folder / f"{name}.png")
