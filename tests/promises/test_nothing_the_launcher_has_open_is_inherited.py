"""Of the launcher's open files and sockets none reaches the code but standard input, output and error."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.sandbox import launcher_command

CODE = """
import json, os
found = {}
for name in sorted(os.listdir("/proc/self/fd"), key=int):
    try:
        found[name] = os.readlink(f"/proc/self/fd/{name}")
    except OSError:
        pass  # the listing's own
with open("found", "w") as file:
    json.dump(found, file)
"""


@pytest.mark.parametrize("closed", [(), (0,), (1, 2), (0, 1, 2)], ids=str)
def test_nothing_the_launcher_has_open_is_inherited(closed: tuple[int, ...], workspace: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cret")
    left, right = socket.socketpair()
    opened = [os.open(secret, os.O_RDWR), os.open(tmp_path, os.O_RDONLY), left.fileno(), right.fileno()]
    opened += [os.dup2(opened[0], 200), os.dup2(left.fileno(), 900)]  # a loop over the first few would miss these

    def close() -> None:
        for number in closed:
            os.close(number)

    def found_by(command: list[str]) -> dict[str, str]:
        subprocess.run(
            command,
            cwd=workspace,
            pass_fds=opened,
            preexec_fn=close,
            timeout=60,
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        found: dict[str, str] = json.loads((workspace / "found").read_text())
        (workspace / "found").unlink()
        return found

    code = [sys.executable, "-c", CODE]
    try:
        outside = found_by(code)
        assert {str(number) for number in opened} <= set(outside), outside
        inside = found_by([*launcher_command("", tmp_path, workspace, tmp_path / "audit.jsonl"), *code])
        assert set(inside.values()) <= {"/dev/null"}, inside
        assert len(inside) == 3 - len(closed), inside
    finally:
        for number in (opened[0], opened[1], 200, 900):
            os.close(number)
        left.close()
        right.close()
