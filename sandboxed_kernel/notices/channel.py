"""Pure: what broker and relay say to each other, one JSON object per datagram of a SOCK_SEQPACKET pair.

Both ends are trusted and of one version; a message that does not decode is a Bug. End of file means
that the other is gone. Signals and the end do not go this way: relay/lifeline.py.
"""

from __future__ import annotations

import json

from sandboxed_kernel.errors import Bug
from sandboxed_kernel.notices.events import Event
from sandboxed_kernel.records import Record, as_dict

MAX_BYTES = 65536  # of one message; hosts, paths and reasons in events are bounded well below


# --- broker to relay ---------------------------------------------------------------------------------------------


class Started(Record):
    """The confined process runs: its pid, which is also its process group."""

    pid: int


class Reported(Record):
    """An event to publish. With a ``number`` the broker holds the refused call's answer until ``Published(number)``,
    for 50 ms at most. An event with the same ``destination`` and cell as an earlier one carries the new total
    ``count``.
    """

    event: Event
    number: int | None = None


class Remark(Record):
    """A sentence about the policy, for people: in the cell that runs, or else in the next one."""

    text: str


class Ended(Record):
    """The confined process and all its descendants are gone. ``status`` is as from ``os.waitpid``; ``cause`` says more
    where the broker knows more than the status ("crossed [limits] memory = 4 GiB"), else it is empty."""

    status: int
    cause: str = ""


class Failed(Record):
    """The confined process could not be started; nothing untrusted has run. ``message`` is for people."""

    message: str
    exit_code: int


# --- relay to broker ---------------------------------------------------------------------------------------------


class Published(Record):
    """Answers ``Reported(number=...)``: clients have been sent the notice."""

    number: int


class CellBegan(Record):
    """Sent before a cell's execute_request is passed on: the broker starts to count destinations afresh."""

    msg_id: str


FromBroker = Started | Reported | Remark | Ended | Failed
FromRelay = Published | CellBegan

_TYPES = {t.__name__: t for t in (Started, Reported, Remark, Ended, Failed, Published, CellBegan)}


def encode(message: FromBroker | FromRelay) -> bytes:
    body = as_dict(message)
    if isinstance(message, Reported):
        body["event"] = message.event.to_json()
    return json.dumps([type(message).__name__, body], separators=(",", ":")).encode()


def decode(data: bytes) -> FromBroker | FromRelay:
    """The inverse of ``encode``. Raises Bug."""
    try:
        name, body = json.loads(data)
        if name == "Reported":
            body["event"] = Event.from_json(body["event"])
        message: FromBroker | FromRelay = _TYPES[name](**body)
    except (ValueError, TypeError, KeyError) as error:
        raise Bug(f"a message between broker and relay does not decode: {data[:200]!r} ({error})") from error
    return message
