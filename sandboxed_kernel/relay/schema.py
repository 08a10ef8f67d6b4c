"""Pure: what each message from the sandbox must look like, field by field, before a client gets it.

After "Messaging in Jupyter" (https://jupyter-client.readthedocs.io/en/stable/messaging.html) and what ipykernel 7 sends
beyond it. Clients trust a kernel to keep to it: nbclient ends with an exception at a stream without text, JupyterLab
drops what its ``validate.ts`` does not like, nbformat writes no notebook with an ``execution_count`` that is a list.

The table has a row for each type, and each row says what becomes of each field: kept as it is, mended, or a reason to
pass nothing of the message. A field that is not in the row does not pass.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from sandboxed_kernel.records import Record
from sandboxed_kernel.relay.messages import MAX_ID, Frame, Json, Unusable
from sandboxed_kernel.relay.terminal import harmless

MAX_COUNT = 2**31 - 1
MAX_ITEMS = 10_000  # completions, lines of history, comms, frames of a traceback: of one message
MAX_BUFFERS = 10_000
MAX_SHORT = 65536  # characters of a prompt, an exception's name, a completion
MAX_NEXT_INPUT = 1 << 20  # characters of a cell that %load writes

Check = Callable[[Any], Any]
_ABSENT = object()  # for fields that need not be there


class Checked(Record):
    """A message from the sandbox that a client may get. Only ``check`` makes one."""

    msg_type: str
    content: Json
    parent: Json  # as the client wrote it, where the relay knows the request
    metadata: Json
    buffers: list[Frame]


# --- checks of one field: the value that passes, or Unusable ---------------------------------------------------------


def _text(value: Any) -> str:
    """Text, or "". Lists of lines are nbformat's."""
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        return "".join(value)
    return value if isinstance(value, str) else ""


def _short(value: Any) -> str:
    return _text(value)[:MAX_SHORT]


def _needed_text(value: Any) -> str:
    if not isinstance(value, str | list):
        raise Unusable("without a text")
    return harmless(_text(value))


def _identifier(value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_ID:
        raise Unusable("without a usable id or name")
    return value


def _count(value: Any) -> int:
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_COUNT
    return int(value) if is_count else 0


def _flag(value: Any) -> bool:
    return value is True


def _object(value: Any) -> Json:
    return value if isinstance(value, dict) else {}


def _needed_object(value: Any) -> Json:
    if value is not None and not isinstance(value, dict):
        raise Unusable("with data that is no object")
    return value or {}


def _one_of(*allowed: str, otherwise: str) -> Check:
    return lambda value: value if isinstance(value, str) and value in allowed else otherwise


def _optional(check: Check) -> Check:
    return lambda value: _ABSENT if value is None else check(value)


def _list_of(check: Check) -> Check:
    return lambda value: [check(item) for item in value[:MAX_ITEMS]] if isinstance(value, list) else []


def _fields(**checks: Check) -> Check:
    return lambda value: _pick(_object(value), checks)


def _pick(content: Json, checks: dict[str, Check]) -> Json:
    picked = {name: check(content.get(name)) for name, check in checks.items()}
    return {name: value for name, value in picked.items() if value is not _ABSENT}


def _bundle(value: Any) -> Json:
    """MIME types and their values: text, but for JSON types (``mimebundle`` of nbformat's v4 schema)."""
    fitting = {mime: item for mime, item in _object(value).items() if _fits(mime, item)}
    if "text/plain" in fitting:
        fitting["text/plain"] = harmless(_text(fitting["text/plain"]))
    return fitting


def _fits(mime: str, value: Any) -> bool:
    if mime == "application/json" or mime.endswith("+json"):
        return True
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(line, str) for line in value))


def _transient(value: Any) -> Json:
    display_id = _object(value).get("display_id")
    return {} if display_id is None else {"display_id": _identifier(display_id)}


def _comms(value: Any) -> Json:
    known = list(_object(value).items())[:MAX_ITEMS]
    return {_identifier(comm): {"target_name": _identifier(_object(about).get("target_name"))} for comm, about in known}


def _history_entry(value: Any) -> list[Any]:
    """(session, line, input), or with outputs (session, line, (input, output))."""
    session, line, said = [*value, None, None, None][:3] if isinstance(value, list) else (0, 0, "")
    if isinstance(said, list):
        said = [_text(said[0] if said else ""), said[1] if len(said) > 1 and isinstance(said[1], str) else None]
    else:
        said = _text(said)
    return [_count(session), _count(line), said]


def _scalars(value: Any) -> Json:
    """Numbers, truth values and short texts; one object in another, as psutil's figures are."""
    known = list(_object(value).items())[:MAX_ITEMS]
    return {name: _scalars(each) if isinstance(each, dict) else each for name, each in known if _is_small(each)}


def _is_small(value: Any) -> bool:
    if isinstance(value, dict):
        return all(not isinstance(each, dict) and _is_small(each) for each in value.values())
    return value is None or isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) <= MAX_ID)


# --- tracebacks ------------------------------------------------------------------------------------------------------

