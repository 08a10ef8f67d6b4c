"""Does: answers DNS questions from the pins, over datagrams and over TCP; for a refused name nothing goes upstream."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress

from sandboxed_kernel.broker.loop import ERR, HUP, IN, OUT, Loop
from sandboxed_kernel.broker.names import Names
from sandboxed_kernel.hostnames.answers import answer
from sandboxed_kernel.linux.sockets import show_token

_MAX_STREAMS = 256
_MAX_EARLY = 64
_EARLY = 1.0  # seconds
_LENGTH = struct.Struct("!H")  # before each message over TCP, RFC 1035 section 4.2.2

TellName = Callable[[str, int, Callable[[], None], Callable[[], None]], None]


class Questions:
    def __init__(self, names: Names, own_hostname: str, search: tuple[str, ...], tell_name: TellName) -> None:
        """``tell_name(name, pid, then, again)`` reports a refused name, then calls ``then``; where the rules have
        changed it calls ``again``.
        """
        self._names, self._own, self._search, self._tell_name = names, own_hostname, search, tell_name

    def ask(self, question: bytes, pid: int, reply: Callable[[bytes], None], *, over_tcp: bool) -> None:
        """``reply`` gets the answer, now or once the name is resolved; never for bytes that deserve none."""
        self._ask(question, pid, reply, over_tcp, may_ask_upstream=True)

    def _ask(
        self, question: bytes, pid: int, reply: Callable[[bytes], None], over_tcp: bool, *, may_ask_upstream: bool
    ) -> None:
        found = answer(
            question,
            self._names.pins,
            own_hostname=self._own,
            search_domains=self._search,
            now=time.monotonic(),
            over_tcp=over_tcp,
        )
        if found.ask_upstream is not None:
            if may_ask_upstream:
                self._names.ask(
                    found.ask_upstream, lambda: self._ask(question, pid, reply, over_tcp, may_ask_upstream=False)
                )
            return
        answered = found.reply
        if answered is None:
            return
        if found.refused_name is not None:
            again = lambda: self._ask(question, pid, reply, over_tcp, may_ask_upstream=True)  # noqa: E731
            self._tell_name(found.refused_name, pid, lambda: reply(answered), again)
        else:
            reply(answered)


class _Stream:
    __slots__ = ("incoming", "outgoing", "pid", "sock")

    def __init__(self, sock: socket.socket, pid: int) -> None:
        self.sock, self.pid = sock, pid
        self.incoming, self.outgoing = b"", b""


class QuestionStreams:
    """What a TCP connection to port 53 of any server reaches: a listener of the broker's, for the sandbox only."""

    def __init__(self, loop: Loop, questions: Questions) -> None:
        self._loop, self._questions = loop, questions
        self._listener: socket.socket | None = None
        self._expected: dict[tuple[str, int], int] = {}  # the caller's own address and port -> its process
        self._early: dict[tuple[str, int], socket.socket] = {}  # accepted before the thread that connected said whose
        self._open = 0

    def address(self) -> tuple[str, int]:
        """Where to connect the caller's socket. Raises OSError."""
        if self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
            show_token(self._listener, 4)
            self._listener.setblocking(False)
            listener = self._listener
            self._loop.watch(listener.fileno(), IN, lambda _events: self._accept(listener))
        host, port = self._listener.getsockname()
        return host, port

    def expect(self, host: str, port: int, pid: int) -> None:
        """Serve the connection from this address, which may have come already. Any other one is closed."""
        sock = self._early.pop((host, port), None)
        if sock is not None:
            self._serve(sock, pid)
        else:
            self._expected[host, port] = pid

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            sock, peer = listener.accept()
            sock.setblocking(False)
            pid = self._expected.pop(peer, None)
            if pid is not None:
                self._serve(sock, pid)
            elif len(self._early) < _MAX_EARLY and peer not in self._early:
                self._early[peer] = sock
                self._loop.call_later(_EARLY, lambda: self._close_early(peer, sock))
            else:
                sock.close()

    def _close_early(self, peer: tuple[str, int], sock: socket.socket) -> None:
        """Nobody expected it: somebody outside has found the port."""
        if self._early.get(peer) is sock:
            del self._early[peer]
            sock.close()

    def _serve(self, sock: socket.socket, pid: int) -> None:
        if self._open >= _MAX_STREAMS:
            sock.close()
            return
        stream = _Stream(sock, pid)
        self._open += 1
        self._loop.watch(sock.fileno(), IN, lambda events: self._ready(stream, events))

    def _close(self, stream: _Stream) -> None:
        if stream.sock.fileno() >= 0:
            self._loop.unwatch(stream.sock.fileno())
            stream.sock.close()
            self._open -= 1

    def _ready(self, stream: _Stream, events: int) -> None:
        if events & OUT:
            self._flush(stream)
        if not events & (IN | HUP | ERR):
            return
        try:
            data = stream.sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close(stream)
            return
        stream.incoming += data
        while len(stream.incoming) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(stream.incoming)
            end = _LENGTH.size + length
            if len(stream.incoming) < end:
                break
            question, stream.incoming = stream.incoming[_LENGTH.size : end], stream.incoming[end:]
            self._questions.ask(question, stream.pid, lambda reply: self._reply(stream, reply), over_tcp=True)

    def _reply(self, stream: _Stream, reply: bytes) -> None:
        if stream.sock.fileno() < 0:
            return
        stream.outgoing += _LENGTH.pack(len(reply)) + reply
        self._flush(stream)

    def _flush(self, stream: _Stream) -> None:
        try:
            sent = stream.sock.send(stream.outgoing)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._close(stream)
            return
        stream.outgoing = stream.outgoing[sent:]
        if len(stream.outgoing) > 1 << 20:  # a caller that asks and never reads
            self._close(stream)
            return
        self._loop.rewatch(stream.sock.fileno(), IN | (OUT if stream.outgoing else 0))
