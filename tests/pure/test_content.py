"""Which outputs, replies and widgets reach a browser, and what is said in the place of what does not."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandboxed_kernel.relay import markup, plots, widgets
from sandboxed_kernel.relay.content import Cleaner
from sandboxed_kernel.relay.markup import ALLOW_LINE
from sandboxed_kernel.relay.messages import Json, Unusable
from tests.support.effort import examples

ATTACK = "<img src=x onerror=alert(1)>"
CONTROLS = "@jupyter-widgets/controls"
DISPLAYS = ("display_data", "update_display_data", "execute_result", "inspect_reply")
PLOTLY = "application/vnd.plotly.v1+json"
VIEW = "application/vnd.jupyter.widget-view+json"


def cleaned(msg_type: str, content: Json, cleaner: Cleaner | None = None) -> Json:
    content = copy.deepcopy(content)
    (cleaner or Cleaner("strip")).clean(msg_type, content)
    return content


def bundle(**data: Any) -> Json:
    """``text_html=...`` for ``text/html``."""
    return {"data": {name.replace("_", "/"): value for name, value in data.items()}, "metadata": {}}


@pytest.mark.parametrize("msg_type", DISPLAYS)
def test_an_output_loses_what_acts_and_says_so(msg_type: str) -> None:
    output = bundle(text_html=f"<b>bold</b>{ATTACK}", text_plain="what it is", application_javascript="alert(1)")
    data = cleaned(msg_type, output)["data"]
    assert "<b>bold</b>" in data["text/html"]
    assert "onerror" not in data["text/html"]
    assert "application/javascript" not in data
    assert data["text/plain"] == "what it is"
    assert "Removed by the sandbox: a script, handlers" in data["text/html"]
    assert ALLOW_LINE.replace('"', "&quot;") in data["text/html"]


def test_where_the_policy_allows_it_nothing_is_changed() -> None:
    output = bundle(text_html=ATTACK, application_javascript="alert(1)")
    assert cleaned("display_data", output, Cleaner("allow")) == output


@pytest.mark.parametrize(
    "data",
    [
        {"text/plain": "42"},
        {"text/plain": "<Figure>", "image/png": "iVBORw0KGgo=\n"},
        {"text/latex": "$\\frac{1}{2}$", "text/plain": "1/2"},
        {"application/json": {"url": "https://example.org/<b>"}, "text/plain": "x"},
        {PLOTLY: {"data": [{"type": "scatter", "x": [1, 2]}], "layout": {"title": {"text": "a/b"}}}},
        {VIEW: {"model_id": "m", "version_major": 2}},
    ],
)
def test_what_does_not_act_is_left_alone(data: Json) -> None:
    metadata = {"image/png": {"width": 3}} if "image/png" in data else {}
    content = {"data": data, "metadata": metadata, "transient": {"display_id": "d"}}
    assert cleaned("display_data", content) == content


PDF = "application/pdf"
GEOJSON = "application/geo+json"


def test_a_pdf_can_be_saved_and_is_not_shown() -> None:
    for plain, before in (({}, ""), ({"text/plain": "a <PDF>"}, "<pre>a &lt;PDF&gt;</pre>"), ({"text/html": "x"}, "x")):
        data = cleaned("display_data", {"data": {PDF: "JVBERi0xLjQK\nAA==\n", **plain}, "metadata": {}})["data"]
        link = '<p><a download="output.pdf" href="data:application/pdf;base64,JVBERi0xLjQKAA==">output.pdf</a></p>'
        assert data["text/html"].startswith(f"{before}{link}<div")
        assert "Removed by the sandbox: a PDF document" in data["text/html"]
        assert PDF not in data


@pytest.mark.parametrize(
    "value",
    ["PGh0bWw+", 'JVBERi0x" onclick="alert(1)', "JVBERi0x<b>", "http://e/JVBERi0", ["JVBERi0x"], {"a": 1}, None, 7,
     "JVBERi0" + "A" * (4 << 20)],
    ids=lambda value: str(value)[:20],
)  # fmt: skip
def test_what_is_no_pdf_is_not_even_a_link(value: object) -> None:
    data = cleaned("display_data", {"data": {PDF: value, "text/plain": "x"}, "metadata": {}})["data"]
    assert "<a" not in data["text/html"]
    assert PDF not in data


def test_geojson_is_data_and_brings_no_map_of_its_own() -> None:
    """JupyterLab's extension shows properties as HTML, and fetches from where the metadata says."""
    point = {
        "type": "Feature",
        "geometry": {"type": "Point", "coordinates": [10.7, 59.9]},
        "properties": {"a": "b > c"},
    }
    told = {"url_template": "//e/{z}", "layer_options": {"attribution": ATTACK}}
    content = {"data": {GEOJSON: point, "text/plain": "x"}, "metadata": {GEOJSON: told, "text/plain": {"a": 1}}}
    assert cleaned("display_data", content) == {"data": content["data"], "metadata": {"text/plain": {"a": 1}}}
    point["properties"] = {f"k{ATTACK}": [ATTACK, {"deep": ATTACK}]}
    shown = cleaned("display_data", content)["data"][GEOJSON]
    assert not re.search(r"<[^\u200b]", json.dumps(shown, ensure_ascii=False))
    assert json.dumps(shown, ensure_ascii=False).replace("\u200b", "") == json.dumps(point)
    deep: Any = ATTACK
    for _ in range(200):
        deep = [deep]
    assert "<" not in json.dumps(cleaned("display_data", {"data": {GEOJSON: {"a": deep}}})["data"][GEOJSON])
    for odd in (f"{{{ATTACK}}}", [ATTACK], 1):
        assert GEOJSON not in cleaned("display_data", {"data": {GEOJSON: odd, "text/plain": "x"}})["data"]


