"""Does: the third trusted process, the parent of everything inside: it passes signals on, and ends everything.

    launcher -> broker -> warden -> confined process

It is forked from the broker, imports nothing afterwards, and speaks with nobody inside, so nothing that the sandbox
does can hold it up. It waits for a pipe, a signal and its children. Launcher and broker can be killed at one instant,
with the broker stuck in Linux, and everything inside still ends.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from sandboxed_kernel.linux import processes

if TYPE_CHECKING:
    from sandboxed_kernel.linux.cgroups import Group

NAME = b"sandbox-warden"
_REAPED_AT_ONCE = 64
_PATIENCE = 5.0  # seconds; one of the two that lives on does the last work, and ends this process with it


class Wires(NamedTuple):
    """The warden's ends of its pipes.

    ``orders``: a byte is the number of a signal for the confined process's group, and the end of file means: end
    everything. Only the launcher has the writing end. ``done``: it gets each of these bytes back once the signal was
    sent, and at the end a NUL and how the confined process ended, in decimal digits, as from os.waitpid. Only the
    warden has this writing end, so its end of file says that nothing inside is left.
    """

    orders: int
    done: int


class Warden:
    """In the forked process. ``start`` is called in the process that is to be confined, and never returns."""

    def __init__(self, wires: Wires, status: int, group: Group | None) -> None:
        """``status`` is a pipe's writing end: the broker reads from it how the confined process ended, in the same way,
        once nothing inside is left.
        """
        self._wires, self._status, self._group = wires, status, group
        self._broker = os.getppid()
        self._kernel_status: int | None = None

    def live(self, start: Callable[[int], NoReturn], keep: tuple[int, ...], clean_up: Callable[[], None]) -> NoReturn:
        """Until nothing inside is left. ``start`` is called with this process's number.

        Of the descriptors ``keep`` stay open too, for ``clean_up``, which is called where neither launcher nor broker
        is left to do so.
        """
        try:
            self._run(start, keep)
            if self._is_alone():
                clean_up()
        except BaseException:  # noqa: BLE001  # a forked process must not run on into its parent's code
            import traceback

            traceback.print_exc()
        finally:
            os._exit(0)

    def _run(self, start: Callable[[int], NoReturn], keep: tuple[int, ...]) -> None:
        readable, writable = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, lambda _number, _frame: None)
        signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
        processes.signal_at_parents_end(signal.SIGTERM, self._broker)
        processes.become_subreaper()
        fenced = processes.fence_signals()
        own = os.getpid()
        self._kernel = os.fork()
        if self._kernel == 0:
            signal.set_wakeup_fd(-1)
            start(own)
        with suppress(PermissionError, ProcessLookupError):  # EACCES: it has done so itself and is past its exec
            os.setpgid(self._kernel, self._kernel)
        self._let_go({*keep, *self._wires, self._status, readable, writable})
        processes.rename(NAME)
        self._wait(readable)
        if self._group is not None:
            self._group.kill()
        processes.kill_descendants(None, fenced=fenced, reaped=self._note)
        status = signal.SIGKILL if self._kernel_status is None else self._kernel_status
        for descriptor, mark in ((self._status, b""), (self._wires.done, b"\0")):
            with suppress(OSError):
                os.write(descriptor, mark + b"%d" % status)

    @staticmethod
    def _let_go(kept: set[int]) -> None:
        """Close all other descriptors, and be nobody's standard input and output."""
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        for number in {0, 1, 2} - kept:  # a launcher that was started without them has other things there
            os.dup2(null, number)
        low = 3
        for number in sorted(kept):
            if low < number:  # os.closerange(3, 0) closes everything
                os.closerange(low, number)
            low = max(low, number + 1)
        processes.close_from(low)

    def _wait(self, readable: int) -> None:
        """Until everything is to end: the confined process has, or the launcher or the broker is gone or says so."""
        poll = select.poll()
        poll.register(self._wires.orders, select.POLLIN)
        poll.register(readable, select.POLLIN)
        more = True  # it may have ended before anything was waited for
        while True:
            ready = {descriptor for descriptor, _events in poll.poll(0 if more else None)}
            if readable in ready and signal.SIGTERM in os.read(readable, 4096):
                return
            if self._wires.orders in ready and not self._pass_on(os.read(self._wires.orders, 64)):
                return
            more = self._reap()
            if self._kernel_status is not None:
                return

    def _pass_on(self, numbers: bytes) -> bool:
        """Send signals to the confined process's group; False for the end of file."""
        for number in numbers:
            with suppress(OSError):
                os.killpg(self._kernel, number)
        with suppress(OSError):
            os.write(self._wires.done, numbers)
        return bool(numbers)

    def _reap(self) -> bool:
        """Whether there may be more: a fork bomb sends us its orphans without end."""
        for _ in range(_REAPED_AT_ONCE):
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return False
            self._note(pid, status)
        return True

    def _note(self, pid: int, status: int) -> None:
        if pid == self._kernel and self._kernel_status is None:  # once: its number may be given again
            self._kernel_status = status

    def _is_alone(self) -> bool:
        """Whether neither launcher nor broker is left. Both may have been killed and go a moment after what ended this,
        while Linux takes their memory down, or after what held them there. One that lives on kills this process.
        """
        for descriptor in (self._wires.done, self._status):
            os.close(descriptor)  # for one that lives, nothing inside is left, and that is all it waits for
        deadline = time.monotonic() + _PATIENCE
        while not (alone := self._launcher_is_gone() and os.getppid() != self._broker):
            if time.monotonic() > deadline:
                break
            time.sleep(0.005)
        return alone

    def _launcher_is_gone(self) -> bool:
        poll = select.poll()
        poll.register(self._wires.orders, select.POLLIN)
        return any(events & select.POLLHUP for _descriptor, events in poll.poll(0))
