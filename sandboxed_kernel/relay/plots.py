"""Pure: a plotly figure -> the same figure without what fetches or acts, told by the fields that do.

The data of a figure (numbers, base64 columns, labels, titles, hover texts) is not searched for anything: plotly.js
draws it. What it fetches are maps (tiles, outlines of countries), the ``source`` of images, and what its configuration
names (https://plotly.com/javascript/reference/). What it reads as markup are texts with tags (``<a href>`` of a few
protocols, ``<span style>``; src/lib/svg_text_utils.js of plotly.js) and, where MathJax is there, with dollar signs.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from sandboxed_kernel.relay import markup
from sandboxed_kernel.relay.messages import Unusable

MAX_DEPTH = 100  # of JSON that is looked into; plotly's has about ten


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Traces that are drawn without a server. Maps are not: their tiles and outlines come from one that the figure chooses.
_TRACES = _words(
    "bar barpolar box candlestick carpet cone contour contourcarpet funnel funnelarea heatmap heatmapgl histogram"
    " histogram2d histogram2dcontour icicle image indicator isosurface mesh3d ohlc parcats parcoords pie pointcloud"
    " quiver sankey scatter scatter3d scattercarpet scattergl scatterpolar scatterpolargl scattersmith scatterternary"
    " splom streamtube sunburst surface table treemap violin volume waterfall"
)
_MAPS = re.compile(r"(?:scatter|density|choropleth)(?:geo|map|mapbox)|choropleth")
_MAP_PLACES = re.compile(r"(?:layout\.)?(?:geo|map|mapbox)\d*(?:[.\[].*)?", re.DOTALL)
# Left out: topojsonURL, plotlyServerURL, mapboxAccessToken, locales, and whatever comes with a later plotly.js.
_CONFIGURATION = _words(
    "autosizable displayModeBar displaylogo doubleClick doubleClickDelay editSelection editable edits fillFrame"
    " frameMargins locale modeBarButtons modeBarButtonsToAdd modeBarButtonsToRemove plotGlPixelRatio queueLength"
    " responsive scrollZoom showAxisDragHandles showAxisRangeEntryBoxes showTips staticPlot toImageButtonOptions"
    " typesetMath watermark"
)
_STEPS = re.compile(r"[.\[\]]+")  # of "images[0].source", as buttons and sliders write it
_IMAGE = re.compile(r"data:image/(?:png|jpe?g|gif|webp|bmp);base64,[A-Za-z0-9+/=\s]*")
_TAG = re.compile(r"<[^<>]*>")
_ACTING_LINK = re.compile(r"(?:script|vbs|data|blob|file):")
_TARGET = re.compile(r"\btarget(?=\s*=)", re.IGNORECASE)


def clean_figure(figure: Any, removed: list[str]) -> Any:
    """A copy of ``figure`` (plotly's JSON, parsed). Appends to ``removed`` in words what was taken out. Raises
    Unusable for one that is nested too deeply.
    """
    if not isinstance(figure, dict):
        return None
    cleaned = {}
    for name, value in figure.items():
        if name == "config":
            cleaned[name] = _configuration(value, removed)
        elif name == "data":
            cleaned[name] = _traces(value, removed, 1)
        else:
            cleaned[name] = _value(value, removed, 1)
    if removed and figure.get("data") and not cleaned.get("data"):
        return None
    if removed:
        _say(cleaned, removed)
    return cleaned


def _say(figure: dict[str, Any], removed: list[str]) -> None:
    """In the figure: where it is drawn, no other form of the output is shown."""
    layout = figure.get("layout")
    figure["layout"] = layout = layout if isinstance(layout, dict) else {}
    others = layout.get("annotations")
    place = {"xref": "paper", "yref": "paper", "x": 0, "y": 1, "yanchor": "bottom", "showarrow": False}
    text = f"Removed by the sandbox: {', '.join(sorted(set(removed)))}"
    layout["annotations"] = [*(others if isinstance(others, list) else []), {**place, "text": text}]


def _configuration(value: Any, removed: list[str]) -> Any:
    named = value if isinstance(value, dict) else {}
    return {name: _value(item, removed, 1) for name, item in named.items() if name in _CONFIGURATION}


def _traces(value: Any, removed: list[str], depth: int) -> Any:
    """``data`` of a figure or a frame; in a template it is a table by trace type instead, of which nothing is drawn."""
    if not isinstance(value, list):
        return _value(value, removed, depth)
    kept = []
    for trace in value:
        kind = trace.get("type", "scatter") if isinstance(trace, dict) else None
        if isinstance(kind, str) and kind in _TRACES:
            kept.append(_value(trace, removed, depth + 1))
        elif trace is not None:
            is_map = isinstance(kind, str) and _MAPS.fullmatch(kind)
            removed.append("maps" if is_map else "plots of an unknown kind")
    return kept


def _value(value: Any, removed: list[str], depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise Unusable("a plot that is nested too deeply")
    if isinstance(value, str):
        return _text(value, removed)
    if isinstance(value, list):
        return [_value(item, removed, depth + 1) for item in value]
    if not isinstance(value, dict):
        return value
    cleaned = {}
    for name, item in value.items():
        if name == "template":
            cleaned[name] = _value(item, [], depth + 1)  # of what is taken out there nothing would be drawn
        elif name == "data" and isinstance(item, list) and all(isinstance(one, dict) for one in item):  # of a frame
            cleaned[name] = _traces(item, removed, depth + 1)
        elif name in ("args", "args2") and isinstance(item, list):
            cleaned[name] = _arguments(item, removed, depth + 1)
        elif _is_allowed(name, item, removed):
            cleaned[name] = _value(item, removed, depth + 1)
    return cleaned


def _arguments(value: list[Any], removed: list[str], depth: int) -> list[Any]:
    """Of a button or a step of a slider: {"images[0].source": ...}, or the two of it one after the other."""
    pairs = pairwise(value)
    if not all(_is_allowed(name, item, removed) for name, item in pairs if isinstance(name, str)):
        return []
    return [_value(item, removed, depth + 1) for item in value]


def _is_allowed(name: str, value: Any, removed: list[str]) -> bool:
    """Whether the field ``name`` (or the path to it) may have ``value``. Raises Unusable."""
    if _MAP_PLACES.fullmatch(name) and not isinstance(value, int | float | str):
        removed.append("maps")
        return False
    last = next((step for step in reversed(_STEPS.split(name)) if step and not step.lstrip("-").isdigit()), name)
    if last == "source" and not all(_IMAGE.fullmatch(text) for text in _texts(value)):
        removed.append("remote images")
        return False
    if last == "type" and any(_MAPS.fullmatch(text) for text in _texts(value)):
        removed.append("maps")
        return False
    if last == "geojson" and next(_texts(value), None) is not None and not isinstance(value, dict):
        removed.append("maps")
        return False
    return True


def _texts(value: Any) -> Iterator[str]:
    """The texts in lists, however nested; what is under a name is that name's."""
    todo = [value]
    while todo:
        item = todo.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, list):
            todo.extend(item)


def _text(value: str, removed: list[str]) -> str:
    if "<" in value:
        value = _TAG.sub(lambda match: _tag(match[0], removed), value)
    return markup.clean_tex(value) if "$" in value else value


def _tag(tag: str, removed: list[str]) -> str:
    """plotly.js sets a tag's style as it is, after it has read the entities in it; a link opens where it says."""
    meant = html.unescape(tag).lower()
    if "style" in meant and ("\\" in meant or not markup.calls_only_harmless(meant)):
        removed.append("styles that could fetch")
        return re.split(r"[\s>]", tag, maxsplit=1)[0] + ">"
    if _ACTING_LINK.search("".join(meant.split())):  # plotly.js drops these too
        removed.append("links that run code")
        return re.split(r"[\s>]", tag, maxsplit=1)[0] + ">"
    # Without a target a link opens a tab of its own; with one, it could replace Jupyter's page.
    return _TARGET.sub("data-target", tag)
