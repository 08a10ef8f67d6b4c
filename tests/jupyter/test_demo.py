"""The demo shows what it claims: without the sandbox it fails, since everything it calls refused works there."""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path

import pytest

from sandboxed_kernel import demo, kernelspec
from sandboxed_kernel.notices.render import MIME


def plain_kernel(*, policy_file: str, prefix: str) -> str:
    """An ordinary ipykernel under the sandboxed one's name, with the variables that the policy sets."""
    folder = Path(prefix, "share/jupyter/kernels", kernelspec.NAME)
    folder.mkdir(parents=True)
    variables = tomllib.loads(Path(policy_file).read_text())["environment"]["set"]
    # IPython's own folder is private here too; the demo must not depend on somebody's profile.
    env = {**variables, "IPYTHONDIR": f"{prefix}/ipython", "MPLCONFIGDIR": f"{prefix}/matplotlib"}
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": argv, "display_name": "plain", "language": "python", "env": env}
    (folder / "kernel.json").write_text(json.dumps(spec))
    return str(folder)


@pytest.mark.slow
def test_without_the_sandbox_the_demo_fails_and_says_what(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(kernelspec, "install", plain_kernel)
    assert demo.main() == 1
    told = capsys.readouterr().out
    bad = {line.split("SHOULD", 1)[1].strip() for line in told.splitlines() if "NOT AS IT SHOULD" in line}
    assert bad == {
        "the request to the other server failed",
        "connections that the other server has seen: 1",
        "its cell says why, and what would allow it",
        "so does the cell that asked for another name",
        "a file outside the notebook's folder could not be read",
        "nothing that the notebook shows has its contents",
    }
    assert "[a picture of " in told


@pytest.mark.slow
@pytest.mark.container
def test_in_the_sandbox_everything_is_as_it_should_be(capsys: pytest.CaptureFixture[str]) -> None:
    code = demo.main()
    told = capsys.readouterr().out
    assert code == 0, told
    assert "NOT AS IT SHOULD" not in told
    assert told.count("as it should be") == 8


def test_an_output_is_text() -> None:
    error = {"output_type": "error", "ename": "PermissionError", "evalue": "no", "traceback": []}
    stream = {"output_type": "stream", "name": "stdout", "text": "a\nb\n"}
    notice = {"output_type": "display_data", "data": {"text/plain": "[sandbox] refused", MIME: {}}}
    assert demo.output_text(error) == "    PermissionError: no"
    assert demo.output_text(stream) == "    a\n    b"
    assert demo.output_text(notice) == "  ! [sandbox] refused"
