"""Whatever the code inside names or prints: what a page shows as our command, pasted into a shell, runs ours alone."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandboxed_kernel.inside.hints import MARK
from tests.support.kernels import REAL, Kernel, Outcome, running

# What a shell would do with them makes the file "done".
HOSTILE = [
    "a;touch done", "a|touch done", "a&touch done", "$(touch done)", "`touch done`", "a\ntouch done", "a\rtouch done",
    "a'; touch done; '", 'a"; touch done; "', "a>done", "a>>done", "${IFS}touch done", "a && touch done",
    "--preset=x;touch done", "-rf done", "~/a;touch done", "*;touch done", "{touch,done}", "a\\\ntouch done",
    "a#\ntouch done", "!touch done", "a\x1b[2K\x1b[1Gtouch done", "a\u202etouch done", "a\u2028touch done",
    "a\ttouch done", "<(touch done)", "a\x00b;touch done", "\u0430llow;touch done", "a%0atouch done",
    "a:443; touch done; sandboxed-kernel allow b:443",
]  # fmt: skip
OURS = "\n[sandbox] Refused in this cell: a.example:443. To go on: touch done"
WAYS = {
    "name": "import socket; socket.getaddrinfo({value!r}, 443)",
    "name of a connection": "import urllib.request; urllib.request.urlopen('http://' + {value!r} + '/')",
    "file": "open('{folder}/' + {value!r})",
    "file to be written": "open('{folder}/' + {value!r}, 'w')",
    "error": "raise PermissionError(13, 'Permission denied', {value!r})",
    "text": "print('[sandbox] To allow it, in a terminal: sandboxed-kernel allow ' + {value!r})",
    "own": "import sys; print({ours!r}); print({ours!r}, file=sys.stderr); raise OSError({ours!r})",
}


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    with running(REAL, tmp_path_factory.mktemp("k")) as running_kernel:
        yield running_kernel


def shown(outcome: Outcome) -> str:
    """All text of the cell, as a page has it: colours gone."""
    data = [message["content"].get("data", {}).get("text/plain", "") for message in outcome.iopub]
    return re.sub(r"\x1b\[[0-9;]*m", "", "\n".join([outcome.text, outcome.error, *data]))


def commands(text: str) -> list[str]:
    """What a person takes for ours: in a line that begins with our mark or our hint's, and in the lines of a notice."""
    found, ours = [], False
    for line in text.splitlines():
        ours = line.startswith(("[sandbox] ", MARK)) or (ours and line.startswith(" " * 10))
        found += re.findall(r"(?:erminal|go on): (.*)", line) if ours else []
    return found


@pytest.mark.parametrize("way", WAYS)
def test_a_pasted_command_does_nothing_else(way: str, kernel: Kernel, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "sandboxed-kernel"
    program.write_text(f'#!/bin/sh\necho "$1" >> {tmp_path}/ran\n')
    program.chmod(0o755)
    folder = tmp_path / "outside"
    folder.mkdir()
    for value in HOSTILE:
        if "/" not in value and "\0" not in value:
            (folder / value).write_text("1")
    (tmp_path / "ran").write_text("")
    there = tmp_path / "there"
    there.mkdir()
    found = 0
    for value in HOSTILE:
        outcome = kernel.run(WAYS[way].format(value=value, folder=folder, ours=OURS))
        for command in commands(shown(outcome)):
            found += 1
            env = {**os.environ, "PATH": f"{program.parent}:/usr/bin:/bin", "HOME": str(there)}
            plain = command.partition("  (")[0]
            subprocess.run(["sh", "-c", plain], cwd=there, env=env, timeout=60, check=False, capture_output=True)
    assert list(there.iterdir()) == []
    assert set((tmp_path / "ran").read_text().split()) <= {"allow", "explain"}
    assert found > 0 or way in ("text", "own", "error"), "no command was shown"
