"""Does: the broker's own life, from the fork to the end of the last descendant.

The broker is the parent of the confined process and the subreaper of everything that descends from it. It lives in a
session of its own, so that a signal to the launcher's group does not reach it, and ends everything when the launcher is
gone; the launcher does the same for it.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from sandboxed_kernel.broker import reactor as loop
from sandboxed_kernel.broker.orders import Child, Orders
from sandboxed_kernel.broker.reactor import Reactor
from sandboxed_kernel.broker.reporting import Reporter
from sandboxed_kernel.errors import SandboxError
from sandboxed_kernel.linux import processes
from sandboxed_kernel.linux.seccomp import Listener
from sandboxed_kernel.notices import channel
from sandboxed_kernel.notices.events import Event

if TYPE_CHECKING:
    from sandboxed_kernel.broker.limits import LimitWatch
    from sandboxed_kernel.linux.cgroups import Group

_REAPED_AT_ONCE = 64
_PATIENCE = 5.0  # seconds for the last messages and the last descendants
_MAX_OUTPUT = 1 << 20  # bytes of the confined process's own output that are passed on to the launcher's log


def serve(orders: Orders, relay: socket.socket, born: Child | Exception, group: Group | None, *, fenced: bool) -> None:
    """Answer the calls of the confined process, end with it; or say why it was not ``born``.

    ``relay`` is this end of the channel. ``group`` is where it lives. ``fenced``: see ``processes.kill_descendants``.
    """
    life = _Life(orders, relay, group, fenced)
    try:
        try:
            if isinstance(born, Exception):
                raise born
            life.begin(born)
        except SandboxError as error:
            life.fail(str(error), error.exit_code)
        except OSError as error:
            life.fail(f"the sandboxed process could not be started: {error}", 71)  # EX_OSERR
        else:
            life.reactor.run()
    finally:
        life.end()


class _Life:
    def __init__(self, orders: Orders, relay: socket.socket, group: Group | None, fenced: bool) -> None:
        self._orders = orders
        self._group = group
        self._limits: LimitWatch | None = None
        self._fenced = fenced
        self._relay = relay
        self.reactor = Reactor()
        self._reporter: Reporter | None = None
        self._child: Child | None = None
        self._status: int | None = None
        self._cause = ""
        self._passed_on = 0

    # --- begin -----------------------------------------------------------------------------------------------------

    def begin(self, child: Child) -> None:
        """``child`` has been started already, and goes on while the broker gets ready to answer it."""
        self._child = child
        self._send_now(channel.Started(child.pid))
        self._watch_children()
        # First: a cell's beginning is said before the cell can make its first call, and is to be heard before it.
        self.reactor.watch_first(self._relay.fileno(), loop.IN, self._from_relay)
        if child.output is not None:
            output = child.output
            self.reactor.watch(output, loop.IN, lambda _events: self._pass_on(output))
        self._answer_calls(Listener(child.listener))

    def _answer_calls(self, listener: Listener) -> None:
        """The imports stand here because the confined process should not wait for them to be forked."""
        from sandboxed_kernel.broker.assembly import assemble
        from sandboxed_kernel.broker.limits import LimitWatch

        self._relay.setblocking(False)
        self._reporter = Reporter(self, self._orders.open_log(), self.reactor)
        broker = assemble(self._orders, listener, self.reactor, self._reporter)
        self.reactor.watch(listener.fileno(), loop.IN, broker.receive)
        gc.enable()  # see __main__
        limits = self._orders.policy.limits
        self._limits = LimitWatch(self.reactor, limits, self._group, self._crossed, self._tell_limit)
        self._limits.begin()

    def _watch_children(self) -> None:
        readable, writable = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.signal(signal.SIGTERM, lambda _number, _frame: self.reactor.stop())
        signal.set_wakeup_fd(writable, warn_on_full_buffer=False)

        def reap(_events: int) -> None:
            with suppress(BlockingIOError):
                os.read(readable, 4096)
            self._reap()

        self.reactor.watch(readable, loop.IN, reap)
        self._reap()  # it may have ended before the handler stood

    def _reap(self) -> None:
        for _ in range(_REAPED_AT_ONCE):  # a fork bomb sends us its orphans without end
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if self._status is None and self._child is not None and pid == self._child.pid:
                self._status = status  # once: the number may be given again, to a descendant that ends with another
                if self._limits is not None:
                    self._limits.look_at_memory()  # Linux may have ended it, and said why in another place
                self.reactor.stop()
                return
        self.reactor.call_later(0.0, self._reap)

    # --- the relay -------------------------------------------------------------------------------------------------

    def _from_relay(self, _events: int) -> None:
        if self._reporter is not None:
            self._reporter.drain()
        while True:
            try:
                data = self._relay.recv(channel.MAX_BYTES)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:  # the launcher is gone
                self.reactor.stop()
                return
            self._obey(channel.decode(data))

    def _obey(self, message: channel.FromBroker | channel.FromRelay) -> None:
        match message:
            case channel.Published(number):
                if self._reporter is not None:
                    self._reporter.published(number)
            case channel.CellBegan(msg_id):
                if self._reporter is not None:
                    self._reporter.cell_began(msg_id)
            case channel.Signal(number):
                with suppress(ProcessLookupError, PermissionError):
                    if self._child is not None and self._status is None:
                        os.killpg(self._child.pid, number)
                if self._reporter is not None:
                    self._reporter.send(channel.Signalled())
            case channel.End():
                self.reactor.stop()

    def send(self, data: bytes) -> bool:
        """For the reporter: False while the relay takes nothing; then try again when it can take more."""
        try:
            self._relay.send(data)
        except BlockingIOError:
            self.reactor.rewatch(self._relay.fileno(), loop.IN | loop.OUT)
            return False
        except OSError:
            return True  # gone: the end is near, and there is nobody to tell
        self.reactor.rewatch(self._relay.fileno(), loop.IN)
        return True

    def _send_now(self, message: channel.FromBroker) -> None:
        with suppress(OSError):
            self._relay.settimeout(_PATIENCE)
            self._relay.send(channel.encode(message))

    # --- output, limits --------------------------------------------------------------------------------------------

    def _pass_on(self, output: int) -> None:
        """What the confined process writes past Jupyter (a crash's last words) goes to the launcher's log, as text."""
        data = os.read(output, 65536)
        if not data:
            self.reactor.unwatch(output)
            return
        if self._passed_on < _MAX_OUTPUT:
            self._passed_on += len(data)
            text = data.decode(errors="replace")
            text = "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)
            with suppress(OSError):
                sys.stderr.write(text)
                sys.stderr.flush()

    def _crossed(self, limit: str, words: str) -> None:
        """A limit of the policy: end everything, and say which."""
        self._cause = words
        self._tell_limit(limit, words)
        self.reactor.stop()

    def _tell_limit(self, limit: str, words: str) -> None:
        """The notice and the line in the audit log; ``limit`` is its name."""
        if self._reporter is not None and self._child is not None:
            self._reporter.tell(
                Event(
                    kind="limit",
                    verdict="refused",
                    reason=words,
                    protocol="limits",
                    when=time.time(),
                    pid=self._child.pid,
                    process="",
                    host=limit,
                )
            )

    # --- end -------------------------------------------------------------------------------------------------------

    def fail(self, message: str, exit_code: int) -> None:
        self._send_now(channel.Failed(message, exit_code))

    def end(self) -> None:
        """Nothing of the sandbox outlives this."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if self._group is not None:
            self._group.kill()  # all at once; what follows finds them one by one where Linux cannot fence signals
        if self._child is not None and self._status is None:
            self._status = _kill_and_wait(self._child.pid)
        processes.kill_descendants(time.monotonic() + _PATIENCE, fenced=self._fenced)
        if self._group is not None:
            self._group.remove(time.monotonic() + _PATIENCE)
        with suppress(OSError):
            self._relay.settimeout(_PATIENCE)
        if self._reporter is not None:
            self._reporter.flush()
            self._reporter.drain()
        if self._status is not None:
            self._send_now(channel.Ended(self._status, self._cause))
        self._orders.clean_up()


def _kill_and_wait(pid: int) -> int:
    with suppress(OSError):
        os.kill(pid, signal.SIGKILL)
    try:
        return os.waitpid(pid, 0)[1]
    except ChildProcessError:
        return int(signal.SIGKILL)
