"""Does: connect(2), bind(2) and listen(2) of unix sockets; ``unix_sockets`` knows whose a socket is."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from sandboxed_kernel.broker.calls import Address, UnixAbstract, UnixPath, UnixUnnamed, as_int
from sandboxed_kernel.broker.connecting import Connecting, path_of, yes
from sandboxed_kernel.broker.decisions import Refuse, unknowable
from sandboxed_kernel.broker.reactor import Reactor
from sandboxed_kernel.broker.replies import Replies
from sandboxed_kernel.broker.sockets import Reference, Sockets
from sandboxed_kernel.broker.telling import Telling
from sandboxed_kernel.broker.unix_sockets import UnixSockets, is_silent
from sandboxed_kernel.linux.diag import SocketDiag
from sandboxed_kernel.linux.seccomp import Notification
from sandboxed_kernel.linux.sockets import peer_process

_BINDINGS_TAKE = 0.25  # seconds at most that a refusal waits for paths that are being bound


class UnixCalls:
    def __init__(
        self,
        replies: Replies,
        sockets: Sockets,
        connecting: Connecting,
        unix: UnixSockets,
        diag: SocketDiag,
        telling: Telling,
        reactor: Reactor,
    ) -> None:
        self._replies, self._sockets, self._connecting, self._reactor = replies, sockets, connecting, reactor
        self._unix, self._diag, self._telling = unix, diag, telling
        self._binding: dict[int, Notification] = {}  # paths being bound, by the socket's inode
        self._knocking: list[tuple[set[int], Callable[[], None]]] = []  # (bindings to wait for, what to do then)
        self._own_pid = os.getpid()

    def connect(
        self, call: Notification, reference: Reference, address: Address, again: Callable[[Notification], None]
    ) -> None:
        """``again(call)`` looks at the call anew."""
        connecting, unix = self._connecting, self._unix
        if connecting.join(call, reference):
            return
        if isinstance(address, UnixAbstract):
            if unix.owns_abstract(address):
                name = "\0" + os.fsdecode(address.name[1:])
                connecting.connect_unix(call, reference, name, self._listener_is_own(reference))
            else:
                shown = "@" + address.name[1:].decode(errors="replace")
                refusal = self._not_ours(errno.ECONNREFUSED, "this abstract socket was not bound inside the sandbox")
                self._telling.refuse(call, refusal, "connect", shown, protocol="unix", inode=reference.inode)
            return
        if not isinstance(address, UnixPath):
            self._replies.answer(call, error=errno.EINVAL)
            return
        if is_silent(address.path) and not unix.names(address.path):
            self._replies.answer(call, error=errno.ENOENT)
            return
        try:
            found, is_own = unix.open_path(call.tid, address)
        except PermissionError:
            if self._binding and not call.waited:  # one of them may have made this path, and is known in a moment
                call.waited = True
                self._wait_for_bindings(lambda: again(call))
                return
            refusal = self._not_ours(errno.EACCES, "this socket was not bound inside the sandbox")
            shown = address.path.decode(errors="replace")
            self._telling.refuse(call, refusal, "connect", shown, protocol="unix", inode=reference.inode)
            return
        try:
            is_right = self._listener_is_own(reference) if is_own else yes
            connecting.connect_unix(call, reference, path_of(found), is_right)
        finally:
            os.close(found)

    def _wait_for_bindings(self, look_again: Callable[[], None]) -> None:
        """For those that are under way, but not for ever: a path can be made to take its time."""
        waiting = (set(self._binding), look_again)
        self._knocking.append(waiting)

        def give_up() -> None:
            if waiting in self._knocking:
                self._knocking.remove(waiting)
                look_again()

        self._reactor.call_later(_BINDINGS_TAKE, give_up)

    def _not_ours(self, error: int, reason: str) -> Refuse:
        return unknowable(error, "unix_diag") if self._diag.lacks("unix_diag") else Refuse(error, reason)

    def _listener_is_own(self, reference: Reference) -> Callable[[], bool]:
        """Asked once connected: a socket of this sandbox listens because the broker called listen(2) for it."""
        return lambda: peer_process(reference.sock) == self._own_pid

    def bind(self, call: Notification, reference: Reference, address: Address) -> None:
        inode = reference.inode
        if isinstance(address, UnixPath):
            waiting = self._binding.get(inode)
            if waiting is not None:  # the repeat of an interrupted call joins it; another thread's bind comes too late
                if waiting.tid == call.tid:
                    self._binding[inode] = call
                else:
                    self._replies.answer(call, error=errno.EINVAL)
                return
            self._unix.bind_path(call.tid, reference, address.path, lambda error: self._bound_path(error, inode))
            self._binding[inode] = call
        elif isinstance(address, UnixAbstract | UnixUnnamed):
            name = address.name if isinstance(address, UnixAbstract) else b""
            error = self._unix.bind_abstract(reference, name)
            self._replies.answer(call, error=error, inode=inode)
        else:
            self._replies.answer(call, error=errno.EINVAL)

    def _bound_path(self, error: int, inode: int) -> None:
        self._replies.answer(self._binding.pop(inode), error=error, inode=inode)
        knocking, self._knocking = self._knocking, []
        for bindings, look_again in knocking:
            bindings.discard(inode)
            if bindings:
                self._knocking.append((bindings, look_again))
            else:
                look_again()

    def listen(self, call: Notification, reference: Reference) -> None:
        if reference.busy:
            self._replies.answer(call, error=errno.EINVAL)
            return
        reference.sock.listen(max(0, as_int(call.args[1])))
        self._replies.answer(call, inode=reference.inode)
        self._sockets.drop(reference)

    def listens_already(self, inode: int) -> bool:
        found = self._diag.unix_socket(inode)
        return found is not None and found.listening
