"""A plotly figure keeps its data, whatever it is, and nothing in it fetches or acts."""

from __future__ import annotations

import base64
import copy
import random
from typing import Any

import pytest

from sandboxed_kernel.relay import plots
from tests.support.effort import few

FIGURES = few(10_000)
HOSTILE = "http://e/?secret"
WORDS = [
    "//",
    "a // b",
    "5 < 6",
    "on load = 1",
    "<b>bold</b>",
    "script: yes",
    "日本語",
    "\U0001f600",
    "https://example.org",
    "<extra></extra>%{x:.2f}",
    "\\\\server",
    "%2F",
    "",
    "<a href='https://example.org'>x</a>",
    "&lt;script&gt;",
]


def column(choose: random.Random) -> Any:
    kind = choose.randrange(3)
    size = choose.randrange(1, 40)
    if kind == 0:
        return {"dtype": "f8", "bdata": base64.b64encode(choose.randbytes(8 * size)).decode()}
    if kind == 1:
        return [choose.choice([choose.random(), choose.randrange(-9, 9), None, True]) for _ in range(size)]
    letters = [*"/<>='", *(chr(choose.randrange(40, 0xD800)) for _ in range(40))]
    return ["".join(choose.choices(letters, k=9)) for _ in range(size)]


def figure(choose: random.Random) -> dict[str, Any]:
    kinds = ["scatter", "bar", "heatmap", "pie", "scattergl", "sunburst", "box", "table", "surface"]
    traces = []
    for _ in range(choose.randrange(1, 4)):
        trace = {"type": choose.choice(kinds), "x": column(choose), "y": column(choose), "customdata": column(choose)}
        traces.append({**trace, "name": choose.choice(WORDS), "hovertemplate": choose.choice(WORDS)})
    layout = {
        "title": {"text": choose.choice(WORDS)},
        "xaxis": {"title": {"text": choose.choice(WORDS)}, "type": "log"},
    }
    frames = [{"name": "f", "data": [{"type": "scatter", "y": column(choose)}]}]
    return {"data": traces, "layout": layout, "frames": frames, "config": {"responsive": True}}


def test_figures_of_all_kinds_are_left_as_they_are() -> None:
    choose = random.Random(1)
    for _ in range(FIGURES):
        one, removed = figure(choose), list[str]()
        assert plots.clean_figure(copy.deepcopy(one), removed) == one
        assert removed == []


LINK = f"<span style='fill:url({HOSTILE})'>x</span>"
HOSTILE_PARTS: list[dict[str, Any]] = [
    {"layout": {"images": [{"source": HOSTILE}]}},
    {"layout": {"images": [{"source": [HOSTILE]}]}},
    {"layout": {"template": {"layout": {"images": [{"source": HOSTILE}]}}}},
    {"layout": {"template": {"layout": {"imagedefaults": {"source": HOSTILE}}}}},
    {"layout": {"images[0].source": HOSTILE}},
    {"layout": {"map": {"style": HOSTILE}}},
    {"layout": {"mapbox2": {"layers": [{"sourcetype": "raster", "source": [HOSTILE]}]}}},
    {"layout": {"updatemenus": [{"buttons": [{"method": "relayout", "args": ["images[0].source", HOSTILE]}]}]}},
    {"layout": {"updatemenus": [{"buttons": [{"method": "relayout", "args2": [{"images[0].source": HOSTILE}]}]}]}},
    {"layout": {"updatemenus": [{"buttons": [{"method": "relayout", "args": ["map.style", {"x": HOSTILE}]}]}]}},
    {"layout": {"sliders": [{"steps": [{"method": "restyle", "args": [{"source": [HOSTILE]}]}]}]}},
    {"layout": {"title": {"text": LINK}}},
    {"layout": {"title": {"text": LINK.replace("u", "&#117;")}}},
    {"layout": {"title": {"text": LINK.replace("u", "\\75 ")}}},
    {"data": [{"type": "image", "source": HOSTILE}]},
    {"data": [{"type": "scattermapbox", "subplot": HOSTILE}]},
    {"data": [{"type": "choropleth", "geojson": HOSTILE}]},
    {"data": [{"type": ["scattermap"], "x": HOSTILE}]},
    {"data": [{"type": "of a later version", "x": HOSTILE}]},
    {"frames": [{"data": [{"type": "scattergeo", "geojson": HOSTILE}]}]},
    {"frames": [{"layout": {"images": [{"source": HOSTILE}]}}]},
    {"config": {"topojsonURL": HOSTILE}},
    {"config": {"plotlyServerURL": HOSTILE, "showLink": True}},
    {"layout": {"title": {"text": f"<a href='javascript:{HOSTILE}'>x</a>"}}},
    {"layout": {"title": {"text": f"<a href='java\tscript&#58;{HOSTILE}'>x</a>"}}},
]


@pytest.mark.parametrize("part", HOSTILE_PARTS, ids=range(len(HOSTILE_PARTS)))
def test_nothing_that_fetches_or_acts_is_left_in_any_figure(part: dict[str, Any]) -> None:
    choose = random.Random(2)
    for _ in range(FIGURES // len(HOSTILE_PARTS)):
        one = figure(choose)
        for name, value in part.items():
            one[name] = [*one[name], *value] if isinstance(value, list) else {**one[name], **value}
        assert HOSTILE not in str(plots.clean_figure(one, []))


def test_what_is_removed_is_said_in_the_figure() -> None:
    cleaned = plots.clean_figure({"data": [{"y": [1]}, {"type": "scattermap"}]}, [])
    assert cleaned["data"] == [{"y": [1]}]
    assert cleaned["layout"]["annotations"][0]["text"] == "Removed by the sandbox: maps"
    assert plots.clean_figure({"data": [{"type": "scattermap"}]}, []) is None


def test_a_link_opens_a_tab_of_its_own() -> None:
    cleaned = plots.clean_figure({"layout": {"title": "<a href='https://e' target='_top'>x</a>"}}, [])
    assert " target" not in cleaned["layout"]["title"]


def test_no_macro_of_mathjax_acts() -> None:
    cleaned = plots.clean_figure({"layout": {"title": "$\\href{javascript:x}{y}$"}}, [])
    assert "\\href" not in cleaned["layout"]["title"]
