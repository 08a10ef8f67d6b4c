"""Pure: which message may pass, in which direction, and what becomes of it. What is not in a table is not passed on.

The tables run; the names are those of https://jupyter-client.readthedocs.io/en/stable/messaging.html and of
ipykernel 7.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from sandboxed_kernel.notices.board import COMM_TARGET, ID_PREFIX
from sandboxed_kernel.relay.messages import Claimed, Frame, Json, Unusable

FrontAction = Literal["forward", "answer", "cell", "comm"]
KernelAction = Literal["pass", "clean", "comm", "reply", "clean reply", "ask", "status", "shutdown", "swallow"]

# --- from the front: whoever has the front key is the user -----------------------------------------------------------

_SHELL_REQUESTS: dict[str, FrontAction] = {
    "kernel_info_request": "answer",  # ours: early, and help_links and nbconvert_exporter of a stranger act outside
    "connect_request": "answer",  # the kernel would name its own sockets
    "interrupt_request": "answer",  # also when the kernel is stuck, and to its whole process group
    "execute_request": "cell",  # says which cell runs
    "comm_open": "comm",
    "comm_msg": "comm",
    "comm_close": "comm",
    "complete_request": "forward",
    "inspect_request": "forward",
    "history_request": "forward",
    "is_complete_request": "forward",
    "comm_info_request": "forward",
    "shutdown_request": "forward",
}
FROM_FRONT: dict[str, dict[str, FrontAction]] = {
    "shell": _SHELL_REQUESTS,
    # ipykernel takes every shell request on control too
    "control": {
        **_SHELL_REQUESTS,
        "debug_request": "forward",
        "usage_request": "forward",
        "create_subshell_request": "forward",
        "delete_subshell_request": "forward",
        "list_subshell_request": "forward",
    },
    "stdin": {"input_reply": "forward"},
}

# --- from the kernel: whatever it says was chosen by the sandboxed code ----------------------------------------------

_SHELL_REPLIES: dict[str, KernelAction] = {
    "execute_reply": "clean reply",  # payload "page" is rendered as trusted output, user_expressions may be
    "inspect_reply": "clean reply",
    "complete_reply": "reply",
    "history_reply": "reply",
    "is_complete_reply": "reply",
    "comm_info_reply": "reply",
    "shutdown_reply": "reply",
}
FROM_KERNEL: dict[str, dict[str, KernelAction]] = {
    "shell": _SHELL_REPLIES,
    "control": {
        **_SHELL_REPLIES,
        "debug_reply": "clean reply",  # variables shown richly are rendered as outputs
        "usage_reply": "reply",
        "create_subshell_reply": "reply",
        "delete_subshell_reply": "reply",
        "list_subshell_reply": "reply",
    },
    "stdin": {"input_request": "ask"},
    "iopub": {
        "stream": "pass",
        "error": "pass",
        "status": "status",  # busy and idle, in the order of a real kernel, said by us
        "execute_input": "pass",
        "clear_output": "pass",  # and our notices of that cell are sent again
        "debug_event": "pass",
        "shutdown_reply": "shutdown",
        "display_data": "clean",
        "update_display_data": "clean",
        "execute_result": "clean",
        "comm_open": "comm",
        "comm_msg": "comm",
        "comm_close": "comm",
        "iopub_welcome": "swallow",  # for our subscription; each client gets one of ours
    },
}

# What a page lists below a cell, one beneath the other.
LISTED = frozenset({"stream", "display_data", "execute_result", "error"})

_NAME = "vnd.sandboxed-kernel"
_NAME_BYTES = _NAME.encode()
_STEP = 1 << 20  # bytes
_FEW = 1000  # values


def judge(channel: str, message: Claimed) -> KernelAction:
    """What becomes of a message from the kernel. Raises Unusable for what is not in the table."""
    action = FROM_KERNEL[channel].get(message.msg_type)
    if action is None:
        raise Unusable("of a type that does not come over this channel")
    return action


def is_forged(content: Json) -> bool:
    """Whether the kernel speaks for us: our comm target, a comm of ours, or one of our displays."""
    transient = content.get("transient")
    display_id = transient.get("display_id") if isinstance(transient, dict) else None
    return content.get("target_name") == COMM_TARGET or is_ours(content.get("comm_id")) or is_ours(display_id)


def is_ours(identifier: object) -> bool:
    """Whether a comm id or display id is one of the supervisor's: they share a prefix that nobody else may use."""
    return isinstance(identifier, str) and identifier.startswith(ID_PREFIX)


def _may_name_us(part: Frame) -> bool:
    """Letters of a JSON string are themselves or \\uXXXX: a text with neither our name nor \\u cannot have it as a key.

    Piece by piece, since outputs may have 100 MB; a regular expression that ignores case takes ten times as long.
    """
    for start in range(0, len(part), _STEP):
        text = bytes(part[start : start + _STEP + len(_NAME)]).lower()
        if _NAME_BYTES in text or b"\\u" in text:
            return True
    return False


def drop_our_mime(content: Json, part: Frame) -> None:
    """Deletes our MIME type wherever it is a key, at any depth: only we may speak under it."""
    if not (len(part) > _STEP and _has_few_values(content)) and not _may_name_us(part):
        return  # the text says so sooner than all its keys, unless it is a large one with few of them
    for container in _containers(content):
        if isinstance(container, dict):
            for name in [name for name in container if _NAME in name.lower()]:
                del container[name]


def _has_few_values(content: Json) -> bool:
    count = 0
    for container in _containers(content):
        count += len(container)
        if count > _FEW:
            return False
    return True


def _containers(content: Json) -> Iterator[Json | list[Any]]:
    """Each object and array, the outer first."""
    todo: list[Json | list[Any]] = [content]
    while todo:
        container = todo.pop()
        yield container
        values = container.values() if isinstance(container, dict) else container
        todo += [value for value in values if isinstance(value, (dict, list))]
