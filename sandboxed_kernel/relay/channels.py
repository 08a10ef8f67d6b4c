"""Does: the sockets of both sides. Bytes in, bytes out; what they mean is none of its business.

Those of the front are ZeroMQ's; their options follow ipykernel 7 (kernelapp.py) where a client could tell the
difference, and numbers in comments are from zmq_setsockopt(3). Those of the back are plain unix sockets on which the
relay itself speaks ZeroMQ's protocol (``zmtp.py``, which says why).
"""

from __future__ import annotations

import os
import select
import socket
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress

import zmq

from sandboxed_kernel.errors import HostError
from sandboxed_kernel.relay import zmtp
from sandboxed_kernel.relay.connection import BACK_CHANNELS, CHANNELS, BackConnection, FrontConnection, rewrite_ports
from sandboxed_kernel.relay.messages import Frame

Socket = zmq.Socket[bytes]

LARGE = 65536  # bytes; from here on frames are handed over, not copied: one copy of a 100 MB message is enough
# Bytes of one message from the kernel; a larger one is skipped as it comes. iopub: as much as print() of 100 MB needs.
MAX_BACK_MESSAGE = {"iopub": 160 << 20, "shell": 32 << 20, "control": 32 << 20, "stdin": 1 << 20}
CHUNK = 65536  # bytes of one recv(2)
CHUNKS = 256  # read in a row for one message, before the others have their turn
FRONT_LINGER = 300  # ms for the last words to a client
PATIENCE = 0.3  # seconds that one slow client may hold up the others; the kernel keeps 2,000 messages meanwhile
STUCK = 5.0  # seconds for which a client without room is not waited for again
# Numbers, and no recv_multipart or send_multipart: an `|` of flags takes as long as a frame.
_NOBLOCK, _NOBLOCK_MORE = int(zmq.NOBLOCK), int(zmq.NOBLOCK | zmq.SNDMORE)
_EVENTS, _POLLIN = int(zmq.EVENTS), int(zmq.POLLIN)
_FRONT_TYPES = {
    "shell": zmq.ROUTER,
    "iopub": zmq.XPUB,
    "stdin": zmq.ROUTER,
    "control": zmq.ROUTER,
    "hb": zmq.ROUTER,
}


class Channel:
    """A socket, and whether something may be there to receive that its descriptor does not tell of."""

    __slots__ = ("pending", "socket")

    def __init__(self, socket: Socket) -> None:
        self.socket = socket
        self.pending = True

    def fileno(self) -> int:
        return self.socket.fileno()

    def has_input(self) -> bool:
        """Cheaper than to receive nothing, which is an exception."""
        self.pending = bool(self.socket.get(_EVENTS) & _POLLIN)  # type: ignore[operator] # other options are bytes
        return self.pending

    def receive(self) -> list[Frame] | None:
        """One message, or None when there is none. Small frames are copied, large ones lent."""
        self.pending = True
        receive = self.socket.recv
        frames: list[Frame] = []
        try:
            more = True
            while more:
                frame = receive(_NOBLOCK, False)
                frames.append(frame.bytes if len(frame) < LARGE else frame.buffer)
                more = frame.more
        except zmq.Again:
            return None
        return frames

    def send(self, frames: Sequence[Frame]) -> bool:
        """Whether the message was taken. A ROUTER drops what is for a client that is gone."""
        self.pending = True
        send = self.socket.send
        last = len(frames) - 1
        try:
            for place, frame in enumerate(frames):
                send(frame, _NOBLOCK if place == last else _NOBLOCK_MORE, len(frame) < LARGE)
        except zmq.Again:
            return False
        return True


