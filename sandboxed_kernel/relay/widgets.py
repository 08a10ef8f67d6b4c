"""Pure: ipywidgets' messages -> what may reach a browser. A comm is how a widget's code and HTML would get there.

The protocol is "Jupyter widgets messaging protocol", version 2 (packages/schema/messages.md of ipywidgets 8). Comms of
other targets pass, but for what would load code: a page does nothing with them unless somebody has installed an
extension that does.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from sandboxed_kernel.records import Record
from sandboxed_kernel.relay import markup, schema
from sandboxed_kernel.relay.messages import MAX_ID, Json, Unusable

MAX_WIDGETS = 20_000  # that are open at a time; none is forgotten, so that what one is cannot change
MAX_TEXT = 1 << 20  # characters of a widget's HTML

_TARGET = "jupyter.widget"
# Those whose code is part of Jupyter. Others bring theirs along, or have it fetched.
# A tuple: what is looked for in it was chosen inside, and may be a list.
_MODULES = ("@jupyter-widgets/base", "@jupyter-widgets/controls", "@jupyter-widgets/output")
_MODULE_KEYS = ("_model_module", "_view_module")
_NAME_KEYS = ("_model_name", "_view_name")
_HTML_NAMES = frozenset({"HTMLModel", "HTMLView", "HTMLMathModel", "HTMLMathView"})
_DROPPED_KEYS = ("_esm", "_css", "description_allow_html")
# Classes of the page's own style sheets move and cover things, and a sheet of an output holds in that output only. This
# is what ``interact`` gives, and says nothing to any sheet but the user's own.
_CLASSES = frozenset({"widget-interact"})
_NOTHING: tuple[object, ...] = ([], False, None)
_TEX_KEYS = ("description", "placeholder", "value")  # typeset by MathJax
_STYLES = re.compile(r"\w*StyleModel|LayoutModel")
_GRID_AREAS = re.compile(r'[\w\s".-]{0,500}')
# Where a buffer is put in the state; such a name would put it into every object of the page (JavaScript).
_PROTOTYPES = frozenset({"__proto__", "prototype", "constructor"})


class _Kind(Record):
    """The classes of a widget: model and view. Both None: the page opened it, or it is none; strictest of all."""

    model: str | None = None
    view: str | None = None

    @property
    def is_html(self) -> bool:
        return self.model is None or bool({self.model, self.view} & _HTML_NAMES)

    @property
    def is_style(self) -> bool:
        return self.model is not None and _STYLES.fullmatch(self.model) is not None


class Widgets:
    """Remembers what each widget is. ``clean_bundle`` cleans an output's ``data`` in place (Output widgets)."""

    def __init__(self, clean_bundle: Callable[[Json], None]) -> None:
        self._clean_bundle = clean_bundle
        self._kinds: dict[str, _Kind] = {}
        self._refused: dict[str, None] = {}

    def is_refused(self, comm: str) -> bool:
        return comm in self._refused

    def clean(self, msg_type: str, content: Json) -> None:
        """Cleans the content of a comm_open, comm_msg or comm_close. Raises Unusable."""
        if (
            content.get("target_module") is not None
        ):  # asks the page to load a module (messaging.html, "Opening a Comm")
            del content["target_module"]
        comm, data = content.get("comm_id"), content.get("data")
        if not isinstance(comm, str) or not isinstance(data, dict):
            raise Unusable("a comm without id or data")
        if msg_type == "comm_close":
            self._kinds.pop(comm, None)
        elif msg_type == "comm_open" and content.get("target_name") == _TARGET:
            self._open(comm, data)
        elif comm in self._refused:
            raise Unusable("a widget that was refused")
        elif isinstance(data.get("state"), dict):
            self._state(data["state"], self._kinds.get(comm, _Kind()))
        states = data.get("states")
        if isinstance(states, dict):
            self._all_states(states)
        _check_paths(data.get("buffer_paths"))

    def _open(self, comm: str, data: Json) -> None:
        state = data.get("state")
        try:
            if len(self._kinds) >= MAX_WIDGETS:
                raise Unusable("more widgets than are kept in mind")
            kind = _kind_of(state)
            if _refers_to(state, comm):
                raise Unusable("a widget that is part of itself")  # a page waits for it before it can make it: forever
            self._state(state, kind)
        except Unusable:
            self._refuse(comm)
            raise
        self._refused.pop(comm, None)
        self._kinds[comm] = kind

    def _refuse(self, comm: str) -> None:
        """Only for the word in the place of its view: without a comm_open a page knows no such widget."""
        if len(self._refused) >= MAX_WIDGETS:
            del self._refused[next(iter(self._refused))]
        self._refused[comm] = None
        self._kinds.pop(comm, None)

    def _all_states(self, states: Json) -> None:
        """What a page that is loaded again asks for: every widget, over a comm of the page's own ("update_states")."""
        for comm, described in list(states.items()):
            try:
                if not isinstance(described, dict) or comm in self._refused:
                    raise Unusable("a widget that was refused")
                state = described.get("state")
                if not isinstance(state, dict) or described.get("model_module") not in _MODULES:
                    raise Unusable("a widget without a module of Jupyter's")
                kind = _kind_of({"_model_module": described["model_module"], **state})
                if described.get("model_name") != kind.model or self._kinds.get(comm, kind) != kind:
                    raise Unusable("a widget that says two things of itself")
                self._state(state, kind)
                _check_paths([item.get("path") for item in described.get("buffers") or [] if isinstance(item, dict)])
            except Unusable:
                del states[comm]

    def _state(self, state: Any, kind: _Kind) -> None:
        if not isinstance(state, dict):
            raise Unusable("a widget without a state")
        if any(state.get(name) not in _MODULES for name in _MODULE_KEYS if state.get(name) is not None):
            raise Unusable("a widget that comes to have code of its own")
        for name, own in zip(_NAME_KEYS, (kind.model, kind.view), strict=True):
            if own is not None and state.get(name) not in (None, own):
                raise Unusable("a widget that comes to be another")
        if state.get("format") == "url":  # images, audio, video from anywhere
            raise Unusable("a widget that fetches from a URL")
        for name in _DROPPED_KEYS:
            if state.get(name) not in _NOTHING:  # no classes, no HTML: it says the same as a plain kernel's
                state.pop(name, None)
        if state.get("_dom_classes") not in _NOTHING:
            state["_dom_classes"] = _classes(state["_dom_classes"])
        _clean_texts(state, kind)
        outputs = state.get("outputs")  # of an Output widget
        for output in outputs if isinstance(outputs, list) else []:
            if isinstance(output, dict) and "data" in output:
                self._clean_bundle(output)
            if isinstance(output, dict) and "traceback" in output:
                schema.check_error(output)


