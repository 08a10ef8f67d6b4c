"""Pure: active content -> what may reach a browser, by message type and MIME type (``[outputs] active_content``).

JavaScript in an output runs in the user's Jupyter page and can start a terminal or an unsandboxed kernel. What is
not in the tables does not pass; what was removed is said in its place, with the line that would allow it. Widgets are
``relay/widgets.py``'s.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from typing import Any, Literal

from sandboxed_kernel.relay import markup, plots
from sandboxed_kernel.relay.messages import Json
from sandboxed_kernel.relay.widgets import Widgets

MAX_MARKUP = 4 << 20  # characters of HTML, Markdown, TeX or SVG; more is not parsed, and not passed

_BASE64 = re.compile(r"[A-Za-z0-9+/=\s]*")


def _text(value: str) -> str:
    return value


def _raster(value: str) -> str | None:
    """Base64 as data; anything else could be a URL to a renderer that is not strict."""
    return value if _BASE64.fullmatch(value) else None


# MIME type -> what becomes of its text; None: it is removed.
# ``markup`` is imported late (``relay/imports.py``): its functions are looked up when they are called.
_TEXT_TYPES: dict[str, Callable[[str], str | None]] = {
    "text/plain": _text,
    "text/html": lambda value: markup.clean_html(value),
    "text/markdown": lambda value: markup.clean_markdown(value),
    "text/latex": lambda value: markup.clean_tex(value),
    "image/svg+xml": lambda value: markup.clean_svg(value),
    "image/png": _raster,
    "image/jpeg": _raster,
    "image/gif": _raster,
    "image/webp": _raster,
    "image/bmp": _raster,
}
_MARKUP_TYPES = frozenset({"text/html", "text/markdown", "text/latex", "image/svg+xml"})
_PLOTLY = "application/vnd.plotly.v1+json"
_WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
_UNSEEN = frozenset({"application/vnd.jupyter.widget-state+json"})  # shows nothing: not worth a word when it goes

_DATA = frozenset({"application/json"})  # shown as a tree
_GEOJSON = "application/geo+json"
_MAX_GEOJSON_DEPTH = 40
_PDF = "application/pdf"
_PDF_BEGINS = "JVBERi0"  # "%PDF-" in base64
# Beside one of these, HTML would be shown in its place.
_SHOWN = ("image/png", "image/jpeg", "image/gif", "image/webp", "image/bmp")
_MAX_REPEATED = 100_000  # characters of text/plain that an added text/html says again


def _text_of(mime: str, value: str, removed: list[str]) -> str | None:
    if mime in _MARKUP_TYPES and len(value) > MAX_MARKUP:
        removed.append(f"{mime} over {MAX_MARKUP >> 20} MiB (too large to be checked)")
        return None
    cleaned = markup.clean_html(value, removed) if mime == "text/html" else _TEXT_TYPES[mime](value)
    if cleaned is None:
        removed.append(f"{mime} (not understood, or too much of it)")
    elif mime in ("text/html", "text/markdown"):
        removed += markup.active_parts(value)
    return cleaned


def _geojson(value: Any, depth: int = 0) -> Any:
    """JupyterLab's extension draws it on a map, and shows the features' properties as HTML: a zero-width space behind
    each ``<`` makes text of that. What is nested deeper than GeoJSON ever is becomes null.
    """
    if depth > _MAX_GEOJSON_DEPTH:
        return None
    if isinstance(value, str):
        return value.replace("<", "<\u200b")
    if isinstance(value, list):
        return [_geojson(item, depth + 1) for item in value]
    if isinstance(value, dict):
        return {_geojson(name): _geojson(item, depth + 1) for name, item in value.items()}
    return value


def _pdf_link(value: Any) -> str | None:
    """A PDF is saved, not shown: viewers follow its links by themselves. None for what is none, or too large."""
    text = "".join(value.split()) if isinstance(value, str) and len(value) <= MAX_MARKUP else ""
    if not text.startswith(_PDF_BEGINS) or not _BASE64.fullmatch(text):
        return None
    return f'<p><a download="output.pdf" href="data:application/pdf;base64,{text}">output.pdf</a></p>'


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
        link = _pdf_link(data.get(_PDF))
        for mime in list(data):
            value = self._value(mime, data[mime], removed)
            if value is None:
                del data[mime]
            else:
                data[mime] = value
        metadata = holder.get("metadata")
        known = metadata.items() if isinstance(metadata, dict) else ()
        holder["metadata"] = {name: value for name, value in known if name in data or name in ("width", "height")}
        holder["metadata"].pop(_GEOJSON, None)  # from where its map is fetched, and HTML that stands on it
        if removed:
            _say_removed(data, sorted(set(removed)), link or "")

    def _value(self, mime: str, value: Any, removed: list[str]) -> Any:
        cleaned = None
        if mime in _TEXT_TYPES:
            if isinstance(value, list) and all(isinstance(line, str) for line in value):
                value = "".join(value)  # nbformat's multi-line text, which some kernels send
            if isinstance(value, str):
                return _text_of(mime, value, removed)
        elif mime in _DATA:
            cleaned = value
        elif mime == _GEOJSON:
            cleaned = _geojson(value) if isinstance(value, dict) else None
        elif mime == _PLOTLY:
            cleaned = plots.clean_figure(value, removed)
        elif mime == _WIDGET_VIEW:
            model = value.get("model_id") if isinstance(value, dict) else None
            if isinstance(model, str) and not self._widgets.is_refused(model):
                cleaned = value
        if cleaned is None and mime not in _UNSEEN:
            removed.append(markup.in_words(mime))
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


def _say_removed(data: Json, removed: list[str], link: str = "") -> None:
    """In the form that clients show: the HTML, the Markdown, or an HTML of its own, which repeats what it hides.
    text/plain stays what repr() gives: doctests and programs read it. ``link``: in HTML, to what can be saved.
    """
    if "text/html" in data:
        data["text/html"] += link + markup.removed_html(removed)
    elif "text/markdown" in data:
        data["text/markdown"] += f"\n\n*{markup.removed_text(removed)}*"
    elif "image/svg+xml" in data or "text/latex" in data:
        data["text/markdown"] = f"*{markup.removed_text(removed)}*"  # which comes after them
    else:
        data["text/html"] = _repeated(data) + link + markup.removed_html(removed)


def _repeated(data: Json) -> str:
    for mime in _SHOWN:
        if mime in data:
            return f'<img src="data:{mime};base64,{html.escape(data[mime])}">'
    plain = data.get("text/plain")
    return f"<pre>{markup.clean_tex(html.escape(plain[:_MAX_REPEATED]))}</pre>" if isinstance(plain, str) else ""