class BackChannel:
    """A connection to the confined kernel. ``pending``: something may have been read that is not received yet."""

    def __init__(self, connected: socket.socket, socket_type: str, identity: bytes, limit: int) -> None:
        """Owns ``connected``. ``identity``: by which a ROUTER of the kernel's knows this side, in all channels."""
        connected.setblocking(False)
        self._socket = connected
        self._decoder = zmtp.Decoder(limit)
        self._handshake: bytes | None = zmtp.ready(socket_type, identity)
        self._queue: deque[memoryview] = deque()  # only the user's own requests wait here
        self._unsent = deque([memoryview(zmtp.GREETING)])
        self.pending = True
        self.ended = False
        if socket_type == "SUB":
            self.send([zmtp.SUBSCRIBE_TO_ALL])

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    @property
    def wants_to_send(self) -> bool:
        return bool(self._unsent)

    def has_input(self) -> bool:
        """Whether ``receive`` may give a message; reads when there is nothing left of what was read."""
        self.pending = not self.ended and (self._decoder.has_more or self._read())
        return self.pending

    def receive(self) -> list[Frame] | None:
        """One message, or None where it has not come whole yet. What is no ZMTP ends the connection."""
        try:
            for _ in range(CHUNKS):
                message = self._decoder.take()
                if self._handshake is not None:
                    self._shake_hands()
                if message is not None:
                    self.pending = self._decoder.has_more
                    return message
                if not self._read():
                    break
        except zmtp.ProtocolError:
            self.ended = True
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
        self.pending = False
        return None

    def _read(self) -> bool:
        if self.ended:
            return False
        try:
            data = self._socket.recv(CHUNK)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        self.ended = not data
        self._decoder.feed(data)
        return bool(data)

    def _shake_hands(self) -> None:
        """libzmq takes a message for a command until both sides have said READY."""
        if self._handshake and self._decoder.has_greeted:
            self._unsent.append(memoryview(self._handshake))
            self._handshake = b""
        if self._decoder.is_ready:
            self._handshake = None
            self._unsent += self._queue
            self._queue.clear()
        self.flush()

    def send(self, frames: Sequence[Frame]) -> None:
        """Never waits; what the kernel does not read yet is kept."""
        (self._queue if self._handshake is not None else self._unsent).extend(map(memoryview, zmtp.encode(frames)))
        self.flush()

    def flush(self) -> None:
        """Sends what there is room for. What is for a kernel that is gone is dropped."""
        while self._unsent:
            try:
                sent = self._socket.send(self._unsent[0])
            except BlockingIOError:
                return
            except OSError:
                self._unsent.clear()
                return
            rest = self._unsent.popleft()[sent:]
            if rest:
                self._unsent.appendleft(rest)


Source = Channel | BackChannel | int


class Waiting:
    """For channels and other descriptors that have something to receive.

    As zmq_poll(3), which asks libzmq about every socket before and after it waits, with two system calls each: of a
    relay with ten sockets that was a fifth of the work. The descriptor of a ZeroMQ socket (ZMQ_FD, zmq_getsockopt(3))
    is readable when something may have changed since libzmq last looked, and libzmq looks whenever a socket is used. So
    it is asked about those that were used, and the others have their descriptors.
    """

    def __init__(self, sources: Iterable[Source]) -> None:
        self._epoll = select.epoll()
        self._sources: dict[int, Source] = {}
        self._events: dict[int, int] = {}  # of back channels: what is waited for
        for source in sources:
            descriptor = source if isinstance(source, int) else source.fileno()
            self._sources[descriptor] = source
            self._epoll.register(descriptor, select.EPOLLIN)
        self._channels = [source for source in self._sources.values() if not isinstance(source, int)]
        self._backs = [
            (descriptor, each) for descriptor, each in self._sources.items() if isinstance(each, BackChannel)
        ]

    def ready(self, timeout: float | None, without: Channel | BackChannel | None = None) -> set[Source]:
        """After at most ``timeout`` seconds; None: any time. A channel may turn out to have nothing after all."""
        found: set[Source] = {
            each for each in self._channels if each is not without and each.pending and each.has_input()
        }
        self._set_events(without)
        for descriptor, events in self._epoll.poll(0 if found else timeout, len(self._sources)):
            source = self._sources[descriptor]
            if isinstance(source, BackChannel) and events & select.EPOLLOUT:
                source.flush()
            if source is without:
                without.has_input()  # else the descriptor of a ZeroMQ socket stays readable
            elif events & ~select.EPOLLOUT:
                found.add(source)
        return found

    def _set_events(self, without: object) -> None:
        for descriptor, channel in self._backs:
            wanted = 0 if channel is without else select.EPOLLIN
            wanted |= select.EPOLLOUT if channel.wants_to_send else 0
            if channel.ended:
                if self._events.get(descriptor) != -1:
                    self._epoll.unregister(descriptor)  # it stays readable
                    self._events[descriptor] = -1
            elif self._events.get(descriptor, select.EPOLLIN) != wanted:
                self._epoll.modify(descriptor, wanted)
                self._events[descriptor] = wanted

    def forget(self, descriptor: int) -> None:
        """One of the sources that are no channels; it is not waited for any more."""
        del self._sources[descriptor]
        self._epoll.unregister(descriptor)

    def close(self) -> None:
        self._epoll.close()


