"""Does: runs code inside the sandbox and outside of it, and compares what arrived.

A promise has three steps: the forbidden thing works outside, an allowed neighbour of it works inside, and the
forbidden thing is refused inside, *seen at the receiver*. ``attack`` does the first and the last.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from sandboxed_kernel.notices.events import Event

LAUNCHER = (sys.executable, "-I", "-m", "sandboxed_kernel")
RAN = "-- the attack has begun --"
TIMEOUT = 60.0  # seconds for one sandboxed program

# Set by the suite's runner in its container stage: there the container's own profile refuses some attacks before us.
IN_CONTAINER = "SANDBOXED_KERNEL_TESTS_IN_CONTAINER" in os.environ


@dataclass(frozen=True)
class Result:
    """How a program ended; ``events`` is what the audit log says (always empty outside)."""

    returncode: int  # negative: ended by this signal
    stdout: str
    stderr: str
    events: tuple[Event, ...] = ()

    def check(self) -> Result:
        """Itself, if the program ended well; AssertionError with everything that it said if not."""
        told = f"exit code {self.returncode}\n--- stdout\n{self.stdout}\n--- stderr\n{self.stderr}"
        assert self.returncode == 0, told
        return self

    def json(self) -> Any:
        """The last line of the output, which the program printed with ``json.dumps``."""
        lines = self.check().stdout.splitlines()
        assert lines, f"the program printed nothing\n--- stderr\n{self.stderr}"
        return json.loads(lines[-1])

    def refused(self, **wanted: object) -> list[Event]:
        """The refusals whose fields equal ``wanted``: ``result.refused(kind="connect", port=server.port)``."""
        events = [event for event in self.events if event.verdict == "refused"]
        return [event for event in events if all(getattr(event, name) == value for name, value in wanted.items())]


def run_inside(
    code: str,
    *,
    workspace: Path,
    policy: str = "",
    env: Mapping[str, str] | None = None,
    timeout: float = TIMEOUT,
    resolv_conf: Path | None = None,
    stdin: str | None = None,
) -> Result:
    """Python ``code`` in the sandbox, under the policy text ``policy``, with ``workspace`` as its folder."""
    return run_command_inside(
        [sys.executable, "-c", code],
        workspace=workspace,
        policy=policy,
        env=env,
        timeout=timeout,
        resolv_conf=resolv_conf,
        stdin=stdin,
    )


def run_command_inside(
    command: Sequence[str | Path],
    *,
    workspace: Path,
    policy: str = "",
    env: Mapping[str, str] | None = None,
    timeout: float = TIMEOUT,
    resolv_conf: Path | None = None,
    stdin: str | None = None,
) -> Result:
    """Any command in the sandbox. ``env`` is added to the launcher's environment, not to what comes through."""
    # Policy and log lie beside the workspace, not in it: the sandbox may write there.
    with tempfile.TemporaryDirectory(prefix="sbk-") as folder:
        audit = Path(folder, "audit.jsonl")
        prefix = launcher_command(policy, folder, workspace, audit, resolv_conf)
        result = _run([*prefix, *map(str, command)], workspace, env, timeout, stdin)
        lines = audit.read_text().splitlines() if audit.exists() else []
    events = tuple(Event.from_json(json.loads(line)) for line in lines)
    return Result(result.returncode, result.stdout, result.stderr, events)


def launcher_command(
    policy: str, folder: str | Path, workspace: Path, audit: Path, resolv_conf: Path | None = None
) -> list[str]:
    """The command line up to ``--``, for tests that need the process; writes ``policy`` into ``folder``."""
    policy_file = Path(folder, "policy.toml")
    policy_file.write_text(policy)
    command = [*LAUNCHER, "run", "--policy", str(policy_file), "--workspace", str(workspace), "--audit", str(audit)]
    if resolv_conf is not None:
        command += ["--resolv-conf", str(resolv_conf)]
    return [*command, "--"]


def run_outside(
    code: str,
    *,
    workspace: Path,
    env: Mapping[str, str] | None = None,
    timeout: float = TIMEOUT,
    stdin: str | None = None,
) -> Result:
    """The same ``code`` with nothing around it."""
    return _run([sys.executable, "-c", code], workspace, env, timeout, stdin)


def _run(command: Sequence[str], cwd: Path, env: Mapping[str, str] | None, timeout: float, stdin: str | None) -> Result:
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="backslashreplace",
        start_new_session=True,
    )
    with process:
        try:
            stdout, stderr = process.communicate(stdin, timeout)
        except subprocess.TimeoutExpired:
            process.kill()  # the launcher takes everything inside along; that is a promise of its own
            stdout, stderr = process.communicate()
            pytest.fail(f"not done after {timeout} s: {command}\n--- stdout\n{stdout}\n--- stderr\n{stderr}")
    return Result(process.returncode, stdout, stderr)


def attack(
    code: str,
    *,
    seen: Callable[[], object],
    workspace: Path,
    policy: str = "",
    env: Mapping[str, str] | None = None,
    resolv_conf: Path | None = None,
    container_may_refuse: bool = False,
) -> Result:
    """Runs ``code`` outside, where ``seen()`` must change, then inside, where it must not. The inside result.

    ``seen`` looks at the receiver: ``lambda: len(server.received())``, ``lambda: secret.stat().st_mode``.
    ``container_may_refuse``: Docker's default profile refuses this one already (io_uring, ptrace of ...); outside of
    a container it must work all the same. The program reports how it was refused through its output, not by failing.
    """
    code = f"print({RAN!r}, flush=True)\n{code}"
    before = seen()
    outside = run_outside(code, workspace=workspace, env=env)
    worked = seen() != before
    assert worked or (IN_CONTAINER and container_may_refuse), (
        f"this attack does not work even outside of the sandbox, so it shows nothing\n"
        f"--- exit code {outside.returncode}\n--- stdout\n{outside.stdout}\n--- stderr\n{outside.stderr}"
    )
    before = seen()
    inside = run_inside(code, workspace=workspace, policy=policy, env=env, resolv_conf=resolv_conf)
    after = seen()
    # A sandbox that does not start refuses everything, and shows nothing.
    assert inside.stdout.startswith(RAN), f"the program did not run inside\n--- stderr\n{inside.stderr}"
    assert after == before, f"the attack worked inside: {before!r} became {after!r}\n--- stdout\n{inside.stdout}"
    return replace(inside, stdout=inside.stdout.removeprefix(f"{RAN}\n"))


def compile_c(source: str, folder: Path, *flags: str, name: str = "attack") -> Path:
    """A small C program for raw system calls (x32 numbers, ``int 0x80``, io_uring), built with gcc into ``folder``."""
    if shutil.which("gcc") is None:
        if "CI" in os.environ:
            pytest.fail("gcc is missing; .ci/run installs it")
        pytest.skip("gcc is missing (Debian: apt-get install gcc libc6-dev)")
    program, text = folder / name, folder / f"{name}.c"
    text.write_text(source)
    done = subprocess.run(["gcc", "-O1", "-Wall", "-o", program, text, *flags], capture_output=True, text=True)
    assert done.returncode == 0, f"gcc: {done.stderr}"
    return program
