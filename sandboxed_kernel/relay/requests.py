"""Pure: which requests the kernel has been given, and what it may therefore say about each.

ipykernel answers each request once, to whoever asked, and says busy before it and idle after it. All of that is known
here without the kernel's word, so a reply that nobody waits for, a second one, one to another client, an ``idle``
before the reply of a cell, or an ``input_request`` that the client did not allow go nowhere.
"""

from __future__ import annotations

from sandboxed_kernel.records import Record
from sandboxed_kernel.relay.messages import Frame, Json, Unusable

MAX_OPEN = 20_000  # requests; the kernel can leave them unanswered, and has pages send comm messages
MAX_CLOSED = 200  # whose headers are kept, for what threads say after their cell has ended


class Request(Record, frozen=False):
    """A request that was passed on to the kernel, and how far it is with it."""

    msg_id: str
    msg_type: str
    channel: str
    header: Json
    identities: tuple[Frame, ...]
    allows_input: bool = False
    allows_replacing: bool = False  # of the cell's text, by the payload of its reply
    replied: bool = False
    busy: bool = False
    idle: bool = False  # the kernel said so; of a cell it is passed on with its reply

    @property
    def reply_type(self) -> str | None:
        """None for comm messages, which have no reply."""
        return (
            None
            if self.msg_type.startswith("comm_") and self.msg_type != "comm_info_request"
            else (self.msg_type.removesuffix("request") + "reply")
        )


class Requests:
    """Those that are open, and the last ones that were."""

    def __init__(self) -> None:
        self._open: dict[str, Request] = {}  # by msg_id, the oldest first
        self._closed: dict[str, Json] = {}
        self._shutdown: Request | None = None

    def forwarded(self, request: Request) -> None:
        self._open.pop(request.msg_id, None)
        self._open[request.msg_id] = request
        if len(self._open) > MAX_OPEN:
            self._close(next(iter(self._open)))
        if request.msg_type == "shutdown_request":
            self._shutdown = request

    def header(self, msg_id: str) -> Json | None:
        """As the client wrote it; None for a request that is not known any more, or never was."""
        request = self._open.get(msg_id)
        return request.header if request is not None else self._closed.get(msg_id)

    def waiting(self, channel: str, reply_type: str, msg_id: str) -> Request:
        """The request that this would be the reply to. Raises Unusable."""
        request = self._open.get(msg_id)
        if request is None or request.replied or (request.channel, request.reply_type) != (channel, reply_type):
            raise Unusable("a reply that nobody waits for")
        return request

    def replied(self, request: Request) -> bool:
        """Its reply was passed on. Whether the kernel is idle already, which is now to be said."""
        request.replied = True
        if request.idle:
            self._close(request.msg_id)
        return request.idle and request.msg_type == "execute_request"

    def input_for(self, msg_id: str) -> Request:
        """Of a cell that may ask its user for input. Raises Unusable."""
        request = self._open.get(msg_id)
        if request is None or request.replied or not request.allows_input:
            raise Unusable("asks for input where the client allows none")
        return request

    def shutdown(self) -> Json:
        """The header of the shutdown request, of which the kernel tells every client, once. Raises Unusable."""
        request, self._shutdown = self._shutdown, None
        if request is None:
            raise Unusable("a shutdown that nobody asked for")
        return request.header

    def states(self, state: str, msg_id: str) -> list[str]:
        """What to tell clients when the kernel says busy or idle about a request: nothing, the same, or both."""
        request = self._open.get(msg_id)
        if request is None or request.idle or (state == "busy" and request.busy):
            return []
        before = [] if request.busy else ["busy"]
        request.busy = True
        if state == "busy":
            return before
        request.idle = True
        if request.msg_type == "execute_request" and not request.replied:
            return before
        if request.replied or request.reply_type is None:
            self._close(msg_id)
        return [*before, "idle"]

    def _close(self, msg_id: str) -> None:
        self._closed[msg_id] = self._open.pop(msg_id).header
        if len(self._closed) > MAX_CLOSED:
            del self._closed[next(iter(self._closed))]
