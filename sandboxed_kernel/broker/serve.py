"""Does: the broker's own life, from the fork to the end of the last descendant.

It lives in a session of its own, so that a signal to the launcher's group does not reach it. Its child, the warden,
ends everything inside, also without it. Then, or when the launcher is gone, the broker says its last words and ends.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from sandboxed_kernel.broker.aside import Aside, LogAside
from sandboxed_kernel.broker.loop import IN, OUT, Loop
from sandboxed_kernel.broker.orders import Child, Orders
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
_LAST_BYTES = 1.2  # seconds for the guard to pass on what everything inside had sent when it ended
_MAX_OUTPUT = 1 << 20  # bytes of the confined process's own output that are passed on to the launcher's log


def serve(orders: Orders, relay: socket.socket, born: Child | Exception, group: Group | None, *, fenced: bool) -> None:
    """Answer the calls of the confined process, end with it; or say why it was not ``born``.

    ``relay`` is this end of the channel. ``group`` is where it lives. ``fenced``: see ``processes.kill_descendants``.
    """
    if isinstance(born, Exception):
        _say_why_not(relay, born)
        orders.clean_up()
        return
    life = _Life(orders, relay, born, group, fenced)
    try:
        life.begin()
        life.loop.run()
    except SandboxError as error:
        _send_now(relay, channel.Failed(str(error), error.exit_code))
    finally:
        life.end()


def _say_why_not(relay: socket.socket, error: Exception) -> None:
    match error:
        case SandboxError():
            _send_now(relay, channel.Failed(str(error), error.exit_code))
        case OSError():
            words = f"the sandboxed process could not be started: {error}"
            _send_now(relay, channel.Failed(words, 71))  # EX_OSERR
        case _:
            raise error


def _send_now(relay: socket.socket, message: channel.FromBroker) -> None:
    with suppress(OSError):
        relay.settimeout(_PATIENCE)
        relay.send(channel.encode(message))


class _Life:
    def __init__(self, orders: Orders, relay: socket.socket, child: Child, group: Group | None, fenced: bool) -> None:
        """``child`` has been started already, and goes on while the broker gets ready to answer it."""
        self._orders = orders
        self._group = group
        self._limits: LimitWatch | None = None
        self._fenced = fenced
        self._relay = relay
        self._child = child
        self.loop = Loop()
        self._aside = Aside()
        self._reporter = Reporter(self, LogAside(orders.open_log(), self._aside), self.loop)
        self._status: int | None = None
        self._cause = ""
        self._passed_on = 0
        self._cell_began: Callable[[], None] = lambda: None
        self._last_bytes: Callable[[float], None] = lambda _seconds: None

    # --- begin -----------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        child = self._child
        _send_now(self._relay, channel.Started(child.pid))
        self._relay.setblocking(False)
        self._watch_signals()
        # First: a cell's beginning is said before the cell can make its first call, and is to be heard before it.
        self.loop.watch_first(self._relay.fileno(), IN, self._from_relay)
        self.loop.watch(child.status, IN, self._all_ended)
        if child.output is not None:
            output = child.output
            self.loop.watch(output, IN, lambda _events: self._pass_on(output))
        self._answer_calls(Listener(child.listener))

    def _answer_calls(self, listener: Listener) -> None:
        """The imports stand here because the confined process should not wait for them to be forked."""
        from sandboxed_kernel.broker.assembly import assemble
        from sandboxed_kernel.broker.limits import LimitWatch

        gc.enable()  # see __main__
        limits, warden = self._orders.policy.limits, self._child.warden
        told = (self._crossed, self._tell_limit)
        with self.loop.lock:
            workers, rules, tcp = assemble(self._orders, warden, listener, self.loop, self._reporter, self._lost)
            self._limits = LimitWatch(self.loop, workers, warden, limits, self._group, *told)
            self._limits.begin()
            self._cell_began = rules.cell_began
            self._last_bytes = tcp.finish

    def _watch_signals(self) -> None:
        readable, writable = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.signal(signal.SIGTERM, lambda _number, _frame: self.loop.stop())
        signal.set_wakeup_fd(writable, warn_on_full_buffer=False)

        def reap(_events: int) -> None:
            with suppress(BlockingIOError):
                os.read(readable, 4096)
            self._reap()

        self.loop.watch(readable, IN, reap)

    def _reap(self) -> None:
        """Helpers that have ended, and what a warden that was killed left to us."""
        for _ in range(_REAPED_AT_ONCE):
            try:
                if os.waitpid(-1, os.WNOHANG)[0] == 0:
                    return
            except ChildProcessError:
                return
        self.loop.call_later(0.0, self._reap)

    def _all_ended(self, _events: int) -> None:
        """The warden says so, or is gone itself, and then what it watched over was left to us: it ends now."""
        self._read_status()
        if self._limits is not None:
            self._limits.look_at_memory()  # Linux may have ended it, and said why in another place
        self.loop.stop()

    def _read_status(self) -> None:
        self._status = int(os.read(self._child.status, 16) or signal.SIGKILL)

    # --- the relay -------------------------------------------------------------------------------------------------

    def _from_relay(self, _events: int) -> None:
        self._reporter.drain()
        if not self._heard_all():  # the launcher is gone
            self.loop.stop()

    def hear(self) -> None:
        """For the reporter. The end of the launcher is left to ``_from_relay``."""
        self._heard_all()

    def _heard_all(self) -> bool:
        """False where there is nobody to hear any more."""
        while True:
            try:
                data = self._relay.recv(channel.MAX_BYTES)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not data:
                return False
            self._obey(channel.decode(data))

    def _obey(self, message: channel.FromBroker | channel.FromRelay) -> None:
        match message:
            case channel.Published(number):
                self._reporter.published(number)
            case channel.CellBegan(msg_id):
                self._reporter.cell_began(msg_id)
                self._cell_began()

    def send(self, data: bytes) -> bool:
        """For the reporter: False while the relay takes nothing; then try again when it can take more."""
        try:
            self._relay.send(data)
        except BlockingIOError:
            self.loop.rewatch(self._relay.fileno(), IN | OUT)
            return False
        except OSError:
            return True  # gone: the end is near, and there is nobody to tell
        self.loop.rewatch(self._relay.fileno(), IN)
        return True

    # --- output, limits --------------------------------------------------------------------------------------------

    def _pass_on(self, output: int) -> None:
        """What the confined process writes past Jupyter (a crash's last words) goes to the launcher's log, as text."""
        data = os.read(output, 65536)
        if not data:
            self.loop.unwatch(output)
            return
        if self._passed_on < _MAX_OUTPUT:
            self._passed_on += len(data)
            text = data.decode(errors="replace")
            text = "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)
            self._aside.do(lambda: _say(text))

    def _crossed(self, limit: str, words: str) -> None:
        """A limit of the policy: end everything, and say which."""
        self._cause = words
        self._tell_limit(limit, words)
        self.loop.stop()

    def _lost(self, words: str) -> None:
        """One of the trusted processes is gone: end everything, and say why."""
        self._cause = words
        self.loop.stop()

    def _tell_limit(self, limit: str, words: str) -> None:
        """The notice and the line in the audit log; ``limit`` is its name."""
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

    def end(self) -> None:
        """Nothing of the sandbox outlives this."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if self._group is not None:
            self._group.kill()  # all at once; the warden finds them one by one where Linux cannot fence signals
        if self._status is None:
            with suppress(OSError):
                os.kill(self._child.warden, signal.SIGTERM)
            if select.select([self._child.status], [], [], _PATIENCE)[0]:
                self._read_status()
        self._last_bytes(_LAST_BYTES)
        processes.kill_descendants(time.monotonic() + _PATIENCE, fenced=self._fenced)
        if self._group is not None:
            self._group.remove(time.monotonic() + _PATIENCE)
        self._reporter.flush(last=True)
        self._reporter.drain()
        if self._aside.lost:
            lost = (
                f"sandboxed-kernel: {self._aside.lost} lines could not be written in time, mostly of the audit log.\n"
            )
            self._aside.do(lambda: _say(lost))
        self._aside.finish(_PATIENCE)
        if self._status is not None:
            _send_now(self._relay, channel.Ended(self._status, self._cause))
        self._orders.clean_up()


def _say(text: str) -> None:
    with suppress(OSError):
        sys.stderr.write(text)
        sys.stderr.flush()
