"""Does: the ZeroMQ sockets of both sides. Bytes in, bytes out; what they mean is none of its business.

Options follow ipykernel 7 (kernelapp.py) where a client could tell the difference. Numbers in comments:
zmq_setsockopt(3).
"""

from __future__ import annotations

import os
import select
from collections import deque
from collections.abc import Iterable, Sequence

import zmq

from sandboxed_kernel.errors import HostError
from sandboxed_kernel.relay.connection import BACK_CHANNELS, CHANNELS, BackConnection, FrontConnection, rewrite_ports
from sandboxed_kernel.relay.messages import Frame

Socket = zmq.Socket[bytes]

LARGE = 65536  # bytes; from here on frames are handed over, not copied: one copy of a 100 MB message is enough
MAX_BACK_FRAME = 1 << 30  # bytes; a larger frame from the kernel costs it the connection
FRONT_LINGER = 300  # ms for the last words to a client
CONNECT = 5000  # ms to connect to a socket of our own; takes microseconds
PATIENCE = 0.3  # seconds that one slow client may hold up the others; the kernel keeps 1,000 messages meanwhile
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


class Waiting:
    """For channels and other descriptors that have something to receive.

    As zmq_poll(3), which asks libzmq about every socket before and after it waits, with two system calls each: of a
    relay with ten sockets that was a fifth of the work. The descriptor of a socket (ZMQ_FD, zmq_getsockopt(3)) is
    readable when something may have changed since libzmq last looked, and libzmq looks whenever a socket is used. So it
    is asked about those that were used, and the others have their descriptors.
    """

    def __init__(self, sources: Iterable[Channel | int]) -> None:
        self._epoll = select.epoll()
        self._sources: dict[int, Channel | int] = {}
        for source in sources:
            descriptor = source if isinstance(source, int) else source.socket.fileno()
            self._sources[descriptor] = source
            self._epoll.register(descriptor, select.EPOLLIN)
        self._channels = [source for source in self._sources.values() if isinstance(source, Channel)]

    def ready(self, timeout: float | None, without: Channel | None = None) -> set[Channel | int]:
        """After at most ``timeout`` seconds; None: any time. A channel may turn out to have nothing after all."""
        found: set[Channel | int] = {each for each in self._channels if each.pending and each.has_input()}
        found.discard(without)
        for descriptor, _ in self._epoll.poll(0 if found else timeout, len(self._sources)):
            source = self._sources[descriptor]
            if source is without:
                without.has_input()  # else its descriptor stays readable
            else:
                found.add(source)
        return found

    def close(self) -> None:
        self._epoll.close()


def bind_front(context: zmq.Context[Socket], front: FrontConnection) -> tuple[dict[str, Channel], FrontConnection]:
    """The five bound sockets by channel, and the connection with the ports in use. Raises HostError."""
    channels: dict[str, Channel] = {}
    ports: dict[str, int] = {}
    for channel in CHANNELS:
        socket = context.socket(_FRONT_TYPES[channel])
        channels[channel] = Channel(socket)
        socket.linger = FRONT_LINGER
        if channel == "iopub":
            # Every subscriber gets a welcome; without it only the first of each topic is reported.
            socket.setsockopt(zmq.XPUB_VERBOSE, 1)
        else:
            socket.setsockopt(zmq.ROUTER_HANDOVER, 1)  # a client that reconnects keeps its identity
        if front.curve is not None:
            socket.curve_publickey, socket.curve_secretkey = front.curve
            socket.curve_server = True
        try:
            socket.bind(front.endpoint(channel))
        except zmq.ZMQError as error:
            # The manager chose the port by bind and close, so somebody may have it by now: it tries again with others.
            raise HostError(f"{front.file}: {channel} cannot listen on {front.endpoint(channel)} ({error}).") from error
        ports[channel] = front.ports[channel] or _port_of(socket)
    if ports != front.ports:
        front = rewrite_ports(front, ports)
    return channels, front


def _port_of(socket: Socket) -> int:
    endpoint = socket.getsockopt(zmq.LAST_ENDPOINT)
    return int(bytes(endpoint).rpartition(b":")[2]) if isinstance(endpoint, bytes) else 0


class Back:
    """Sockets connected to the listeners that the confined kernel inherits; the paths are gone when this returns.

    The connection stands in the listener's backlog before the kernel runs. It is made once: no reconnection
    (``RECONNECT_IVL`` -1) means that no later file at that path is ever spoken to. Raises HostError.
    """

    def __init__(self, context: zmq.Context[Socket], back: BackConnection) -> None:
        self.channels: dict[str, Channel] = {}
        self._monitors: dict[str, zmq.Socket[bytes]] = {}
        identity = os.urandom(8).hex().encode()
        for channel in BACK_CHANNELS:
            socket = context.socket(zmq.SUB if channel == "iopub" else zmq.DEALER)
            self.channels[channel] = Channel(socket)
            self._monitors[channel] = socket.get_monitor_socket(zmq.EVENT_CONNECTED | zmq.EVENT_DISCONNECTED)
            _set_back_options(socket, channel, identity)
            socket.connect(f"ipc://{back.path(channel)}")
        # connect() only asks libzmq's own thread to connect. Were the paths gone before it does, it never would.
        for channel, monitor in self._monitors.items():
            if not monitor.poll(CONNECT):
                raise HostError(f"{back.path(channel)}: no connection to our own socket within {CONNECT} ms.")
            monitor.recv_multipart()
        back.unlink_sockets()
        back.close_listeners()

    def ended(self) -> bool:
        """Whether the kernel closed every connection, and all it said before can be received."""
        return all(monitor.poll(0) for monitor in self._monitors.values())

    def close(self) -> None:
        for name, channel in self.channels.items():
            channel.socket.disable_monitor()
            self._monitors[name].close(linger=0)
            channel.socket.close()


def _set_back_options(socket: Socket, channel: str, identity: bytes) -> None:
    socket.linger = 0
    socket.setsockopt(zmq.RECONNECT_IVL, -1)
    socket.setsockopt(zmq.HANDSHAKE_IVL, 0)  # the kernel answers when it has started, however long that takes
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_BACK_FRAME)
    if channel == "iopub":
        socket.setsockopt(zmq.SUBSCRIBE, b"")
    else:
        # One identity: an input_request goes to the shell request's sender, over stdin (kernelbase.py).
        socket.setsockopt(zmq.IDENTITY, identity)
        socket.setsockopt(zmq.SNDHWM, 0)  # only the user's own requests wait here


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