def test_an_image_is_data_and_never_an_address() -> None:
    assert "image/png" not in cleaned("display_data", bundle(image_png="http://e/?secret"))["data"]


def test_the_lines_of_a_text_are_one_text() -> None:
    data = cleaned("display_data", bundle(text_html=["<scr", "ipt>alert(1)</script>x"]))["data"]
    assert data["text/html"].startswith("x")


@pytest.mark.parametrize(
    "plot",
    [
        {"layout": {"images": [{"source": "http://e"}]}},
        {"layout": {"images": [{"source": "/\\e"}]}},
        {"layout": {"images": [{"source": "http:/\n/e"}]}},
        {"layout": {"annotations": [{"text": "<a href='javascript:e'>x</a>"}]}},
        {"data": [{"type": "scattermapbox", "lat": [1]}]},
        {"data": [{"type": "choropleth", "lat": [1]}]},
    ],
)
def test_a_plot_fetches_nothing(plot: Json) -> None:
    data = cleaned("display_data", {"data": {PLOTLY: plot}, "metadata": {}})["data"]
    assert not [
        word
        for word in ("/\\e", "//e", "/\\n/e", "javascript", "map", "choro")
        if word in json.dumps(data.get(PLOTLY, "")).replace("maps", "")
    ]
    assert ALLOW_LINE.replace('"', "&quot;") in data["text/html"]


def test_a_map_in_a_template_is_removed_and_not_missed() -> None:
    """As in the default template of plotly.py: every plot has it."""
    template = {"data": {"scatter": [{"type": "scatter"}], "scattermap": [{"type": "scattermap", "marker": {}}]}}
    plot = {"data": [{"type": "scatter", "x": [1]}], "layout": {"template": template}}
    data = cleaned("display_data", {"data": {PLOTLY: plot, "text/plain": "Figure"}, "metadata": {}})["data"]
    template["data"]["scattermap"] = [{"marker": {}}]
    assert data == {PLOTLY: plot, "text/plain": "Figure"}


def test_a_plot_without_a_bottom_is_refused() -> None:
    deep: Any = []
    for _ in range(plots.MAX_DEPTH + 1):
        deep = [deep]
    with pytest.raises(Unusable):
        cleaned("display_data", {"data": {PLOTLY: {"layout": deep}}})