# VS Code puts an ``<a href=...>...</a>`` of a traceback into the page as HTML (extensions/notebook-renderers,
# linkify.ts). It joins the lines, and takes colours out first (stackTraceHelper.ts): so a tag may go on in the next
# line, and an escape sequence may stand in it. A zero-width space behind the "<" makes text of it for every parser, and
# looks the same. ``<module>``, ``<cell line: 1>`` and ``<class 'int'>`` have no attribute and stay as they are.
_TAG = re.compile(
    r"<(?=/?[a-z][^\s<>]*(?:\Z|[\s/][^<>]*(?:=|\Z))"  # a name, and an attribute or the end of the line
    r"|/?[a-z]*\x1b|\s*a\s|!--"
    r"|/?(?:script|style|svg|math|iframe|object|embed|base|link)\b)",
    re.IGNORECASE,
)


def defuse(text: str) -> str:
    """A line of a traceback in which no renderer finds HTML that acts. ANSI colours stay."""
    return _TAG.sub("<\u200b", text) if "<" in text else text


def _defused(value: Any) -> str:
    return defuse(harmless(_text(value)))


def _defused_short(value: Any) -> str:
    return defuse(harmless(_short(value)))


_ERROR: dict[str, Check] = {"ename": _defused_short, "evalue": _defused, "traceback": _list_of(_defused)}


def check_error(output: Json) -> None:
    """Checks an error within another message, in place: one of an Output widget's outputs."""
    output.update(_pick(output, _ERROR))


# --- payloads of execute_reply ---------------------------------------------------------------------------------------

# ``edit_magic`` is not among them: qtconsole runs its editor with the file name in a shell's command line.
_PAYLOADS: dict[str, dict[str, Check]] = {
    "page": {"data": _bundle, "start": _count},
    "set_next_input": {"text": lambda value: _text(value)[:MAX_NEXT_INPUT], "replace": _flag},
    "ask_exit": {"keepkernel": _flag},
}


def _payload(value: Any) -> list[Json]:
    kept = []
    for item in value[:MAX_ITEMS] if isinstance(value, list) else ():
        source = item.get("source") if isinstance(item, dict) else None
        if isinstance(source, str) and source in _PAYLOADS:
            kept.append({"source": source, **_pick(item, _PAYLOADS[source])})
    return kept


def _expressions(value: Any) -> Json:
    return {name: _expression(result) for name, result in list(_object(value).items())[:MAX_ITEMS]}


def _expression(value: Any) -> Json:
    if _object(value).get("status") == "ok":
        return {"status": "ok", "data": _bundle(value.get("data")), "metadata": _object(value.get("metadata"))}
    return {"status": "error", **_pick(_object(value), _ERROR)}


# What IPython has that replaces the cell (``set_next_input(..., replace=True)``: IPython/core/magics/code.py), as a
# cell asks for it: a magic, by automagic, and by name.
_ASKS_TO_REPLACE = re.compile(
    r"%\s?load(?:py)?\b|^[^\S\n]*load(?:py)?[^\S\n]+\S|magic\(\s*[\"']load(?:py)?\b", re.MULTILINE
)


def asks_to_replace(code: str) -> bool:
    """Whether running this cell is to put another text in its place."""
    return _ASKS_TO_REPLACE.search(code) is not None


# --- the table -------------------------------------------------------------------------------------------------------

_DISPLAY: dict[str, Check] = {"data": _bundle, "metadata": _object, "transient": _transient}
_EXECUTED: dict[str, Check] = {"execution_count": _count, "payload": _payload, "user_expressions": _expressions}
_DAP: dict[str, Check] = {"seq": _count, "body": _optional(_object)}  # Debug Adapter Protocol, "Base Protocol"

_SHAPES: dict[str, dict[str, Check]] = {
    # iopub
    "stream": {"name": _one_of("stdout", "stderr", otherwise="stdout"), "text": _needed_text},
    "display_data": _DISPLAY,
    "update_display_data": _DISPLAY,
    "execute_result": {
        "execution_count": _count,
        "data": _bundle,
        "metadata": _object,
        "transient": _optional(_transient),  # a cell's result can be a display that is updated later
    },
    "execute_input": {"code": _text, "execution_count": _count},
    "error": _ERROR,
    "clear_output": {"wait": _flag},
    "comm_open": {"comm_id": _identifier, "target_name": _identifier, "data": _needed_object},
    "comm_msg": {"comm_id": _identifier, "data": _needed_object},
    "comm_close": {"comm_id": _identifier, "data": _needed_object},
    "debug_event": {"type": _one_of(otherwise="event"), "event": _identifier, **_DAP},
    # stdin
    "input_request": {"prompt": lambda value: harmless(_short(value)), "password": _flag},
    # shell and control, when the status is ok
    "execute_reply": _EXECUTED,
    "inspect_reply": {"found": _flag, "data": _bundle, "metadata": _object},
    "complete_reply": {
        "matches": _list_of(_short),
        "cursor_start": _count,
        "cursor_end": _count,
        "metadata": _fields(
            _jupyter_types_experimental=_optional(
                _list_of(
                    _fields(start=_count, end=_count, text=_short, type=_optional(_short), signature=_optional(_short))
                )
            )
        ),
    },
    "history_reply": {"history": _list_of(_history_entry)},
    "is_complete_reply": {"indent": _optional(_short)},
    "comm_info_reply": {"comms": _comms},
    "shutdown_reply": {"restart": _flag},
    "create_subshell_reply": {"subshell_id": _identifier},
    "delete_subshell_reply": {},
    "list_subshell_reply": {"subshell_id": _list_of(_identifier)},
}
# Replies that are not of the form {"status": ..., ...}.
_OTHER_REPLIES: dict[str, dict[str, Check]] = {
    "debug_reply": {
        "type": _one_of(otherwise="response"),
        "request_seq": _count,
        "success": _flag,
        "command": _optional(_short),
        "message": _optional(_short),
        **_DAP,
    },
}
_IS_COMPLETE = _one_of("complete", "incomplete", "invalid", otherwise="unknown")
_ABORTED = frozenset({"aborted", "abort"})  # the protocol's word was once the second
_WITH_BUFFERS = frozenset({"comm_open", "comm_msg", "comm_close", "display_data", "update_display_data"})
_STATES = frozenset({"busy", "idle"})


