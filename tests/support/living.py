"""Does: a sandboxed program that the test watches, stops and kills while it runs.

with Living(code, workspace=workspace) as program:
    program.line()                  # what it printed
    os.kill(program.broker, signal.SIGKILL)
    wait_until(program.is_gone, "the end of everything inside")
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from sandboxed_kernel.linux import processes
from sandboxed_kernel.notices.events import Event
from tests.support.sandbox import launcher_command
from tests.support.servers import DEADLINE, wait_until


class Living:
    """A launcher with a broker and Python ``code`` (or a ``command``) inside."""

    def __init__(
        self,
        code: str | Sequence[str],
        *,
        workspace: Path,
        policy: str = "",
        audit: Path | None = None,
        resolv_conf: Path | None = None,
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="sbk-")
        self.audit = audit or Path(self._folder.name, "audit.jsonl")
        command = [sys.executable, "-c", code] if isinstance(code, str) else list(code)
        prefix = launcher_command(policy, self._folder.name, workspace, self.audit, resolv_conf)
        # A file: a pipe that nobody empties would stop the launcher at its 64 KiB of notices.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        self.launcher = subprocess.Popen(
            [*prefix, *command],
            cwd=workspace,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,
        )
        self._read = b""
        self.inside: set[int] = set()  # every process of the sandbox that ``note`` saw

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        for pid in (*self.inside, *processes.descendants(self.launcher.pid)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with suppress(ProcessLookupError):
            self.launcher.send_signal(signal.SIGCONT)
        self.launcher.kill()
        self.launcher.wait()
        assert self.launcher.stdout is not None
        self.launcher.stdout.close()
        self._errors.close()
        self._folder.cleanup()

    def line(self, within: float = DEADLINE) -> str:
        """The next line of its output. AssertionError where none comes."""
        assert self.launcher.stdout is not None
        end = time.monotonic() + within
        while b"\n" not in self._read:
            ready = select.select([self.launcher.stdout], [], [], max(0.0, end - time.monotonic()))[0]
            assert ready, f"no line within {within} s, only {self._read!r}"
            data = os.read(self.launcher.stdout.fileno(), 65536)
            assert data, f"it ended before it printed a line: {self.errors()}"
            self._read += data
        line, _, self._read = self._read.partition(b"\n")
        return line.decode()

    def errors(self) -> str:
        """What the launcher and the program said on standard error so far."""
        descriptor = self._errors.fileno()  # its position is the launcher's too: no seek
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0).decode(errors="replace")

    @property
    def broker(self) -> int:
        """The launcher's only lasting child."""
        return wait_until(lambda: processes.children(self.launcher.pid), "the broker")[0]

    @property
    def policy(self) -> Path:
        """Its policy's file, which may be changed."""
        return Path(self._folder.name, "policy.toml")

    @property
    def guards(self) -> list[int]:
        """The broker's children that look at TLS greetings: none, or one."""
        named = []
        for pid in processes.children(self.broker):
            with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
                named.append((pid, Path(f"/proc/{pid}/comm").read_text().strip()))
        return [pid for pid, name in named if name == "sandbox-guard"]

    @property
    def warden(self) -> int:
        """The broker's first child, the parent of everything inside."""
        return wait_until(lambda: processes.children(self.broker), "the warden")[0]

    def note(self) -> set[int]:
        """Remember every process that descends from the broker now, the warden too, to ask for its end later."""
        found = set(processes.descendants(self.broker))
        self.inside |= found
        return found

    def is_gone(self) -> bool:
        """Whether every process that was noted has ended."""
        return not any(map(is_running, self.inside))

    def wait(self, within: float = DEADLINE) -> int:
        """The launcher's exit code."""
        return self.launcher.wait(within)

    def events(self) -> list[Event]:
        """What the audit log says so far."""
        lines = self.audit.read_text().splitlines() if self.audit.exists() else []
        return [Event.from_json(json.loads(line)) for line in lines]


def is_running(pid: int) -> bool:
    """Neither gone nor a zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def resident_bytes(pid: int) -> int:
    """What the process holds in memory, without what it shares with files."""
    _size, resident, shared, *_ = Path(f"/proc/{pid}/statm").read_text().split()
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")


def open_descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def threads_in_linux(pid: int) -> set[int]:
    """Those threads that wait where no signal reaches them: state D of proc_pid_stat(5), at each of some looks."""
    found: set[int] | None = None
    for _ in range(20):
        now = {int(thread.name) for thread in Path(f"/proc/{pid}/task").iterdir() if _is_stuck(thread)}
        found = now if found is None else found & now
        if not found:
            break
        time.sleep(0.01)
    return found or set()


def _is_stuck(thread: Path) -> bool:
    try:
        return (thread / "stat").read_text().rpartition(")")[2].split()[0] == "D"
    except OSError:
        return False