def test_replies_are_cleaned_too() -> None:
    page = {"source": "page", "start": 0, "data": {"text/html": ATTACK, "text/plain": "help"}}
    expression = {"status": "ok", "data": {"text/html": ATTACK}, "metadata": {}}
    content = {"status": "ok", "payload": [page, {"source": "set_next_input"}], "user_expressions": {"e": expression}}
    assert "onerror" not in json.dumps(cleaned("execute_reply", content))
    rich = {"type": "response", "body": {"data": {"text/html": ATTACK}, "metadata": {}}}
    assert "onerror" not in json.dumps(cleaned("debug_reply", rich))
    stack = {"type": "response", "body": {"stackFrames": [{"id": 1}]}}
    assert cleaned("debug_reply", stack) == stack


def test_what_is_said_of_a_mime_type_does_not_act_either() -> None:
    data = cleaned("display_data", {"data": {f"x{ATTACK}\u202e": "y", "text/html": "x", "text/markdown": "y"}})["data"]
    assert "<img" not in json.dumps(data)
    assert "\u202e" not in data["text/html"]


def test_a_list_is_a_text_only_where_the_type_is_text() -> None:
    output = {"data": {"application/json": ["a", "b"]}, "metadata": {}}
    assert cleaned("display_data", output) == output


def test_what_is_too_large_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "<td>" * (1 << 20) + "x"
    data = cleaned("display_data", bundle(text_html=text, text_plain="a table"))["data"]
    assert data["text/plain"] == "a table"
    assert "<pre>a table</pre>" in data["text/html"]
    assert "text/html over 4 MiB" in data["text/html"]


def test_a_picture_is_still_seen_where_something_else_is_removed() -> None:
    data = cleaned("display_data", bundle(image_png="AAAA", application_javascript="x", text_plain="<p>"))["data"]
    assert data["image/png"] == "AAAA"
    assert '<img src="data:image/png;base64,AAAA">' in data["text/html"]


# --- widgets ---------------------------------------------------------------------------------------------------------


def widget(kind: str, comm: str = "w", module: str = CONTROLS, **state: Any) -> Json:
    names = {
        "_model_module": module,
        "_model_name": f"{kind}Model",
        "_view_module": module,
        "_view_name": f"{kind}View",
    }
    return {"comm_id": comm, "target_name": "jupyter.widget", "data": {"state": {**names, **state}, "buffer_paths": []}}


def update(comm: str = "w", **state: Any) -> Json:
    return {"comm_id": comm, "data": {"method": "update", "state": state, "buffer_paths": []}}


def opened(kind: str, **state: Any) -> Cleaner:
    cleaner = Cleaner("strip")
    cleaner.clean("comm_open", widget(kind, **state))
    return cleaner


def test_the_html_of_a_widget_is_cleaned_when_it_opens_and_when_it_changes() -> None:
    state = cleaned("comm_open", widget("HTML", value=f"<b>x</b>{ATTACK}"))["data"]["state"]
    assert state["value"].startswith("<b>x</b><img><div")
    assert ALLOW_LINE.replace('"', "&quot;") in state["value"]
    changed = cleaned("comm_msg", update(value=ATTACK), opened("HTML"))["data"]["state"]
    assert changed["value"].startswith("<img><div")


def test_a_list_is_no_way_around() -> None:
    """A page makes the text "<img ...>" of ["<img ...>"]."""
    value = cleaned("comm_msg", update(value=[ATTACK]), opened("HTML"))["data"]["state"]["value"]
    assert value == markup.removed_html(["text/html"])
    style = widget("x", background=["url(//e)"])
    style["data"]["state"]["_model_name"] = "HTMLStyleModel"
    assert "background" not in cleaned("comm_open", style)["data"]["state"]


def test_the_text_of_a_widget_is_left_alone() -> None:
    opening = widget("Text", value="a < b & c", description="name")
    assert cleaned("comm_open", opening) == opening


