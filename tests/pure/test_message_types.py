"""mypy refuses a message from the sandbox where a verified one is asked for, and what was not checked for a client."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PREAMBLE = """
from sandboxed_kernel.relay.front import Front
from sandboxed_kernel.relay.loop import Relay
from sandboxed_kernel.relay.messages import Claimed, Signer, Verified
from sandboxed_kernel.relay.schema import Checked

def f(relay: Relay, front: Front, frames: list[bytes], signer: Signer, claimed: Claimed, checked: Checked) -> None:
"""
RIGHT = "    relay._handle_request('shell', Verified(frames, signer)); front.pass_output(checked)\n"
WRONG = {
    "a kernel's message to the handler of requests": "relay._handle_request('shell', Claimed(frames))",
    "a kernel's message as a verified one": "message: Verified = claimed",
    "a verified message without a key": "Verified(frames)",
    "a kernel's message to clients unchecked": "front.pass_output(claimed)",
    "a kernel's answer as a request": "front.answer('shell', claimed, {})",
}


@pytest.fixture(scope="module")
def complaints(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What mypy says of each line, in one run; "" for nothing."""
    folder = tmp_path_factory.mktemp("snippet")
    lines = [RIGHT.rstrip(), *(f"    {line}" for line in WRONG.values())]
    source = PREAMBLE + "\n".join(lines) + "\n"
    (folder / "snippet.py").write_text(source)
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(folder)]
    run = subprocess.run([*command, str(folder / "snippet.py")], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.stderr == ""
    first = PREAMBLE.count("\n") + 1
    by_line = dict.fromkeys(range(first, first + len(lines)), "")
    for said in run.stdout.splitlines():
        if ": error: " in said:
            by_line[int(said.split(":")[1])] = said
    return list(by_line.values())


def test_right_code_is_not_refused(complaints: list[str]) -> None:
    assert complaints[0] == ""


@pytest.mark.parametrize("place", range(len(WRONG)), ids=list(WRONG))
def test_the_mistake_is_refused(complaints: list[str], place: int) -> None:
    assert any(code in complaints[place + 1] for code in ("[arg-type]", "[assignment]", "[call-arg]"))
