"""Pure: active content -> what may reach a browser, by message type and MIME type (``[outputs] active_content``).

JavaScript in an output runs in the user's Jupyter page and can start a terminal or an unsandboxed kernel. What is
not in the tables does not pass; what was removed is said in its place, with the line that would allow it. Widgets are
``relay/widgets.py``'s.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal

from sandboxed_kernel.relay import markup
from sandboxed_kernel.relay.messages import Json, Unusable
from sandboxed_kernel.relay.widgets import Widgets

MAX_MARKUP = 4 << 20  # characters of HTML, Markdown, TeX or SVG; more is not parsed, and not passed
MAX_DEPTH = 100  # of JSON that is looked into; plotly's has about ten

_BASE64 = re.compile(r"[A-Za-z0-9+/=\s]*")


def _text(value: str) -> str:
    return value


def _raster(value: str) -> str | None:
    """Base64 as data; anything else could be a URL to a renderer that is not strict."""
    return value if _BASE64.fullmatch(value) else None


def _markup(clean: Callable[[str], str | None]) -> Callable[[str], str | None]:
    """``clean`` looks its function up when it is called: ``markup`` is imported late (``relay/imports.py``)."""
    return lambda value: clean(value) if len(value) <= MAX_MARKUP else None


# MIME type -> what becomes of its text; None: it is removed.
_TEXT_TYPES: dict[str, Callable[[str], str | None]] = {
    "text/plain": _text,
    "text/html": _markup(lambda value: markup.clean_html(value)),
    "text/markdown": _markup(lambda value: markup.clean_markdown(value)),
    "text/latex": _markup(lambda value: markup.clean_tex(value)),
    "image/svg+xml": _markup(lambda value: markup.clean_svg(value)),
    "image/png": _raster,
    "image/jpeg": _raster,
    "image/gif": _raster,
    "image/webp": _raster,
    "image/bmp": _raster,
}
_JSON = "application/json"  # shown as a tree of text
_PLOTLY = "application/vnd.plotly.v1+json"
_WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
_UNSEEN = frozenset({"application/vnd.jupyter.widget-state+json"})  # shows nothing: not worth a word when it goes

# Plotly: what fetches or acts. Tiles and outlines of countries come from servers that these traces choose.
_PLOTLY_MAPS = re.compile(r"(?:scatter|density|choropleth)(?:geo|map)?(?:box)?")
_PLOTLY_PLAIN = frozenset({"scatter"})
_ACTS = re.compile(
    r"[/\\][\t\r\n]*[/\\]|script\s*:|<\s*(?:script|iframe|img|svg|object|embed)|\son\w+\s*=", re.IGNORECASE
)


class Cleaner:
    """Cleans the contents of messages in place."""

    def __init__(self, mode: Literal["strip", "allow"]) -> None:
        self._strip = mode == "strip"
        self._widgets = Widgets(self._bundle)

    def clean(self, msg_type: str, content: Json) -> None:
        """Raises Unusable for a message of which nothing may pass."""
        if not self._strip:
            return
        if msg_type in ("display_data", "update_display_data", "execute_result", "inspect_reply"):
            self._bundle(content)
        elif msg_type == "execute_reply":
            self._execute_reply(content)
        elif msg_type == "debug_reply":
            body = content.get("body")
            if isinstance(body, dict) and "data" in body:  # richInspectVariables: rendered as an output
                self._bundle(body)
        elif msg_type in ("comm_open", "comm_msg", "comm_close"):
            self._widgets.clean(msg_type, content)

    def _bundle(self, holder: Json) -> None:
        """Cleans ``holder["data"]``, and says in it what was removed."""
        data = holder.get("data")
        if not isinstance(data, dict):
            holder["data"], holder["metadata"] = {}, {}
            return
        removed: list[str] = []
        for mime in list(data):
            value = self._value(mime, data[mime], removed)
            if value is None:
                del data[mime]
            else:
                data[mime] = value
        metadata = holder.get("metadata")
        known = metadata.items() if isinstance(metadata, dict) else ()
        holder["metadata"] = {name: value for name, value in known if name in data or name in ("width", "height")}
        if removed:
            _say_removed(data, sorted(set(removed)))

    def _value(self, mime: str, value: Any, removed: list[str]) -> Any:
        if isinstance(value, list) and all(isinstance(line, str) for line in value):
            value = "".join(value)  # nbformat's multi-line text, which some kernels send
        cleaned = None
        if mime in _TEXT_TYPES and isinstance(value, str):
            cleaned = _TEXT_TYPES[mime](value)
            if mime in ("text/html", "text/markdown"):
                removed += markup.active_parts(value)
        elif mime == _JSON:
            cleaned = value
        elif mime == _PLOTLY:
            cleaned = _without_remote(value, removed)
        elif mime == _WIDGET_VIEW:
            model = value.get("model_id") if isinstance(value, dict) else None
            if isinstance(model, str) and not self._widgets.is_refused(model):
                cleaned = value
        if cleaned is None and mime not in _UNSEEN:
            removed.append(mime)
        return cleaned

    def _execute_reply(self, content: Json) -> None:
        payload = content.get("payload")
        for item in payload if isinstance(payload, list) else []:
            if isinstance(item, dict) and "data" in item:  # the pager: rendered as trusted output
                self._bundle(item)
        expressions = content.get("user_expressions")
        for value in expressions.values() if isinstance(expressions, dict) else []:
            if isinstance(value, dict) and "data" in value:
                self._bundle(value)


def _without_remote(value: Any, removed: list[str], depth: int = 0, in_template: bool = False) -> Any:
    """A plot without maps, and without texts that could be taken for something to fetch or to run: an image's source,
    a link.

    A template is how traces of each type look if there are any; it draws none. Every plot of plotly has one, with maps:
    they are taken out as well, but nobody misses them.
    """
    if depth > MAX_DEPTH:
        raise Unusable("a plot that is nested too deeply")
    if isinstance(value, list):
        return [_without_remote(item, removed, depth + 1, in_template) for item in value]
    if isinstance(value, dict):
        kind = value.get("type")
        if isinstance(kind, str) and _PLOTLY_MAPS.fullmatch(kind) and kind not in _PLOTLY_PLAIN:
            if not in_template:
                removed.append("maps")
            return {}
        return {
            name: _without_remote(item, removed, depth + 1, in_template or name == "template")
            for name, item in value.items()
        }
    if isinstance(value, str) and _ACTS.search(value):
        removed.append("addresses")
        return ""
    return value


def _say_removed(data: Json, removed: list[str]) -> None:
    """Beside what is left."""
    said = markup.removed_text(removed)
    data["text/plain"] = f"{data['text/plain']}\n[sandbox] {said}" if "text/plain" in data else f"[sandbox] {said}"
    if "text/html" in data:
        data["text/html"] += markup.removed_html(removed)
    elif "text/markdown" in data:
        data["text/markdown"] += f"\n\n*{said}*"