def bind_front(context: zmq.Context[Socket], front: FrontConnection) -> tuple[dict[str, Channel], FrontConnection]:
    """The five bound sockets by channel, and the connection with the ports in use. Raises HostError."""
    channels: dict[str, Channel] = {}
    ports: dict[str, int] = {}
    for channel in CHANNELS:
        bound = context.socket(_FRONT_TYPES[channel])
        channels[channel] = Channel(bound)
        bound.linger = FRONT_LINGER
        if channel == "iopub":
            # Every subscriber gets a welcome; without it only the first of each topic is reported.
            bound.setsockopt(zmq.XPUB_VERBOSE, 1)
        else:
            bound.setsockopt(zmq.ROUTER_HANDOVER, 1)  # a client that reconnects keeps its identity
        if front.curve is not None:
            bound.curve_publickey, bound.curve_secretkey = front.curve
            bound.curve_server = True
        try:
            bound.bind(front.endpoint(channel))
        except zmq.ZMQError as error:
            # The manager chose the port by bind and close, so somebody may have it by now: it tries again with others.
            raise HostError(f"{front.file}: {channel} cannot listen on {front.endpoint(channel)} ({error}).") from error
        ports[channel] = front.ports[channel] or _port_of(bound)
    if ports != front.ports:
        front = rewrite_ports(front, ports)
    return channels, front


def _port_of(bound: Socket) -> int:
    endpoint = bound.getsockopt(zmq.LAST_ENDPOINT)
    return int(bytes(endpoint).rpartition(b":")[2]) if isinstance(endpoint, bytes) else 0


class Back:
    """Connections to the listeners that the confined kernel inherits; the paths are gone when this returns.

    They stand in the listeners' backlog before the kernel runs, and are made once: no later file at such a path is ever
    spoken to. Raises HostError.
    """

    def __init__(self, back: BackConnection) -> None:
        self.channels: dict[str, BackChannel] = {}
        identity = os.urandom(8).hex().encode()
        for channel in BACK_CHANNELS:
            connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                connected.connect(back.path(channel))
            except OSError as error:
                connected.close()
                raise HostError(f"{back.path(channel)}: no connection to our own socket ({error.strerror}).") from error
            # One identity: an input_request goes to the shell request's sender, over stdin (kernelbase.py).
            kind = ("SUB", b"") if channel == "iopub" else ("DEALER", identity)
            self.channels[channel] = BackChannel(connected, *kind, MAX_BACK_MESSAGE[channel])
        back.unlink_sockets()
        back.close_listeners()

    def ended(self) -> bool:
        """Whether the kernel closed every connection, and all it said before was read."""
        return all(channel.ended for channel in self.channels.values())

    def close(self) -> None:
        for channel in self.channels.values():
            channel.close()


class Outlet:
    """The front's iopub. What the kernel says is dropped for a client that has no room for it, as by ipykernel itself;
    what the supervisor says is not, unless the client is stuck.

    An XPUB drops what a slow subscriber has no room for (HWM, zmq_socket(3)). With ``XPUB_NODROP`` it says EAGAIN
    instead: our own messages are sent that way, and while one waits the relay reads nothing from the kernel, so that
    a flood of output cannot take the room that becomes free. After ``PATIENCE`` the client counts as stuck: for a
    while it loses our messages too (only it does), and the others go on.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._waiting: deque[Sequence[Frame]] = deque()
        self._since = 0.0  # the oldest of them has waited since then
        self._lossy_until = 0.0

    @property
    def blocked(self) -> bool:
        return bool(self._waiting)

    def send_output(self, frames: Sequence[Frame]) -> None:
        """What the kernel said; behind what waits, so that the end of a cell does not overtake its notices."""
        if self._waiting:
            self._waiting.append(frames)
        else:
            self._channel.send(frames)

    def send_own(self, frames: Sequence[Frame], now: float) -> None:
        if not self._waiting:
            self._since = now
        self._waiting.append(frames)
        self.flush(now)

    def flush(self, now: float) -> None:
        """Sends what waits, as far as there is room or patience has an end."""
        if self._waiting and now - self._since > PATIENCE:
            self._lossy_until = now + STUCK
        if now >= self._lossy_until:
            self._channel.socket.setsockopt(zmq.XPUB_NODROP, 1)
        while self._waiting and self._channel.send(self._waiting[0]):
            self._waiting.popleft()
            self._since = now
        self._channel.socket.setsockopt(zmq.XPUB_NODROP, 0)
