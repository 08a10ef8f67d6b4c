"""``sandboxed-kernel allow`` and ``forget`` change the policy's file, and nothing else of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sandboxed_kernel.cli import main
from sandboxed_kernel.notices.events import Event
from sandboxed_kernel.policy.read import load
from tests.support.sandbox import run_command_inside

COMMENTED = """\
# mine
extends = ["offline"]   # nothing

[network]
allow = [
    "a.example:443",  # the first
]

[limits]
memory = "4 GiB"  # enough
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    return tmp_path / "XDG_CONFIG_HOME" / "sandboxed-kernel" / "policy.toml"


def written(file: Path, text: str, mode: int = 0o640) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(mode)
    return file


def test_where_there_is_no_policy_one_is_made(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["allow", "pypi.org:443", "b.example:80,443"]) == 0
    assert tomllib.loads(file.read_text()) == {"network": {"allow": ["pypi.org:443", "b.example:80,443"]}}
    assert file.stat().st_mode & 0o777 == 0o600
    said = capsys.readouterr().out
    assert f"--- {file}" in said
    assert '+allow = ["pypi.org:443", "b.example:80,443"]' in said
    assert "run the cell again" in said
    assert main(["explain", "b.example:80"]) == 0


def test_comments_and_mode_stay(file: Path) -> None:
    written(file, COMMENTED)
    assert main(["allow", "b.example:443", "--preset", "pypi"]) == 0
    text = file.read_text()
    for line in ("# mine", "# nothing", '"a.example:443",  # the first', 'memory = "4 GiB"  # enough'):
        assert line in text
    assert file.stat().st_mode & 0o777 == 0o640
    assert tomllib.loads(text)["network"]["allow"] == ["a.example:443", "b.example:443"]
    assert tomllib.loads(text)["extends"] == ["offline", "pypi"]
    assert main(["forget", "b.example:443", "--preset", "pypi"]) == 0
    assert tomllib.loads(file.read_text()) == tomllib.loads(COMMENTED)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# only this\n",
        "network.allow = []\n[limits]\nprocesses = 5\n",
        "network = { allow = [] }\n[limits]\nprocesses = 5\n",
        "[limits]\nprocesses = 5\n",
        "[limits]\r\nprocesses = 5\r\n",
        "\ufeff[network]\nallow = ['x.example:1']",
        "[network]\nallow = [\n  'x.example:1'\n  # last\n]\n[filesystem]\nread = []\n",
        "[network] # empty\n[limits]\nprocesses = 5",
    ],
)
def test_every_layout(text: str, file: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    written(file, text)
    was = load(str(file), workspace="/w", home="/h")
    assert main(["allow", "n.example:443", "--read", str(tmp_path / "data"), "--preset", "pypi"]) == 0
    now = load(str(file), workspace="/w", home="/h")
    assert {rule.text for rule in now.allow} >= {*(rule.text for rule in was.allow), "n.example:443", "pypi.org:443"}
    assert now.limits == was.limits
    assert [grant.path for grant in now.grants] == [str(tmp_path / "data")]


def test_a_path_is_written_absolute(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "HOME" / "data").mkdir(parents=True)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert main(["allow", "--read", "~/data", "--write", "."]) == 0
    said = tomllib.loads(file.read_text())["filesystem"]
    assert said == {"read": [f"{tmp_path}/HOME/data"], "write": [".", f"{tmp_path}/here"]}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--read", "~"], "is your home folder"),
        (["--read", "/nowhere"], "does not exist"),
        (["--write", "/tmp"], "/tmp"),
        (["--write", "{config}"], "the policy of this kernel"),
        (["--write", sys.prefix], "the Python that runs this kernel"),
        (["--preset", "pypii"], 'Write "pypi"'),
        (["pypi.org"], 'Write "pypi.org:443"'),
    ],
)
def test_what_no_kernel_would_start_with_is_not_written(
    words: list[str], says: str, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written(file, COMMENTED)
    (tmp_path / "HOME").mkdir()
    assert main(["allow", *(word.format(config=file.parent) for word in words)]) == 78
    assert says in capsys.readouterr().err
    assert file.read_text() == COMMENTED


def test_a_policy_with_a_mistake_is_not_edited(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(file, "[network]\nalow = []\n")
    assert main(["allow", "a.example:1"]) == 78
    assert 'network.alow: unknown key. Write "allow"' in capsys.readouterr().err
    assert file.read_text() == "[network]\nalow = []\n"


def test_a_link_stays_and_its_file_is_changed(file: Path, tmp_path: Path) -> None:
    (tmp_path / "dotfiles").mkdir()
    real = written(tmp_path / "dotfiles" / "sandbox.toml", COMMENTED)
    file.parent.mkdir(parents=True)
    file.symlink_to(real)
    assert main(["allow", "b.example:443"]) == 0
    assert file.is_symlink()
    assert "b.example:443" in real.read_text()


def test_a_link_that_leads_nowhere_is_said(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.parent.mkdir(parents=True)
    file.symlink_to(tmp_path / "nowhere")
    assert main(["allow", "b.example:443"]) == 78
    assert "which does not exist" in capsys.readouterr().err
    assert not (tmp_path / "nowhere").exists()


def test_forgetting_says_what_still_allows_it(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(file, 'extends = ["pypi"]\n[network]\nallow = ["pypi.org:443"]\n')
    assert main(["forget", "pypi.org:443"]) == 0
    assert "Still allowed by preset pypi: network.allow[0]" in capsys.readouterr().out
    assert main(["forget", "pypi.org:443"]) == 1
    assert "Nothing to forget" in capsys.readouterr().out


def test_commands_at_the_same_time_lose_nothing(file: Path) -> None:
    """Two loops of 200, as from two terminals."""
    code = (
        "import sys; from sandboxed_kernel.cli import main\n"
        "for number in range(200): assert main(['allow', f'{sys.argv[1]}{number}.example:443']) == 0"
    )
    command = [sys.executable, "-c", code]
    started = [subprocess.Popen([*command, name], stdout=subprocess.DEVNULL) for name in "ab"]
    assert [process.wait(timeout=120) for process in started] == [0, 0]
    allow = tomllib.loads(file.read_text())["network"]["allow"]
    assert set(allow) == {f"{name}{number}.example:443" for name in "ab" for number in range(200)}
    assert len(allow) == 400
    assert sorted(os.listdir(file.parent)) == [".policy.toml.lock", "policy.toml"]


def logged(folder: Path, *events: Event) -> None:
    log = folder / "XDG_STATE_HOME" / "sandboxed-kernel" / "audit.jsonl"
    log.parent.mkdir(parents=True)
    log.write_text('{"half a line\n' + "".join(json.dumps(event.to_json()) + "\n" for event in events))


def test_without_arguments_the_last_refusals_are_shown_for_choosing(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    why = "no line names it"
    logged(
        tmp_path,
        Event("connect", "refused", why, "tcp", 1e9, 7, "python", "db.example", "192.0.2.1", 5432, None, '"l"'),
        Event("connect", "allowed", why, "tcp", 1e9, 7, "python", "fine.example", "192.0.2.1", 443, "r", None),
        Event(
            "name", "refused", why, "dns", 1e9, 7, "py\x1b[8m", "web.example", None, None, None, '"web.example:PORT"'
        ),
        Event("name", "refused", why, "dns", 1e9, 7, "python", "x\x1b]52;c;a\x07$(id)", None, None, None, '"y"'),
    )
    monkeypatch.setattr("builtins.input", lambda _prompt: "1 2")
    assert main(["allow"]) == 0
    said = capsys.readouterr().out
    assert "web.example" in said.splitlines()[1]
    assert "db.example:5432" in said.splitlines()[2]
    assert "\x1b" not in said
    assert "fine.example" not in said
    assert "$(id)" not in said
    assert tomllib.loads(file.read_text())["network"]["allow"] == ["web.example:80,443", "db.example:5432"]
    monkeypatch.setattr("builtins.input", lambda _prompt: "3")
    assert main(["allow"]) == 78
    monkeypatch.setattr("builtins.input", lambda _prompt: "")
    assert main(["allow"]) == 1


def test_without_a_log_it_says_what_to_write(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["allow"]) == 1
    assert "Write: sandboxed-kernel allow HOST:PORT" in capsys.readouterr().out
    assert not file.exists()


def test_in_the_notebook_it_says_where_to_run_it(workspace: Path) -> None:
    program = Path(sys.executable).with_name("sandboxed-kernel")
    for words in (["allow", "x.example:443"], ["forget", "x.example:443"], ["allow"]):
        inside = run_command_inside([program, *words], workspace=workspace)
        assert inside.returncode == 2, inside
        said = " ".join(["sandboxed-kernel", *words])
        assert inside.stderr == f"Run this in a terminal, not in the notebook: {said}\n"


@pytest.mark.parametrize("before", ["", COMMENTED, '[[folder]]\npath = "/elsewhere"\n[folder.limits]\nprocesses = 9\n'])
def test_only_for_the_notebooks_of_a_folder(before: str, file: Path, tmp_path: Path) -> None:
    written(file, before)
    was = load(str(file), workspace="/w", home="/h")
    project = tmp_path / "project"
    project.mkdir()
    (tmp_path / "link").symlink_to(project)
    for target in ("a.example:1", "b.example:2"):
        assert main(["allow", target, "--in", str(tmp_path / "link")]) == 0
    assert main(["allow", "--in", str(project), "--preset", "pypi", "--write", str(project)]) == 0
    there = load(str(file), workspace=str(project / "deep"), home="/h")
    assert {rule.text for rule in there.allow} >= {"a.example:1", "b.example:2", "pypi.org:443"}
    assert tomllib.loads(file.read_text())["folder"][-1]["path"] == str(project)
    now = load(str(file), workspace="/w", home="/h")
    assert (now.allow, now.limits, now.grants) == (was.allow, was.limits, was.grants)
    assert main(["forget", "a.example:1"]) == 1
    assert main(["forget", "a.example:1", "--in", str(project)]) == 0
    assert '"a.example:1"' not in file.read_text()
    assert main(["policy", "--origin", "--workspace", str(project)]) == 0
    assert main(["allow", "a.example:1", "--in", str(tmp_path / "nowhere")]) == 78


@pytest.mark.parametrize(
    ("target", "table"),
    [
        ("a.example:443", {"host": "a.example", "port": 443}),
        ("*.a.example:80,443", {"host": "*.a.example", "ports": [80, 443]}),
        ("udp://192.0.2.1:53000", {"host": "192.0.2.1", "port": 53000, "protocol": "udp"}),
        ("[2001:db8::1]:443", {"host": "[2001:db8::1]", "port": 443}),
    ],
)
def test_for_a_time(target: str, table: dict[str, object], file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["allow", target, "--for", "2h"]) == 0
    (entry,) = tomllib.loads(file.read_text())["network"]["allow"]
    until = entry.pop("until")
    assert entry == table
    assert 7000 < (until - datetime.now(UTC)).total_seconds() <= 7200
    assert main(["allow", target, "--for", "1d"]) == 0  # longer: in the place of the first
    (entry,) = tomllib.loads(file.read_text())["network"]["allow"]
    assert entry["until"] > until
    assert main(["policy"]) == 0
    assert "until" in capsys.readouterr().out
    assert main(["allow", target]) == 0  # for good
    assert tomllib.loads(file.read_text()) == {"network": {"allow": [target]}}
    assert main(["allow", target, "--for", "1m"]) == 0
    assert tomllib.loads(file.read_text()) == {"network": {"allow": [target]}}


def test_what_is_over_allows_nothing_and_goes(file: Path) -> None:
    written(file, '[network]\nallow = [{ host = "a.example", port = 443, until = 2020-01-01T00:00:00Z }]\n')
    assert main(["explain", "a.example:443"]) != 0
    assert main(["allow", "b.example:443"]) == 0
    assert tomllib.loads(file.read_text()) == {"network": {"allow": ["b.example:443"]}}


@pytest.mark.parametrize("words", [["a.example:443", "--for", "soon"], ["a.example:443", "--for", "0h"]])
def test_no_time(words: list[str], file: Path) -> None:
    with pytest.raises(SystemExit):
        main(["allow", *words])
    assert not file.exists()


def test_a_time_is_for_a_host(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["allow", "--preset", "pypi", "--for", "2h"]) == 78
    assert "Write: allow HOST:PORT --for 2h" in capsys.readouterr().err
    assert not file.exists()


def test_a_variable_from_a_file(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(file, COMMENTED)
    keys = tmp_path / ".env"
    keys.write_text("KEY=secret-value\n")
    assert main(["allow", "--env", "KEY", "--env", "OTHER", "--from", str(keys)]) == 0
    said = capsys.readouterr().out
    assert "Restart the kernel for the variables." in said
    assert f"note: OTHER is not set: {keys} has no line OTHER=..." in said
    assert "secret-value" not in said
    assert tomllib.loads(file.read_text())["environment"] == {"from": {"KEY": str(keys), "OTHER": str(keys)}}
    assert main(["allow", "--env", "KEY", "--from", str(keys)]) == 0
    assert "Nothing to change" in capsys.readouterr().out
    assert main(["policy"]) == 0
    said = capsys.readouterr().out
    assert "secret-value" not in said
    assert f"KEY  {keys}" in said
    assert main(["forget", "--env", "OTHER", "--env", "KEY"]) == 0
    assert tomllib.loads(file.read_text())["environment"] == {"from": {}}


def test_a_folder_in_which_programs_outside_run_something_is_said(
    file: Path, tmp_path: Path, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("plain/data", "repository/.git", "environment/pyvenv.cfg"):
        (tmp_path / name).mkdir(parents=True)
    assert main(["allow", "--write", str(tmp_path / "plain")]) == 0
    assert "note:" not in capsys.readouterr().out
    opened = [str(tmp_path / "repository"), str(tmp_path / "environment")]
    assert main(["allow", "--write", opened[0], "--write", opened[1]]) == 0
    said = '/.git", "'.join(opened) + '" can be written by lines of the policy'
    assert said in capsys.readouterr().out
    started = run_command_inside(["true"], workspace=workspace, policy=file.read_text())
    assert said in started.stderr


def test_a_variable_of_jupyters_own(file: Path, tmp_path: Path) -> None:
    assert main(["allow", "--env", "API_KEY", "--in", str(tmp_path)]) == 0
    (section,) = tomllib.loads(file.read_text())["folder"]
    assert section == {"path": str(tmp_path), "environment": {"pass": ["API_KEY"]}}
    assert main(["forget", "--env", "API_KEY", "--in", str(tmp_path)]) == 0
    assert tomllib.loads(file.read_text())["folder"][0]["environment"] == {"pass": []}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--from", "/x"], "Write: --env NAME --from FILE"),
        (["--env", "a b"], "is not the name of a variable"),
        (["--env", "HOME", "--from", "/x"], "kept out of every sandbox"),
        (["--project", "/nowhere"], "Name an existing folder"),
        (["--project", "{tmp}", "--everywhere"], "Leave out --in and --everywhere"),
        (["--project", "/usr"], "/usr"),
        (["--project", "{config}"], "the policy of this kernel"),
    ],
)
def test_what_is_wrong_about_variables_and_projects(
    words: list[str], says: str, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written(file, COMMENTED)
    assert main(["allow", *(word.format(tmp=tmp_path, config=file.parent) for word in words)]) == 78
    assert says in capsys.readouterr().err
    assert file.read_text() == COMMENTED


@pytest.mark.parametrize("before", ["", COMMENTED])
def test_a_project(before: str, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(file, before)
    project = tmp_path / "HOME" / "project"
    (project / "notebooks").mkdir(parents=True)
    (project / ".git").mkdir()
    for _ in range(2):
        assert main(["allow", "--project", str(project)]) == 0
    assert "Restart the kernel for the folders" in capsys.readouterr().out
    (section,) = tomllib.loads(file.read_text())["folder"]
    assert section == {"path": str(project), "project": True}
    for place in ("data", ".git/hooks"):
        capsys.readouterr()
        main(["explain", str(project / place), "--workspace", str(project / "notebooks")])
        said = capsys.readouterr().out.splitlines()
        assert said[0].startswith("allowed")
        assert any(line.startswith("refused") for line in said) == (place != "data"), said
    assert main(["forget", "--project", str(project)]) == 0
    assert tomllib.loads(file.read_text())["folder"] == [{"path": str(project)}]
