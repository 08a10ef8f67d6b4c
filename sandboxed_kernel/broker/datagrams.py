"""Does: the far ends of what the sandbox believes to be UDP sockets.

Inside there is no inet datagram socket: what socket(2) hands in is one end of an AF_UNIX SOCK_SEQPACKET pair, and this
file holds the other. Such a pair ignores a destination given with each message, so that sendmsg(2) and sendmmsg(2) can
stay unobserved; what arrives here is a DNS question, a datagram for an allowed destination, or goes nowhere.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from contextlib import suppress

from sandboxed_kernel.broker import decisions, descriptors
from sandboxed_kernel.broker.decisions import CreatePair, IpAddress
from sandboxed_kernel.broker.loop import HUP, IN, Loop
from sandboxed_kernel.broker.questions import Questions
from sandboxed_kernel.linux.descriptor import is_ready

MAX_DATAGRAM = 65535
_MAX_PAIRS = 8192  # of one sandbox, with their sides; bounds the broker's memory
_MAX_SIDES = 64  # destinations that one unconnected socket may send to


class Pair:
    """The far end. ``mode``: what arriving messages mean ("dns", "relay": datagrams for ``connected``, "cut": that was
    allowed before, "": nothing).

    ``may_sort``: see ``decisions.may_sort``. ``polls``: it was non-blocking at its last connect. ``named``: the address
    it was last connected to for names. ``asked`` any question; ``answered``: the last one that has its answer.
    """

    __slots__ = (
        "answered", "asked", "connected", "family", "inode", "may_sort", "mode", "named", "near", "ours", "polls",
        "told", "udp",
    )  # fmt: skip

    def __init__(self, family: int, *, may_sort: bool) -> None:
        kind = socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC
        self.ours, self.near = socket.socketpair(socket.AF_UNIX, kind)
        self.ours.setblocking(False)
        self.inode = os.fstat(self.near.fileno()).st_ino
        self.family, self.may_sort = family, may_sort
        self.polls = False
        self.mode = ""
        self.named: IpAddress | None = None
        self.udp: dict[tuple[IpAddress, int], socket.socket] = {}
        self.connected: tuple[IpAddress, int] | None = None
        self.asked = self.told = False
        self.answered = b""


class Datagrams:
    def __init__(
        self,
        loop: Loop,
        questions: Questions,
        lost: Callable[[int], None],
        unheard: Callable[[int, IpAddress], None],
        cut: Callable[[int, IpAddress, int], None],
        refresh_soon: Callable[[], None],
    ) -> None:
        """``lost(pid)`` is told of a message whose destination nobody can see, ``unheard(pid, server)`` of a resolver
        that takes no answers here, ``cut(pid, address, port)`` of a message that is not allowed any more.
        ``refresh_soon``: see ``Rules``.
        """
        self._tell_cut, self._refresh_soon = cut, refresh_soon
        self._loop, self._questions, self._lost, self._unheard = loop, questions, lost, unheard
        self._pairs: dict[int, Pair] = {}  # by the inode of the end that the sandbox has
        self._quota = min(_MAX_PAIRS, descriptors.share())
        self._sides = 0  # of all pairs; each is a descriptor
        self._owners: dict[int, int] = {}  # that inode -> the process that made it

    def find(self, inode: int) -> Pair | None:
        return self._pairs.get(inode)

    def create(self, wanted: CreatePair) -> Pair:
        """Raises OSError(EMFILE) over the quota."""
        if len(self._pairs) + self._sides >= self._quota:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        pair = Pair(wanted.family, may_sort=decisions.may_sort(wanted))
        if wanted.non_blocking:
            pair.near.setblocking(False)
        return pair

    def keep(self, pair: Pair, pid: int) -> None:
        """From now on it is found, and its messages are served."""
        self._pairs[pair.inode] = pair
        self._owners[pair.inode] = pid
        self._loop.watch(pair.ours.fileno(), IN, lambda events: self._readable(pair, events))

    def discard(self, pair: Pair) -> None:
        """Nobody took the near end."""
        pair.near.close()
        self._close(pair)

    def _close(self, pair: Pair) -> None:
        if self._pairs.get(pair.inode) is not pair:
            return
        self._loop.unwatch(pair.ours.fileno())
        pair.ours.close()
        if decisions.gave_up(polls=pair.polls, connected=pair.mode == "dns", asked=pair.asked):
            self._tell_unheard(pair, pair.named)
        for sock in pair.udp.values():
            self._loop.unwatch(sock.fileno())
            sock.close()
        self._sides -= len(pair.udp)
        del self._pairs[pair.inode]
        self._owners.pop(pair.inode, None)

    # --- what the sandbox asks for ---------------------------------------------------------------------------------

    def connect_names(self, pair: Pair, address: IpAddress) -> None:
        pair.mode, pair.named = "dns", address

    def connect_relay(self, pair: Pair, address: IpAddress, port: int) -> int:
        """An errno, 0 for done: messages go to this address from now on."""
        try:
            self._side(pair, address, port)
        except OSError as error:
            return error.errno or errno.EIO
        pair.mode, pair.connected = "relay", (address, port)
        return 0

    def disconnect(self, pair: Pair) -> None:
        pair.mode, pair.connected, pair.named = "", None, None

    def send_names(self, pair: Pair, address: IpAddress, data: bytes) -> None:
        if decisions.asks_again(data, pair.answered):
            self._tell_unheard(pair, address)
        self._question(pair, data)

    def _tell_unheard(self, pair: Pair, address: IpAddress | None) -> None:
        if address is not None and not pair.told:
            pair.told = True
            self._unheard(self._owners.get(pair.inode, 0), address)

    def send_relay(self, pair: Pair, address: IpAddress, port: int, data: bytes) -> int:
        """An errno, 0 for sent."""
        try:
            self._side(pair, address, port).send(data)
        except OSError as error:
            return error.errno or errno.EIO
        return 0

    def _side(self, pair: Pair, address: IpAddress, port: int) -> socket.socket:
        """The broker's real UDP socket for this destination. Raises OSError."""
        known = pair.udp.get((address, port))
        if known is not None:
            return known
        if len(pair.udp) >= _MAX_SIDES or len(self._pairs) + self._sides >= self._quota:
            raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            sock.connect((str(address), port))
        except OSError:
            sock.close()
            raise
        pair.udp[address, port] = sock
        self._sides += 1
        self._loop.watch(sock.fileno(), IN, lambda _events: self._from_network(pair, sock))
        return sock

    def destinations(self) -> set[tuple[IpAddress, int]]:
        """Where datagrams go now, of whatever socket."""
        pairs = self._pairs.values()
        return {where for pair in pairs for where in pair.udp} | {pair.connected for pair in pairs if pair.connected}

    def cut_off(self, address: IpAddress, port: int) -> None:
        """No datagram goes there or comes from there any more."""
        for pair in self._pairs.values():
            side = pair.udp.pop((address, port), None)
            if side is not None:
                self._loop.unwatch(side.fileno())
                side.close()
                self._sides -= 1
            if pair.mode == "relay" and pair.connected == (address, port):
                pair.mode, pair.told = "cut", False

    # --- what arrives ----------------------------------------------------------------------------------------------

    def _readable(self, pair: Pair, events: int) -> None:
        try:
            data = pair.ours.recv(MAX_DATAGRAM)
        except BlockingIOError:  # the event was of another one, which had this descriptor before
            return
        except OSError:
            self._close(pair)
            return
        if not data:  # the end, or a message without content
            if events & HUP and is_ready(pair.ours.fileno()):
                self._close(pair)
            return
        if pair.mode == "dns":
            self._question(pair, data)
        elif pair.mode == "relay" and pair.connected is not None:
            self._refresh_soon()
            with suppress(OSError):  # as on a network: a datagram may be lost
                self._side(pair, *pair.connected).send(data)
        elif pair.mode == "cut" and pair.connected is not None:
            if not pair.told:
                pair.told = True
                self._tell_cut(self._owners.get(pair.inode, 0), *pair.connected)
            self._refresh_soon()
        elif not pair.told and pair.family != socket.AF_UNIX:
            pair.told = True
            self._lost(self._owners.get(pair.inode, 0))

    def _question(self, pair: Pair, data: bytes) -> None:
        pid, pair.asked = self._owners.get(pair.inode, 0), True

        def reply(answer: bytes) -> None:
            pair.answered = data
            self._to_sandbox(pair, answer)

        self._questions.ask(data, pid, reply, over_tcp=False)

    def _to_sandbox(self, pair: Pair, data: bytes) -> None:
        with suppress(OSError):  # full, or closed meanwhile: lost, as on a network
            pair.ours.send(data)

    def _from_network(self, pair: Pair, sock: socket.socket) -> None:
        try:
            data = sock.recv(MAX_DATAGRAM)
        except BlockingIOError:
            return
        except OSError:
            return  # an ICMP error for an earlier datagram: it has been read away
        self._to_sandbox(pair, data)