def test_what_says_nothing_of_a_widget_stays_and_what_could_act_goes() -> None:
    opening = widget("Text", _dom_classes=[], description_allow_html=False)
    assert cleaned("comm_open", opening) == opening
    acting = widget("Text", _dom_classes=["jp-Dialog"], description_allow_html=True, _css="*{}", _esm="x")
    assert cleaned("comm_open", acting) == widget("Text", _dom_classes=[])
    of_interact = widget("VBox", _dom_classes=["jp-Dialog", "widget-interact", "lm-Menu", "a widget-interact"])
    assert cleaned("comm_open", of_interact) == widget("VBox", _dom_classes=["widget-interact"])
    for odd in ("widget-interact", {"widget-interact": 1}, [["jp-Dialog"]], 1, True):
        assert cleaned("comm_open", widget("VBox", _dom_classes=odd)) == widget("VBox", _dom_classes=[])
    later = {"comm_id": "w", "data": {"method": "update", "state": {"_dom_classes": ["jp-Dialog"]}}}
    assert cleaned("comm_msg", later)["data"]["state"] == {"_dom_classes": []}


def test_a_style_may_be_none_at_all() -> None:
    style = widget("SliderStyle", description_width="", handle_color=None)
    assert cleaned("comm_open", style) == style


def test_a_comm_that_names_no_module_is_left_alone() -> None:
    content = {"comm_id": "c", "target_name": "t", "target_module": None, "data": {"x": 1}}
    assert cleaned("comm_open", content) == content


def test_a_widget_cannot_become_another() -> None:
    for state in ({"_view_name": "HTMLView"}, {"_model_module": "evil"}, {"_model_name": "HTMLModel"}):
        with pytest.raises(Unusable):
            cleaned("comm_msg", update(value=ATTACK, **state), opened("Label"))


@pytest.mark.parametrize("module", ["anywidget", "jupyter-leaflet", None, ["@jupyter-widgets/base"]])
def test_a_widget_with_code_of_its_own_is_refused_and_its_view_says_so(module: Any) -> None:
    cleaner = Cleaner("strip")
    with pytest.raises(Unusable):
        cleaner.clean("comm_open", widget("Any", module=module, _esm="export default {}"))
    data = cleaned("display_data", {"data": {VIEW: {"model_id": "w"}, "text/plain": "Map()"}}, cleaner)["data"]
    assert VIEW not in data
    assert data["text/plain"] == "Map()"
    assert "<pre>Map()</pre>" in data["text/html"]
    assert "Removed by the sandbox: an interactive widget" in data["text/html"]
    with pytest.raises(Unusable):
        cleaner.clean("comm_msg", update(x=1))


def test_media_come_as_data_and_never_by_an_address() -> None:
    cleaner = Cleaner("strip")
    with pytest.raises(Unusable):
        cleaner.clean("comm_open", widget("Image", format="url"))
    assert "Removed" in cleaned("display_data", {"data": {VIEW: {"model_id": "w"}}}, cleaner)["data"]["text/html"]
    with pytest.raises(Unusable):
        cleaned("comm_msg", update(format="url"), opened("Video", format="mp4"))


@pytest.mark.parametrize(
    ("name", "kind", "value", "stays"),
    [
        ("background", "LabelStyleModel", "url(//e)", False),
        ("background", "LabelStyleModel", "image-set('//e')", False),
        ("button_color", "ButtonStyleModel", "lightgreen", True),
        ("margin", "LayoutModel", "-900px", False),
        ("width", "LayoutModel", "calc(50% - 3px)", True),
        ("grid_template_areas", "LayoutModel", '"top top" "left right"', True),
        ("grid_template_columns", "LayoutModel", "repeat(2, minmax(0, 1fr))", True),
    ],
)
def test_styles_neither_fetch_nor_cover(name: str, kind: str, value: str, stays: bool) -> None:
    opening = widget("x", **{name: value})
    opening["data"]["state"]["_model_name"] = kind
    assert (name in cleaned("comm_open", opening)["data"]["state"]) == stays


@pytest.mark.parametrize("where", ["IPY_MODEL_w", ["x", "IPY_MODEL_w"], [{"a": {"b": ["IPY_MODEL_w"]}}]])
def test_a_widget_that_is_part_of_itself_is_refused(where: Any) -> None:
    """JupyterLab would wait for it before it makes it, and handle no further message of the kernel."""
    cleaner = Cleaner("strip")
    cleaner.clean("comm_open", widget("HBox", comm="other", children=["IPY_MODEL_another"]))
    with pytest.raises(Unusable):
        cleaner.clean("comm_open", widget("HBox", children=where))