def _classes(value: Any) -> list[str]:
    return [name for name in value if isinstance(name, str) and name in _CLASSES] if isinstance(value, list) else []


def _refers_to(state: Any, comm: str) -> bool:
    """At any depth, as ``unpack_models`` of @jupyter-widgets/base looks for other widgets."""
    todo: list[Any] = [state]
    while todo:
        value = todo.pop()
        if isinstance(value, dict):
            todo.extend(value.values())
        elif isinstance(value, list):
            todo.extend(value)
        elif value == f"IPY_MODEL_{comm}":
            return True
    return False


def _kind_of(state: Any) -> _Kind:
    """Raises Unusable for a widget that does not say what it is, or whose code is not Jupyter's."""
    if not isinstance(state, dict) or state.get("_model_module") not in _MODULES:
        raise Unusable("a widget with code of its own")
    model, view = (state.get(name) for name in _NAME_KEYS)
    if not isinstance(model, str) or not isinstance(view, str | None) or len(model) + len(view or "") > MAX_ID:
        raise Unusable("a widget without a usable name")
    return _Kind(model, view)


def _clean_texts(state: Json, kind: _Kind) -> None:
    """HTML, TeX and CSS in the values of one widget. A page makes a text of whatever it gets, also of a list."""
    for name, value in list(state.items()):
        if kind.is_style and not name.startswith("_"):
            if isinstance(value, list | dict) or (
                isinstance(value, str) and value and not _is_harmless_style(name, value)  # "" is none at all
            ):
                del state[name]
        elif kind.is_html and name == "value":
            state[name] = _html(value)
        elif name in _TEX_KEYS:
            state[name] = _without_tex(value)


def _html(value: Any) -> str:
    removed: list[str] = []
    cleaned = markup.clean_html(value, removed) if isinstance(value, str) and len(value) <= MAX_TEXT else None
    if cleaned is None:
        return markup.removed_html(["text/html"]) if value else ""
    removed += markup.active_parts(value)
    return cleaned + markup.removed_html(removed) if removed else cleaned


def _without_tex(value: Any) -> Any:
    if isinstance(value, list):
        return [markup.clean_tex(item) if isinstance(item, str) else item for item in value]
    return markup.clean_tex(value) if isinstance(value, str) else value


def _is_harmless_style(name: str, value: str) -> bool:
    return markup.is_harmless_value(name, value) or (
        name.startswith("grid_template") and _GRID_AREAS.fullmatch(value) is not None
    )


def _check_paths(paths: Any) -> None:
    for path in paths if isinstance(paths, list) else []:
        if not isinstance(path, list) or any(step in _PROTOTYPES for step in path if isinstance(step, str)):
            raise Unusable("a buffer for a place that no state has")
