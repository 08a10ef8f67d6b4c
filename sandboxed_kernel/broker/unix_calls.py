"""Does: connect(2), bind(2) and listen(2) of unix sockets; ``unix_sockets`` knows whose a socket is."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from sandboxed_kernel.broker.calls import Address, Call, UnixAbstract, UnixPath, UnixUnnamed, as_int
from sandboxed_kernel.broker.connecting import Connecting, yes
from sandboxed_kernel.broker.decisions import Refuse, unknowable
from sandboxed_kernel.broker.loop import Loop
from sandboxed_kernel.broker.outcomes import Answer, Later, Outcome, Refusal, Resume
from sandboxed_kernel.broker.sockets import MayWait, Reference, Sockets
from sandboxed_kernel.broker.unix_sockets import UnixSockets, is_silent
from sandboxed_kernel.linux.diag import SocketDiag
from sandboxed_kernel.linux.sockets import peer_process
from sandboxed_kernel.policy.explain import unix_line

_BINDINGS_TAKE = 0.25  # seconds at most that a refusal waits for paths that are being bound


class UnixCalls:
    def __init__(
        self,
        may_wait: MayWait,
        sockets: Sockets,
        connecting: Connecting,
        unix: UnixSockets,
        diag: SocketDiag,
        loop: Loop,
    ) -> None:
        self._may_wait, self._sockets, self._connecting, self._loop = may_wait, sockets, connecting, loop
        self._unix, self._diag = unix, diag
        self._binding: dict[int, tuple[int, Resume]] = {}  # paths being bound, by the socket's inode: (thread, resume)
        self._waiting_for_bindings: list[tuple[set[int], Resume]] = []  # (bindings to wait for, what to do then)
        self._own_pid = os.getpid()

    def connect(self, call: Call, reference: Reference, address: Address) -> Outcome:
        connecting, unix = self._connecting, self._unix
        if isinstance(address, UnixAbstract):
            if unix.owns_abstract(address):
                name = "\0" + os.fsdecode(address.name[1:])
                return connecting.connect_unix(call, reference, name, self._listener_is_own(reference))
            shown = "@" + address.name[1:].decode(errors="replace")
            refusal = self._not_ours(errno.ECONNREFUSED, "this abstract socket was not bound inside the sandbox")
            return Refusal(refusal, "connect", shown, protocol="unix", inode=reference.inode)
        if not isinstance(address, UnixPath):
            return Answer(error=errno.EINVAL)
        if is_silent(address.path) and not unix.names(address.path):
            return Answer(error=errno.ENOENT)
        found, verdict, is_own = unix.open_path(call.tid, address)
        with found:
            if verdict is None:
                is_right = self._listener_is_own(reference) if is_own else yes
                return connecting.connect_unix(call, reference, found.path, is_right)
        if verdict.reason is None:
            return Answer(error=verdict.error)
        if self._binding and not call.waited:  # one of them may have made this path, and is known in a moment
            call.waited = True
            return Later(self._wait_for_bindings)
        shown = address.path.decode(errors="replace")
        refusal = self._not_ours(verdict.error, verdict.reason)
        line = lambda: unix_line(shown)  # noqa: E731
        return Refusal(refusal, "connect", shown, protocol="unix", allow_line=line, inode=reference.inode)

    def _wait_for_bindings(self, resume: Resume) -> None:
        """For those that are under way, but not for ever: a path can be made to take its time."""
        waiting = (set(self._binding), resume)
        self._waiting_for_bindings.append(waiting)

        def give_up() -> None:
            if waiting in self._waiting_for_bindings:
                self._waiting_for_bindings.remove(waiting)
                resume(None)

        self._loop.call_later(_BINDINGS_TAKE, give_up)

    def _not_ours(self, error: int, reason: str) -> Refuse:
        return unknowable(error, "unix_diag") if self._diag.lacks("unix_diag") else Refuse(error, reason)

    def _listener_is_own(self, reference: Reference) -> Callable[[], bool]:
        """Asked once connected: a socket of this sandbox listens because the broker called listen(2) for it."""
        return lambda: peer_process(reference.sock) == self._own_pid

    def bind(self, call: Call, reference: Reference, address: Address) -> Outcome:
        inode = reference.inode
        if isinstance(address, UnixPath):
            waiting = self._binding.get(inode)
            if waiting is None:
                self._unix.bind_path(call.tid, reference, address.path, lambda error: self._bound_path(error, inode))
            elif waiting[0] != call.tid:  # comes too late; the repeat of an interrupted call joins
                return Answer(error=errno.EINVAL)
            return Later(lambda resume: self._binding.update({inode: (call.tid, resume)}))
        if isinstance(address, UnixAbstract | UnixUnnamed):
            name = address.name if isinstance(address, UnixAbstract) else b""
            return Answer(error=self._unix.bind_abstract(reference, name), inode=inode)
        return Answer(error=errno.EINVAL)

    def _bound_path(self, error: int, inode: int) -> None:
        _, resume = self._binding.pop(inode)
        resume(Answer(error=error, inode=inode))
        waiting, self._waiting_for_bindings = self._waiting_for_bindings, []
        for bindings, look_again in waiting:
            bindings.discard(inode)
            if bindings:
                self._waiting_for_bindings.append((bindings, look_again))
            else:
                look_again(None)

    def listen(self, call: Call, reference: Reference) -> Answer:
        if reference.busy:
            return Answer(error=errno.EINVAL)
        self._may_wait(reference.sock.listen, max(0, as_int(call.args[1])))
        return Answer(inode=reference.inode, after=self._sockets.forget(reference))

    def listens_already(self, inode: int) -> bool:
        found = self._diag.unix_socket(inode)
        return found is not None and found.listening
