"""What closed things in and above the notebook's folder name stays as it is: programs outside run it by themselves."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.folders import CONTENT, make_home
from tests.support.sandbox import run_inside, run_outside

# Every way to write a file, or to put another one in its place.
EVIL = """
import contextlib, os
def ways(path):
    folder = os.path.dirname(path)
    yield lambda: os.makedirs(folder or ".", exist_ok=True)
    yield lambda: open(path, "w").write("evil")
    yield lambda: os.unlink(path)
    yield lambda: (open("x", "w").write("evil"), os.replace("x", path))
    yield lambda: (open("x", "w").write("evil"), os.link("x", path))
    if folder:
        yield lambda: os.rename(folder, folder + "-old")
        yield lambda: os.makedirs(folder)
        yield lambda: open(path, "w").write("evil")
for way in ways(PATH):
    with contextlib.suppress(OSError):
        way()
with contextlib.suppress(OSError):
    open("beside.csv", "w").write("a,b")
"""

SCRIPT = "proj/scripts/check.sh"
Make = Callable[[Path], dict[str, str]]


def write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def with_file(name: str, text: str) -> Make:
    """``text`` is added to the file ``name`` beneath the home folder."""

    def make(home: Path) -> dict[str, str]:
        old = (home / name).read_text() if (home / name).exists() else ""
        write(home / name, (old if old != CONTENT else "") + text, 0o755)
        return {}

    return make


def with_setting(text: str) -> Make:
    return with_file("proj/.git/config", text)


def with_variables(**variables: str) -> Make:
    return lambda home: {name: value.replace("HOME", str(home)) for name, value in variables.items()}


def linked_hook(home: Path) -> dict[str, str]:
    hook = home / "proj/.git/hooks/pre-commit"
    hook.symlink_to("../../scripts/check.sh")
    return {}


def linked_hooks(home: Path) -> dict[str, str]:
    hooks = home / "proj/.git/hooks"
    hooks.rename(hooks.with_name("hooks-before"))
    hooks.symlink_to("../scripts")
    return {}


def linked_repository(home: Path) -> dict[str, str]:
    (home / "proj/.git").rename(home / "proj/store")
    (home / "proj/.git").symlink_to("store")
    return with_file("proj/store/config", "[core]\n\thooksPath = scripts\n")(home)


def named_hooks(home: Path) -> dict[str, str]:
    with_setting("[core]\n\thooksPath = githooks\n")(home)
    return with_file("proj/githooks/pre-commit", "#!/bin/sh\nscripts/check.sh\n")(home)


def hook_of_two(home: Path) -> dict[str, str]:
    with_file("proj/tools/first.sh", '. "$(dirname "$0")/../scripts/check.sh"\n')(home)
    return with_file("proj/.git/hooks/pre-push", "tools/first.sh\n")(home)


def work_tree(home: Path) -> dict[str, str]:
    write(home / "main/.git/worktrees/w/config.worktree", "[core]\n\tfsmonitor = scripts/check.sh\n")
    write(home / "main/.git/worktrees/w/commondir", "../..\n")
    write(home / "main/.git/config", "[extensions]\n\tworktreeConfig = true\n")
    for path in sorted((home / "proj/.git").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (home / "proj/.git").rmdir()
    write(home / "proj/.git", "gitdir: ../main/.git/worktrees/w\n")
    return {}


def very_many(home: Path) -> dict[str, str]:
    """More entries than a start looks at; ``.git`` comes late among them, perhaps."""
    with_setting("[core]\n\thooksPath = scripts\n")(home)
    for number in range(100_100):
        os.close(os.open(home / "proj" / f"n{number}", os.O_CREAT))
    return {}


# What is made, the notebook's folder, and the file that programs outside run.
CASES: dict[str, tuple[Make, str, str]] = {
    "a link among the hooks": (linked_hook, "proj", SCRIPT),
    "the hooks are a link": (linked_hooks, "proj", SCRIPT),
    "the repository is a link": (linked_repository, "proj", SCRIPT),
    "a hook": (
        with_file("proj/.git/hooks/pre-commit", 'exec "$(git rev-parse --show-toplevel)/scripts/check.sh"\n'),
        "proj", SCRIPT),
    "a hook in a named folder": (named_hooks, "proj", SCRIPT),
    "a script of a hook": (hook_of_two, "proj", SCRIPT),
    "a module of a hook": (
        with_file("proj/.git/hooks/pre-commit", "exec python3 -m strip_outputs\n"), "proj", "proj/strip_outputs.py"),
    "the standard library of a hook": (
        with_file("proj/.git/hooks/pre-commit", 'exec "$INSTALL_PYTHON" -mpre_commit "${ARGS[@]}"\n'),
        "proj", "proj/argparse.py"),
    "a package of a hook's": (
        with_file("proj/.git/hooks/pre-commit", 'exec "$INSTALL_PYTHON" -mpre_commit "${ARGS[@]}"\n'),
        "proj", "proj/json/__init__.py"),
    "an installed package of a filter": (
        with_setting(f'[filter "x"]\n\tclean = \\"{sys.executable}\\" -m nbstripout\n'),
        "proj", "proj/pytest.cpython-311-x86_64-linux-gnu.so"),
    "beside a Python program of a hook": (
        with_file("proj/.git/hooks/pre-commit", "python3 ./scripts/lint.py\n"), "proj", "proj/scripts/json.py"),
    "settings above": (with_setting('[filter "x"]\n\tclean = scripts/check.sh %f\n'), "proj/scripts", SCRIPT),
    "hooks above": (with_setting("[core]\n\thooksPath = scripts\n"), "proj/scripts", SCRIPT),
    "hooks further above": (with_setting("[core]\n\thooksPath = ./scripts/\n"), "proj/scripts/deep", SCRIPT),
    "a work tree's own settings": (work_tree, "proj", SCRIPT),
    "a submodule's command": (with_setting('[submodule "x"]\n\tupdate = !scripts/check.sh\n'), "proj", SCRIPT),
    "a hook of gc": (with_setting("[gc]\n\trecentObjectsHook = scripts/check.sh\n"), "proj", SCRIPT),
    "a tunnel": (with_setting("[imap]\n\ttunnel = scripts/check.sh\n"), "proj", SCRIPT),
    "a setting of later versions": (with_setting("[new]\n\tsetting = sh scripts/check.sh\n"), "proj", SCRIPT),
    "a helper's address": (with_setting('[remote "x"]\n\turl = ext::sh scripts/check.sh %S\n'), "proj", SCRIPT),
    "settings of the machine": (
        lambda home: {
            **with_file("settings-of-git", "[core]\n\thooksPath = scripts\n")(home),
            "GIT_CONFIG_SYSTEM": f"{home}/settings-of-git",
        },
        "proj", SCRIPT),
    "settings in variables": (
        with_variables(GIT_CONFIG_COUNT="1", GIT_CONFIG_KEY_0="core.hooksPath", GIT_CONFIG_VALUE_0="scripts"),
        "proj", SCRIPT),
    "direnv": (with_file("proj/.envrc", "source_env scripts/check.sh\n"), "proj", SCRIPT),
    "direnv above": (with_file("proj/.envrc", "source_env scripts/check.sh\n"), "proj/scripts", SCRIPT),
    "a folder that direnv puts on PATH": (with_file("proj/.envrc", "PATH_add tools\n"), "proj", "proj/tools/ls"),
    "pre-commit": (
        with_file("proj/.pre-commit-config.yaml", "- id: x\n  entry: scripts/check.sh\n"), "proj", SCRIPT),
    "husky": (with_file("proj/.husky/pre-commit", "sh ./scripts/check.sh\n"), "proj", SCRIPT),
    "a task": (
        with_file("proj/.vscode/tasks.json", '{"command": "${workspaceFolder}/scripts/check.sh"}'), "proj", SCRIPT),
    "Python's path": (with_variables(PYTHONPATH="HOME/proj/scripts"), "proj", "proj/scripts/sitecustomize.py"),
    "Python's path itself": (
        with_variables(PYTHONPATH="/x:HOME/proj/scripts"), "proj/scripts", "proj/scripts/sitecustomize.py"),
    "the home folder on Python's path": (with_variables(PYTHONPATH="HOME"), "", "sitecustomize.py"),
    "the path itself": (
        with_variables(PATH=f"HOME/proj/scripts:{os.environ['PATH']}"), "proj/scripts", "proj/scripts/ls"),
    "a shell's first script": (with_variables(BASH_ENV="HOME/proj/scripts/check.sh"), "proj", SCRIPT),
    "very many entries": (very_many, "proj", SCRIPT),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_is_named_stays(case: str, tmp_path: Path) -> None:
    make, workspace, name = CASES[case]
    for inside in (False, True):
        home = make_home(tmp_path / str(inside))
        write(home / SCRIPT, CONTENT)
        write(home / "proj/scripts/lint.py", CONTENT)
        (home / workspace).mkdir(exist_ok=True)
        variables = make(home)
        before = content(home / name)
        code = EVIL.replace("PATH", repr(os.path.relpath(home / name, home / workspace)))
        runner = run_inside if inside else run_outside
        runner(code, workspace=home / workspace, env={"HOME": str(home), **variables}).check()
        assert (content(home / name) == before) is inside
        if workspace in ("proj", "proj/scripts/deep") and "further" not in case:
            assert content(home / workspace / "beside.csv") == "a,b"


def content(path: Path) -> str | None:
    return path.read_text() if path.exists() else None


def test_a_folder_that_is_read_only_for_what_it_is_says_so(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    found = run_inside(
        "open('ls', 'w')", workspace=home / "data", env={"HOME": str(home), "PATH": f"{home}/data:/usr/bin"}
    )
    assert "PermissionError" in found.stderr
    assert "this folder is read only, since it is a folder on PATH" in found.stderr
    assert found.refused(kind="file", address=str(home / "data" / "ls"))


def test_git_and_its_hooks_work_beside(tmp_path: Path) -> None:
    """A hook that starts a Python, files of the user's that are named as modules, data that a hook leaves out."""
    home = make_home(tmp_path)
    write(home / "proj/.git/hooks/pre-commit", '#!/bin/sh\n: "/usr/bin/python3" -mpre_commit\necho ran > ran\n', 0o755)
    with_file("proj/.pre-commit-config.yaml", "- id: x\n  entry: scripts/check.sh\n  exclude: data.csv\n")(home)
    write(home / "proj/code.py", "x = 1\n")
    write(home / "proj/email/one.txt", "1\n")
    code = """
import json, os, subprocess
for path in ("code.py", "data.csv", "email/one.txt", "email/two.txt", "src/code.py"):
    open(path, "a").write("more")
for folder in ("json", "html", "results"):
    os.mkdir(folder)
    open(folder + "/x", "w").write("more")
subprocess.run(["git", "commit", "--quiet", "-a", "-m", "second"], check=True)
print(open("ran").read(), subprocess.run(["git", "log", "--format=%s"], capture_output=True, text=True).stdout)
"""
    policy = f"[environment]\nset = {{ {', '.join(f'{name} = {value!r}' for name, value in WHO.items())} }}\n"
    found = run_inside(code, workspace=home / "proj", env={"HOME": str(home)}, policy=policy).check()
    assert found.stdout.split() == ["ran", "second", "first"]


WHO = {f"GIT_{who}_{what}": "a@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
