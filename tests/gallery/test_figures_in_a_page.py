"""No figure of plotly fetches or acts once it has been through the relay: seen in Chromium, drawn by plotly.js.

Which fields there are is plotly.js's own word: in every trace, in the layout and in the configuration each field that
takes a text has a hostile one, so a field that fetches and that nobody here has heard of is seen.
"""

from __future__ import annotations

import copy
import itertools
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import plotly
import pytest

from sandboxed_kernel.relay import plots
from tests.support.effort import PROFILE
from tests.support.lab import SETTLED, Lab

HOME, AWAY = "http://figures.test/", "http://elsewhere.test/x"
HOSTILE = (
    AWAY,
    "//elsewhere.test/x",
    "x.png",
    f"url({AWAY})",
    f"<span style='fill:url({AWAY}); background:url({AWAY})'>x</span>",
    f"<span style=\"background-image:u&#114;l('{AWAY}')\">x</span>",
    "<a href='javascript:acted()'>x</a><a href='java\tscript:acted()' target='_top'>x</a>",
    f"<img src='{AWAY}' onerror='acted()'><svg onload='acted()'><style>@import '{AWAY}'</style>",
    f'"><image href="{AWAY}" onload="acted()"/><foreignObject><iframe src="{AWAY}"></iframe></foreignObject>',
)
RANDOM = 60  # figures beside those in which one text is in all fields

# What plotly.js says of itself: the fields of each trace and of the layout, and the names of the configuration's.
FIELDS = """
() => {
    const told = attributes => {
        const made = {};
        for (const [name, one] of Object.entries(attributes || {})) {
            if (!one || typeof one !== 'object' || name.startsWith('_') || name === 'impliedEdits') { continue; }
            if (one.items && one.role === 'object') {
                made[name] = Object.values(one.items).map(told);
            } else { made[name] = one.role === 'object' ? told(one) : one.valType || ''; }
        }
        return made;
    };
    const schema = Plotly.PlotSchema.get();
    const traces = Object.entries(schema.traces).map(([name, trace]) => [name, told(trace.attributes)]);
    return [Object.fromEntries(traces), told(schema.layout.layoutAttributes), Object.keys(schema.config)];
}
"""
# Draws one figure in the place of the one before, and uses what is to be clicked in it. What plotly.js makes of a wrong
# figure is its own affair.
DRAW = """
async figure => {
    const place = document.createElement('div');
    document.getElementById('place').replaceChildren(place);
    let failed = '';
    const work = (async () => {
        await Plotly.newPlot(place, figure.data, figure.layout, figure.config);
        await Plotly.addFrames(place, figure.frames);
        await Plotly.animate(place, null, {frame: {duration: 0}, transition: {duration: 0}});
    })().catch(error => { failed = String(error) });
    await Promise.race([work, new Promise(done => setTimeout(done, 1000))]);
    for (const one of place.querySelectorAll('.updatemenu-button, .updatemenu-header, .slider-rail-touch-rect')) {
        one.dispatchEvent(new MouseEvent('click', {bubbles: true}));
    }
    const links = [...place.querySelectorAll('a')].map(link => ['href', 'xlink:href', 'target'].map(
        name => link.getAttribute(name) || ''));
    return [links, failed];
}
"""
MARKER = "url => fetch(url).catch(() => null)"
FETCHING = ("plotlyServerURL", "topojsonURL", "mapboxAccessToken", "linkText")  # of a configuration
# Columns of texts; the others are of numbers, without which nothing is drawn.
TEXTS = {"customdata", "hovertemplate", "hovertext", "ids", "labels", "parents", "text", "textsrc"}


class Page:
    """One in which figures are drawn one after the other; ``asked`` is what it has asked for beside itself."""

    def __init__(self, page: Any) -> None:
        self._page = page
        self.asked: list[str] = []
        page.route("**/*", self._answer)
        page.goto(HOME)
        page.add_script_tag(path=Path(plotly.__file__).parent / "package_data/plotly.min.js")
        self.traces, self.layout, self.configuration = page.evaluate(FIELDS)

    def _answer(self, route: Any) -> None:
        if route.request.url == HOME:
            route.fulfill(
                content_type="text/html", body="<script>acted = () => { hasActed = true }</script><div id=place>"
            )
        else:
            self.asked.append(route.request.url)
            route.abort()

    def draw(self, figure: Any) -> tuple[list[list[str]], str]:
        """href, xlink:href and target of its links; what ended the drawing, if something did."""
        links, failed = self._page.evaluate(DRAW, figure)
        return links, failed

    def acted(self) -> list[str]:
        """What the figures have asked for since the last call, and whether a script of theirs has run."""
        self._page.evaluate(SETTLED)
        self._page.evaluate(MARKER, f"{HOME}marker")  # what was asked for before it is known now
        asked, self.asked[:] = [url for url in self.asked if url != f"{HOME}marker"], []
        return asked + ["a script"] * self._page.evaluate("window.hasActed === true")


