"""Pure: ZMTP 3.0 (https://rfc.zeromq.org/spec/23/) as the relay speaks it with the confined kernel: bytes and frames.

Not libzmq, for two reasons. libzmq receives in a thread of its own: up to 1,000 messages of any size, and unfinished
ones without end, would fill the launcher's memory whatever the relay does. And its parser, in C++, would read bytes of
the sandbox's choosing in a trusted process. Here nothing is received before it is asked for, and a message that grows
beyond its limit is skipped as it comes.
"""

from __future__ import annotations

from collections.abc import Sequence

from sandboxed_kernel.relay.messages import MAX_FRAMES, TOO_LARGE, Frame

# Signature, version 3.0, mechanism NULL, no server (which NULL has none of), filler: "Greeting", 64 bytes.
GREETING = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
SUBSCRIBE_TO_ALL = b"\x01"  # a message of a SUB socket, "Exchanging subscriptions"
_MORE, _LONG, _COMMAND = 1, 2, 4  # flags of a frame
_FRAME_COST = 100  # bytes of CPython for each frame besides what is in it
_LARGE = 65536  # bytes; smaller frames are copied together, larger ones are sent from where they are


class ProtocolError(Exception):
    """The peer does not speak ZMTP 3 with NULL security, or has no end to a message: nothing more of it is read."""


def ready(socket_type: str, identity: bytes = b"") -> bytes:
    """The command that ends the handshake of NULL."""
    body = b"\x05READY" + _metadata(b"Socket-Type", socket_type.encode())
    if identity:
        body += _metadata(b"Identity", identity)
    return bytes((_COMMAND, len(body))) + body


def _metadata(name: bytes, value: bytes) -> bytes:
    return bytes((len(name),)) + name + len(value).to_bytes(4, "big") + value


def encode(frames: Sequence[Frame]) -> list[Frame]:
    """One message, as pieces to be sent one after the other."""
    pieces: list[Frame] = []
    small = bytearray()
    for place, frame in enumerate(frames):
        more = _MORE if place < len(frames) - 1 else 0
        size = len(frame)
        small += bytes((more, size)) if size < 256 else bytes((more | _LONG,)) + size.to_bytes(8, "big")
        if size < _LARGE:
            small += frame
        else:
            pieces += [bytes(small), frame]
            small.clear()
    if small:
        pieces.append(bytes(small))
    return pieces


class Decoder:
    """Bytes in, messages out. ``limit``: bytes of one message; what is beyond becomes the frame ``TOO_LARGE``."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._data, self._place = b"", 0  # what was fed and not yet looked at: from place on
        self._greeted = False
        self.is_ready = False  # the peer's READY has come
        self._frames: list[Frame] = []
        self._cost = 0  # of the message that is coming
        self._flags = 0  # of the frame that is coming
        self._missing = 0  # bytes of it
        self._body: bytearray | None = None  # what has come of it; None: it is skipped

    def feed(self, data: bytes) -> None:
        self._data, self._place = self._data[self._place :] + data, 0

    @property
    def has_greeted(self) -> bool:
        """Whether the peer's greeting was read, so that it may be sent commands."""
        return self._greeted

    @property
    def has_more(self) -> bool:
        """Whether some of what was fed has not been looked at."""
        return self._place < len(self._data)

    def take(self) -> list[Frame] | None:
        """The next message; None: more has to be fed for it. Raises ProtocolError."""
        if not self._greeted and not self._read_greeting():
            return None
        while (frame := self._next_frame()) is not None:
            if self._flags & _COMMAND:
                self._obey(frame)
                continue
            if len(self._frames) == MAX_FRAMES:
                raise ProtocolError("more frames than a message has")
            self._frames.append(frame)
            if not self._flags & _MORE:
                message, self._frames, self._cost = self._frames, [], 0
                return message
        return None

    def _read_greeting(self) -> bool:
        if len(self._data) < len(GREETING):
            return False
        greeting = self._data[: len(GREETING)]
        if (greeting[0], greeting[9]) != (0xFF, 0x7F) or greeting[10] < 3 or greeting[12:32] != GREETING[12:32]:
            raise ProtocolError("no greeting of ZMTP 3 with NULL")
        self._place, self._greeted = len(GREETING), True
        return True

    def _obey(self, frame: Frame) -> None:
        if self.is_ready or bytes(frame[:6]) != b"\x05READY":
            raise ProtocolError("a command out of place")
        self.is_ready = True

    def _next_frame(self) -> Frame | None:
        """Sets ``_flags`` too. None: it has not come whole."""
        if not self._missing:
            size = self._read_size()
            if size is None:
                return None
            end = self._place + size
            if end <= len(self._data):
                frame = self._data[self._place : end] if self._body is not None else TOO_LARGE
                self._place = end
                return frame
            self._missing = size
        return self._rest_of_frame()

    def _read_size(self) -> int | None:
        """The header of a frame; ``_body`` is then empty, or None for a frame to skip."""
        data, place = self._data, self._place
        if len(data) - place < 2:
            return None
        flags = data[place]
        if flags & _LONG:
            if len(data) - place < 9:
                return None
            size, self._place = int.from_bytes(data[place + 1 : place + 9], "big"), place + 9
        else:
            size, self._place = data[place + 1], place + 2
        if flags > 7 or flags & (_COMMAND | _MORE) == _COMMAND | _MORE or bool(flags & _COMMAND) == self.is_ready:
            raise ProtocolError("a frame that is none")
        self._flags = flags
        self._cost += size + _FRAME_COST
        self._body = bytearray() if self._cost <= self._limit else None
        return size

    def _rest_of_frame(self) -> Frame | None:
        """Grows as it comes: that a frame is said to be large costs nothing yet."""
        there = self._data[self._place : self._place + self._missing]
        self._place += len(there)
        self._missing -= len(there)
        if self._body is not None:
            self._body += there
        if self._missing:
            return None
        body, self._body = self._body, None
        if body is None:
            return TOO_LARGE
        return memoryview(body) if len(body) >= _LARGE else bytes(body)
