"""``[environment] from``: one variable of a ``.env`` enters; nothing inside reads the file or chooses another one."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.support.folders import make_home
from tests.support.sandbox import run_inside, run_outside

DOTENV = """\
# keys
export API_KEY="sk-1 #2"   # of the model
OTHER_KEY=never
PLAIN=a$b
NESTED=${OTHER_KEY}
"""
ASK = "import json, os; print(json.dumps({k: os.environ.get(k) for k in ('API_KEY', 'OTHER_KEY', 'PLAIN', 'NESTED')}))"


def policy(**files: Path) -> str:
    return "[environment.from]\n" + "".join(f"{name} = {json.dumps(str(path))}\n" for name, path in files.items())


def test_the_variables_that_are_named_enter(tmp_path: Path, workspace: Path) -> None:
    file = tmp_path / ".env"
    file.write_text(DOTENV)
    inside = run_inside(ASK, workspace=workspace, policy=policy(API_KEY=file, PLAIN=file))
    assert inside.json() == {"API_KEY": "sk-1 #2", "OTHER_KEY": None, "PLAIN": "a$b", "NESTED": None}


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("NESTED", "refers to another variable"),
        ("MISSING", "has no line MISSING="),
        ("/nowhere", "No such file"),
        ("fifo", "not a regular file"),
        ("blanks", "hundreds of blanks in a row"),  # python-dotenv takes an hour for them
        ("braces", "more than 64 KiB"),
    ],
)
def test_what_gives_no_value_is_said_and_the_rest_works(name: str, says: str, tmp_path: Path, workspace: Path) -> None:
    file = tmp_path / ".env"
    file.write_text(DOTENV)
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "blanks").write_text("WRONG=a" + " " * 1_000_000 + "b")
    (tmp_path / "braces").write_text('WRONG="' + "${" * 500_000 + '"')
    wrong = {name: file} if name.isupper() else {"WRONG": tmp_path / name.lstrip("/")}
    inside = run_inside(ASK, workspace=workspace, policy=policy(API_KEY=file, **wrong))
    assert inside.json()["API_KEY"] == "sk-1 #2"
    assert f"{next(iter(wrong))} is not set: " in inside.stderr
    assert says in inside.stderr
    assert "never" not in inside.stderr


def home_with_keys(folder: Path) -> Path:
    home = make_home(folder)
    (home / "proj" / ".env").write_text(DOTENV)
    (home / "other.env").write_text("API_KEY=of-another-project\n")
    return home


def test_the_file_stays_closed(tmp_path: Path) -> None:
    code = """
import contextlib, os
for step in (
    lambda: print(open(".env").read()),
    lambda: os.rename(".env", "old"),
    lambda: os.unlink(".env"),
    lambda: os.symlink("../other.env", ".env"),
):
    with contextlib.suppress(OSError):
        step()
"""
    plain = home_with_keys(tmp_path / "plain")
    assert "sk-1" in run_outside(code, workspace=plain / "proj", env={"HOME": str(plain)}).stdout
    assert (plain / "proj" / ".env").readlink() == Path("../other.env")

    home = home_with_keys(tmp_path / "sandboxed")
    file = home / "proj" / ".env"
    named = policy(API_KEY=file)
    inside = run_inside(code, workspace=home / "proj", policy=named, env={"HOME": str(home)}).check()
    assert "sk-1" not in inside.stdout
    assert not file.is_symlink()
    assert file.read_text() == DOTENV
    again = run_inside(ASK, workspace=home / "proj", policy=named, env={"HOME": str(home)})
    assert again.json()["API_KEY"] == "sk-1 #2"


def test_a_file_where_the_code_may_write_is_refused(tmp_path: Path, workspace: Path) -> None:
    results = tmp_path / "results"
    results.mkdir()
    (results / "keys").write_text(DOTENV)
    grants = f"\n[filesystem]\nwrite = [{json.dumps(str(results))}]\n"
    refused = run_inside(ASK, workspace=workspace, policy=policy(API_KEY=results / "keys") + grants)
    assert refused.returncode == 78
    assert "the file that API_KEY is read from" in refused.stderr
    # In the notebook's own folder it is closed for writing, whatever its name.
    (workspace / "keys.txt").write_text(DOTENV)
    code = f"{ASK}\nopen('keys.txt', 'w')"
    inside = run_inside(code, workspace=workspace, policy=policy(API_KEY=workspace / "keys.txt"))
    assert json.loads(inside.stdout.splitlines()[0])["API_KEY"] == "sk-1 #2"
    assert "PermissionError" in inside.stderr
    assert (workspace / "keys.txt").read_text() == DOTENV


def test_it_stays_closed_to_notebooks_of_other_folders_too(tmp_path: Path, workspace: Path) -> None:
    """The section for one folder names it: a notebook elsewhere would choose what that one's gets."""
    (workspace / "keys.txt").write_text(DOTENV)
    mine = tmp_path / "mine"
    mine.mkdir()
    file = json.dumps(str(workspace / "keys.txt"))
    named = f"[[folder]]\npath = {json.dumps(str(mine))}\n[folder.environment]\nfrom = {{ API_KEY = {file} }}\n"
    assert run_inside(ASK, workspace=mine, policy=named).json()["API_KEY"] == "sk-1 #2"
    code = "open('new.txt', 'w')\nopen('keys.txt', 'w').write('API_KEY=chosen')"
    inside = run_inside(code, workspace=workspace, policy=named)
    assert "PermissionError" in inside.stderr
    assert (workspace / "new.txt").exists()
    assert (workspace / "keys.txt").read_text() == DOTENV
    assert run_inside(ASK, workspace=workspace, policy=named).json()["API_KEY"] is None