@pytest.fixture(scope="module")
def page(lab: Lab) -> Iterator[Page]:
    context = lab.browser.new_context()
    tab = context.new_page()
    try:
        yield Page(tab)
    finally:
        tab.unroute_all(behavior="ignoreErrors")
        context.close()


Text = Callable[[str], Any]  # the type of a field -> what it gets


def filled(fields: Any, text: Text, name: str = "") -> Any:
    """``fields`` with a text in each that takes one."""
    if isinstance(fields, dict):
        made = {one: filled(field, text, one) for one, field in fields.items()}
        return {one: value for one, value in made.items() if value is not None}
    if isinstance(fields, list):
        return [made for field in fields if (made := filled(field, text)) is not None]
    if name == "uid":
        return None  # plotly.js makes a selector of it, which mostly ends the drawing
    if fields == "data_array":
        return [text(fields)] * 3 if name in TEXTS else [1, 2, 3]
    return text(fields)


def figure(page: Page, kind: str, text: Text) -> dict[str, Any]:
    trace = {**filled(page.traces[kind], text), "type": kind, "visible": True}
    layout = filled(page.layout, text)
    images = {"x": 0, "y": 1, "sizex": 1, "sizey": 1, "xref": "paper", "yref": "paper", "visible": True}
    layout["images"] = [{**image, **images} for image in layout["images"]]
    layout["annotations"] = [{**one, "x": 1, "y": 1, "visible": True} for one in layout["annotations"]]
    # Without what ends the drawing in a template when it is wrong.
    template = {"layout": {name: value for name, value in layout.items() if name not in ("selections", "shapes")}}
    steps = [["images[0].source", text("string")], ["title.text", text("string")], [{"map.style": text("string")}]]
    buttons = [{"method": "relayout", "label": text("string"), "args": args, "args2": args} for args in steps]
    layout |= {
        "updatemenus": [{"buttons": buttons}],
        "sliders": [{"steps": buttons}],
        "template": template,
    }
    layout |= {"width": 500, "height": 400, "autosize": False}
    frames = [{"name": "f", "data": [trace], "layout": {"images": layout["images"], "title": {"text": text("string")}}}]
    return {
        "data": [trace, {"type": "scatter", "y": [1, 2], "name": text("string")}],
        "layout": layout,
        "frames": frames,
        "config": filled(dict.fromkeys(page.configuration, "option") | dict.fromkeys(FETCHING, "string"), text),
    }


def drawn(page: Page, one: dict[str, Any]) -> bool:
    """Whether there was something to draw, and the drawing came to its end."""
    cleaned = plots.clean_figure(copy.deepcopy(one), [])
    if cleaned is None:
        return False
    links, failed = page.draw(cleaned)
    for href, xlink, target in links:
        assert not re.match(r"\s*(?!https?:|mailto:)\w+:", href + xlink), (href, xlink)
        assert target in ("", "_blank")
    return not failed


def only(*texts: str) -> Text:
    """One after the other, in what is free text; a choice of words, a colour or an axis that is wrong is left out by
    plotly.js.
    """
    turns = itertools.cycle(texts)
    return lambda kind: next(turns) if kind in ("string", "data_array") else None


@pytest.mark.parametrize("turn", range(len(HOSTILE) if PROFILE == "explore" else 2))
def test_no_field_of_any_trace_acts(page: Page, turn: int) -> None:
    """In each turn a field has another text than before; as many turns as texts with HYPOTHESIS_PROFILE=explore."""
    came_to_an_end = 0
    for number, kind in enumerate(page.traces, turn):
        first = number % len(HOSTILE)
        came_to_an_end += drawn(page, figure(page, kind, only(*HOSTILE[first:], *HOSTILE[:first])))
    assert page.acted() == []
    assert came_to_an_end > len(page.traces) // 2  # else little would be tried


def test_no_figure_of_hostile_texts_acts(page: Page) -> None:
    choose = random.Random(5)

    def some(_kind: str) -> str | None:
        return choose.choice(HOSTILE) if choose.random() < 0.4 else None

    for _ in range(RANDOM):
        drawn(page, figure(page, choose.choice(list(page.traces)), some))
    assert page.acted() == []


@pytest.mark.parametrize("number", [0, 2, 4])
def test_they_act_where_nothing_is_cleaned(page: Page, number: int) -> None:
    page.draw(figure(page, "image", only(HOSTILE[number])))
    assert page.acted()