def test_the_outputs_of_an_output_widget_are_outputs() -> None:
    outputs = [{"output_type": "display_data", "data": {"text/html": ATTACK}}, {"output_type": "stream", "text": "x"}]
    state = cleaned("comm_msg", update(outputs=outputs), opened("Output"))["data"]["state"]
    assert "onerror" not in json.dumps(state)


def test_the_states_that_a_new_page_asks_for_are_as_clean() -> None:
    cleaner = opened("HTML")
    with pytest.raises(Unusable):
        cleaner.clean("comm_open", widget("Any", comm="bad", module="anywidget"))
    described = {}
    for comm, kind, module in (("w", "HTML", CONTROLS), ("bad", "Any", "anywidget"), ("liar", "Label", CONTROLS)):
        state = widget(kind, comm, module, value=ATTACK)["data"]["state"]
        described[comm] = {"model_module": module, "model_name": f"{kind}Model", "state": state}
    described["liar"]["model_name"] = "HTMLModel"
    message = {"comm_id": "of the page", "data": {"method": "update_states", "states": described}}
    states = cleaned("comm_msg", message, cleaner)["data"]["states"]
    assert list(states) == ["w"]
    assert states["w"]["state"]["value"].startswith("<img><div")


@pytest.mark.parametrize("paths", [[["__proto__", "x"]], [["constructor"]], ["prototype"]])
def test_buffers_have_their_place_in_the_state(paths: list[Any]) -> None:
    message = update()
    message["data"]["buffer_paths"] = paths
    with pytest.raises(Unusable):
        cleaned("comm_msg", message)


def test_no_module_is_loaded_for_a_comm() -> None:
    content = {"comm_id": "c", "target_name": "t", "target_module": "//e", "data": {"x": 1}}
    assert cleaned("comm_open", content) == {"comm_id": "c", "target_name": "t", "data": {"x": 1}}


def test_widgets_that_are_closed_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(widgets, "MAX_WIDGETS", 2)
    cleaner = Cleaner("strip")
    for comm in ("a", "b"):
        cleaner.clean("comm_open", widget("Label", comm=comm))
    with pytest.raises(Unusable):
        cleaner.clean("comm_open", widget("Label", comm="c"))
    cleaner.clean("comm_close", {"comm_id": "a", "data": {}})
    cleaner.clean("comm_open", widget("Label", comm="c"))


# --- anything at all -------------------------------------------------------------------------------------------------

KEYS = st.sampled_from(
    ["data", "metadata", "state", "states", "text/html", "text/markdown", "image/svg+xml", "image/png", VIEW, PLOTLY,
     "comm_id", "target_name", "payload", "user_expressions", "body", "value", "outputs", "_model_module",
     "_model_name",
     "_view_name", "buffer_paths", "description", "format", "type", "model_id", "background", "x"]
)  # fmt: skip
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.text(max_size=8),
    st.sampled_from([ATTACK, "jupyter.widget", CONTROLS, "HTMLModel", "HTMLView", "LayoutModel", "url", "w",
    "scattermap"]),
)  # fmt: skip
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=6))
CONTENTS = st.dictionaries(KEYS, VALUES, max_size=6)
TYPES = st.sampled_from([*DISPLAYS, "execute_reply", "debug_reply", "comm_open", "comm_msg", "comm_close"])


@settings(max_examples=examples(60))
@given(st.lists(st.tuples(TYPES, CONTENTS), max_size=3))
def test_no_content_raises_anything_but_unusable_or_lets_markup_through(messages: list[tuple[str, Json]]) -> None:
    cleaner = Cleaner("strip")
    for msg_type, content in messages:
        try:
            cleaner.clean(msg_type, content)
        except Unusable:
            continue
        data = content.get("data")
        if msg_type in DISPLAYS and isinstance(data, dict):
            assert not [
                mime for mime in ("text/html", "text/markdown", "image/svg+xml") if ATTACK in str(data.get(mime))
            ]
