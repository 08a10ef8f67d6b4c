"""What lasts of one folder's home is out of reach of every other sandbox; what is written about it, also of its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.sandbox import attack, run_inside

CODE = """
import contextlib, os
home = {home!r}
for name in ("h/cache/model", "meta.json", "h/new", "h/cache"):
    with contextlib.suppress(OSError):
        os.rename(f"{{home}}/{{name}}", f"{{home}}/{{name}}.moved")
    with contextlib.suppress(OSError):
        open(f"{{home}}/{{name}}", "a").write("changed")
with contextlib.suppress(OSError):
    print(open(f"{{home}}/h/cache/model").read())
with contextlib.suppress(OSError):
    print(os.listdir(home), os.listdir(home + "/.."))
"""


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path / "data" / "sandboxed-kernel" / "homes"


def owned(workspace: Path, data: Path, policy: str = "") -> Path:
    code = "import os; open(os.path.expanduser('~/.cache/model'), 'w').write('private')"
    workspace.mkdir(exist_ok=True)
    workspace.chmod(0o755)
    before = set(os.listdir(data)) if data.exists() else set()
    run_inside(code, workspace=workspace, policy=policy).check()
    (name,) = {name for name in os.listdir(data) if name[0] != "."} - before
    return data / name


def contents(home: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in home.rglob("*")}


@pytest.mark.parametrize("policy", ["", '[filesystem]\nread = ["/usr/share"]'], ids=["alike", "given more"])
def test_another_sandbox_reaches_nothing_of_it(policy: str, workspace: Path, data: Path, tmp_path: Path) -> None:
    theirs = owned(workspace, data)
    saved = contents(theirs)

    def seen() -> object:
        found = contents(theirs) != saved
        if found:  # for the next attempt
            os.system(f"rm -rf {theirs} && mkdir -p {theirs}/h/cache")
            for path, content in saved.items():
                if content is None:
                    Path(path).mkdir(parents=True, exist_ok=True)
                else:
                    Path(path).write_bytes(content)
        return found

    other = tmp_path / "other" if not policy else workspace
    other.mkdir(exist_ok=True)
    other.chmod(0o755)
    inside = attack(CODE.format(home=str(theirs)), seen=seen, workspace=other, policy=policy)
    assert "private" not in inside.stdout
    assert "[" not in inside.stdout


def test_its_own_sandbox_writes_only_in_what_lasts(workspace: Path, data: Path) -> None:
    own = owned(workspace, data)
    code = CODE.format(home=str(own))
    inside = run_inside(code, workspace=workspace)
    assert inside.stdout.strip() == "changed"  # written in its own cache, and nothing was moved
    assert sorted(os.listdir(own)) == ["h", "meta.json"]
    assert "cache" in os.listdir(own / "h")
    assert "changed" not in (own / "meta.json").read_text()


def test_a_policy_opens_no_home(workspace: Path, data: Path) -> None:
    own = owned(workspace, data)
    for path in (data, own, own / "h" / "cache", data.parent):
        result = run_inside("", workspace=workspace, policy=f'[filesystem]\nread = ["{path}"]')
        assert result.returncode != 0
        assert "where the private homes of all notebooks last" in result.stderr