def state(content: Json) -> str:
    """Of a ``status`` message. Raises Unusable for all but busy and idle: when a kernel starts, restarts or is dead is
    said by who supervises it, and JupyterLab forgets the running cell at such a word.
    """
    said = content.get("execution_state")
    if not isinstance(said, str) or said not in _STATES:
        raise Unusable("a state that a running kernel does not have")
    return said


def check(msg_type: str, content: Json, parent: Json, metadata: Json, buffers: list[Frame]) -> Checked:
    """A message of the sandbox's in its type's shape. ``content`` may be changed. Raises Unusable."""
    kept = buffers if msg_type in _WITH_BUFFERS and len(buffers) <= MAX_BUFFERS else []
    return Checked(msg_type, _content(msg_type, content), parent, check_metadata(metadata), kept)


def _content(msg_type: str, content: Json) -> Json:
    if msg_type == "usage_reply":
        return _scalars(content)
    if msg_type in _OTHER_REPLIES:
        return _pick(content, _OTHER_REPLIES[msg_type])
    shape = _SHAPES.get(msg_type)
    if shape is None:
        raise Unusable("of a type without a shape")
    return _reply(msg_type, content, shape) if msg_type.endswith("_reply") else _pick(content, shape)


def _reply(msg_type: str, content: Json, shape: dict[str, Check]) -> Json:
    said = content.get("status")
    if msg_type == "is_complete_reply":
        return {"status": _IS_COMPLETE(said), **_pick(content, shape)}
    if said == "ok":
        return {"status": "ok", **_pick(content, shape)}
    if isinstance(said, str) and said in _ABORTED:
        return {"status": said}
    also = _pick(content, _EXECUTED) if msg_type == "execute_reply" else {}
    return {"status": "error", **_pick(content, _ERROR), **also}


def unreadable_reply(msg_type: str, reason: str) -> Json:
    """In the place of a reply of which nothing can pass: whoever asked waits for one."""
    said = f"[sandbox] The kernel's reply was not passed on: {reason}."
    error = {"ename": "UnusableReply", "evalue": said, "traceback": [said]}
    return _content(msg_type, {"status": "error", "success": False, "message": said, **error})


# --- headers ---------------------------------------------------------------------------------------------------------

_PARENT_KEYS = ("msg_id", "msg_type", "session", "username", "version")
_METADATA = ("started", "dependencies_met", "engine", "status", "version", "cellId")
# jupyter_client parses whatever in a header begins so, and raises for a day that there is none of (jsonutil.py).
_DATE = re.compile(r"\d{4}-\d\d-\d\dT")
_DAY = r"(?:\d\d-(?:0[1-9]|1\d|2[0-8])|(?!02)\d\d-(?:29|30)|(?:0[13578]|1[02])-31)"
_STARTED = re.compile(
    rf"[12]\d{{3}}-(?=0[1-9]|1[0-2]){_DAY}T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{{1,6}})?(?:Z|\+00:00)", re.ASCII
)


def check_parent(parent: Json) -> Json:
    """The header of a request that the relay does not know any more, without a date. Raises Unusable."""
    kept = {name: parent[name] for name in _PARENT_KEYS if _is_name(parent.get(name))}
    if kept and "msg_id" not in kept:
        raise Unusable("with a parent that has no usable id")
    return kept


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= MAX_ID and not _DATE.match(value) and not _SURROGATES.search(value)


_SURROGATES = re.compile("[\ud800-\udfff]")


def check_metadata(metadata: Json) -> Json:
    """Of a message, not of an output: what ipykernel (``init_metadata``) and ipywidgets put there."""
    kept: Json = {}
    for name in _METADATA:
        value = metadata.get(name)
        is_usable = _STARTED.fullmatch(value) if name == "started" and isinstance(value, str) else _is_name(value)
        if is_usable or (name == "dependencies_met" and isinstance(value, bool)):
            kept[name] = value
    return kept
