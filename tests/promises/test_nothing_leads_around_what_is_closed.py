"""What is closed is reached by names that the user's programs know. Whoever exchanges a link on the way, or makes one
where nothing is yet, would have them read something else; so the ways there are closed too.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.folders import CONTENT, git, make_home
from tests.support.sandbox import Result, launcher_command, run_inside, run_outside

STEP = """
import contextlib, os
def step(*works):
    for work in works:
        with contextlib.suppress(OSError):
            work()
def evil(path):
    step(lambda: os.makedirs(os.path.dirname(path), exist_ok=True), lambda: open(path, "w").write("evil"))
"""

# Ways to put something at "settings", where the next kernel's policy would lie beneath.
PUT = {
    "a link": 'step(lambda: os.symlink("data", "settings"))',
    "a link by its whole path": 'step(lambda: os.symlink(os.path.abspath("data"), "settings"))',
    "a link made elsewhere": 'step(lambda: os.symlink("data", "x"), lambda: os.rename("x", "settings"))',
    "a folder made elsewhere": 'step(lambda: os.rename("data", "settings"), lambda: os.symlink("settings", "data"))',
    "a link in an own folder": 'step(lambda: os.mkdir("settings"), lambda: os.symlink("../data/sandboxed-kernel",'
    ' "settings/sandboxed-kernel"))',
}


def run(inside: bool, code: str, home: Path, workspace: Path, **env: str) -> Result:
    return (run_inside if inside else run_outside)(STEP + code, workspace=workspace, env={"HOME": str(home), **env})


@pytest.mark.parametrize("put", PUT.values(), ids=PUT)
def test_only_a_folder_can_be_made_on_the_way_to_what_is_not_there_yet(put: str, tmp_path: Path) -> None:
    code = f'{put}\nevil("data/sandboxed-kernel/policy.toml")'
    for inside in (False, True):
        home = make_home(tmp_path / str(inside))
        run(inside, code, home, home, XDG_CONFIG_HOME=str(home / "settings")).check()
        assert (home / "settings" / "sandboxed-kernel" / "policy.toml").exists() is not inside


def make_links(home: Path) -> dict[str, str]:
    """The user's own links, visible in the home folder, on the way to what every shell and git outside obey."""
    for name in ("src/dots/bashrc", "tools/v1/bin/tool", "hooks/kept/pre-commit", "deep/net/netrc"):
        (home / name).parent.mkdir(parents=True)
        (home / name).write_text(CONTENT)
    for link, target in (("dots", "src/dots"), ("tools/current", "v1"), ("hooks/now", "kept"), ("net", "deep/net")):
        (home / link).symlink_to(target)
    (home / ".bashrc").unlink()
    (home / ".bashrc").symlink_to("dots/bashrc")
    (home / "proj" / ".netrc").symlink_to("../net/netrc")
    with (home / "proj" / ".git" / "config").open("a") as settings:
        settings.write("[core]\n\thooksPath = ../hooks/now\n")
    return {"PATH": f"{home}/tools/current/bin:{home}/go/bin:{os.environ['PATH']}"}


OBEYED = (".bashrc", "tools/current/bin/tool", "hooks/now/pre-commit", "proj/.netrc")
EXCHANGE = """
for link, rest in (("dots", "bashrc"), ("tools/current", "bin/tool"), ("hooks/now", "pre-commit"), ("net", "netrc")):
    made = f"data/{link}"
    evil(f"{made}/{rest}")
    step(lambda: os.rename(link, link + "-old"))
    step(lambda: os.unlink(link))
    step(lambda: os.symlink(os.path.abspath(made), link), lambda: os.rename("x", link))
    step(lambda: os.symlink(os.path.abspath(made), "x"), lambda: os.rename("x", link))
    evil(f"{link}/{rest}")
evil("data/bin/ls")
step(lambda: os.symlink("data", "go"))
"""


def test_links_on_the_way_to_what_is_closed_stay(tmp_path: Path) -> None:
    for inside in (False, True):
        home = make_home(tmp_path / str(inside))
        run(inside, EXCHANGE, home, home, **make_links(home)).check()
        for name in OBEYED:
            assert ((home / name).read_text() == CONTENT) is inside, name
        assert (home / "go" / "bin" / "ls").exists() is not inside


# A file, or a folder, is exchanged for a link while it is moved: "profile" is open here and closed there.
SWAP = """
import ctypes, threading, time
libc = ctypes.CDLL(None)
end = time.monotonic() + 4
os.symlink("profile", "data/link")
make("data/thing")
def swap():
    while time.monotonic() < end:
        libc.renameat2(-100, b"data/thing", -100, b"data/link", 2)
def move():
    while time.monotonic() < end and not os.path.islink("dotfiles/note.ipynb"):
        with contextlib.suppress(OSError):
            os.rename("data/thing", "dotfiles/note.ipynb")
            if os.path.islink("dotfiles/note.ipynb"):
                return
            free = "data/link" if os.path.lexists("data/thing") else "data/thing"
            os.rename("dotfiles/note.ipynb", free)
threads = [threading.Thread(target=each) for each in (swap, move)]
[each.start() for each in threads]
[each.join() for each in threads]
"""


@pytest.mark.parametrize("make", ["os.mkdir", 'lambda path: open(path, "w").close()'], ids=["folder", "file"])
def test_what_is_moved_is_what_was_looked_at(make: str, tmp_path: Path) -> None:
    for inside in (False, True):
        home = make_home(tmp_path / str(inside))
        run(inside, f"make = {make}\n{SWAP}", home, home).check()
        assert (home / "dotfiles" / "note.ipynb").is_symlink() is not inside


NAMED = (
    "proj/one line/pre-commit", "proj/included/pre-commit", "proj/tools/diff.sh", "proj/watch it", "githooks/pre-push",
    "proj/relative/pre-push", "settings/git", "wt/tree-hooks/pre-commit",
)  # fmt: skip


def make_settings(home: Path) -> None:
    """The user's settings of git, in several files, with what they name."""
    for name in NAMED:
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(CONTENT)
    with (home / "proj" / ".git" / "config").open("a") as settings:
        settings.write(
            '[core] hooksPath = "one line"\n[include] path = more\n[core]\n\tfsmonitor = "watch it"\n'
            '[diff "x"]\n\tcommand = sh tools/diff.sh -q\n'
        )
    (home / "proj" / ".git" / "more").write_text("[core]\n\thooksPath = included\n")
    (home / ".gitconfig").write_text("[core]\n\thooksPath = ~/githooks\n[include]\n\tpath = ~/settings/git\n")
    (home / "settings" / "git").write_text(f"{CONTENT}\n[core]\n\thooksPath = relative\n")
    (home / "wt" / ".git").write_text("gitdir: ../proj/.git/worktrees/wt\n")
    (home / "proj" / ".git" / "worktrees" / "wt").mkdir(parents=True)
    (home / "proj" / ".git" / "worktrees" / "wt" / "commondir").write_text("../..\n")
    with (home / "proj" / ".git" / "config").open("a") as settings:
        settings.write("[core]\n\thooksPath = tree-hooks\n")


def test_what_gits_settings_name_stays(tmp_path: Path) -> None:
    code = f"for name in {NAMED!r}: evil(name); evil(os.path.dirname(name) + '/new') if 'ook' in name else None"
    for inside in (False, True):
        home = make_home(tmp_path / str(inside))
        make_settings(home)
        run(inside, code, home, home).check()
        for name in NAMED:
            assert (home / name).read_text().startswith(CONTENT) is inside, name
        assert (home / "githooks" / "new").exists() is not inside


def test_a_fifo_among_gits_settings_holds_up_no_start(tmp_path: Path) -> None:
    """The code of an earlier kernel can leave one in a folder of its own."""
    home = make_home(tmp_path)
    for name in ("config", "commondir"):
        (home / "data" / ".git").mkdir(exist_ok=True)
        os.mkfifo(home / "data" / ".git" / name)
    run(True, "pass", home, home).check()


# Where the notebook lies, and what in that folder must stay.
WITHIN = {
    "env": ("pyvenv.cfg", "lib/python3/site-packages/x.pth", "bin/activate", "lib/new.pth", "conda-meta/history"),
    "env/lib/python3": ("site-packages/x.pth", "new.py"),
    "proj/.venv/lib": ("python/site-packages/evil.pth", "new.pth"),
    "hub": ("config", "hooks/post-receive", "commondir"),
    "proj/.git": ("config", "hooks/post-commit", "commondir"),
    "proj/.git/hooks": ("post-commit", "pre-commit"),
    "proj/.vscode": ("tasks.json", "settings.json"),
}


@pytest.mark.parametrize("place", WITHIN)
def test_what_the_notebook_lies_in_stays(place: str, tmp_path: Path) -> None:
    code = f"for name in {WITHIN[place]!r}: evil(name)"
    for inside in (False, True):
        home = make_home(tmp_path / str(inside))
        git("init", "--quiet", "--bare", "hub", folder=home)
        for name in ("pyvenv.cfg", "lib/python3/site-packages/x.pth", "bin/activate"):
            (home / "env" / name).parent.mkdir(parents=True, exist_ok=True)
            (home / "env" / name).write_text(CONTENT)
        run(inside, code, home, home / place).check()
        for name in WITHIN[place]:
            path = home / place / name
            assert (path.exists() and path.read_text() == "evil") is not inside, name


def test_notebooks_work_in_an_environment_that_they_lie_in(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    (home / "env" / "lib").mkdir(parents=True)
    (home / "env" / "lib" / "code.py").write_text("x = 1\n")
    (home / "env" / "pyvenv.cfg").write_text("home = /usr/bin\n")
    code = 'os.mkdir("out"); open("out/a", "w").close(); open("b", "w").close(); print(open("lib/code.py").read())'
    assert "x = 1" in run(True, code, home, home / "env").check().stdout


def test_a_descriptor_gives_no_more_than_the_files_name(tmp_path: Path) -> None:
    code = """
for name in ("proj/.git/config", "proj/.pre-commit-config.yaml"):
    number = os.open(name, os.O_RDONLY)
    for path in (f"/proc/self/fd/{number}", f"/dev/fd/{number}", f"/proc/thread-self/fd/{number}"):
        step(lambda: open(path, "w").write("evil"), lambda: os.truncate(path, 0))
        step(lambda: os.link(path, "data/linked", follow_symlinks=True), lambda: open("data/linked", "w").write("evil"))
"""
    for inside in (False, True):
        home = make_home(tmp_path / str(inside))
        config = (home / "proj" / ".git" / "config").read_text()
        run(inside, code, home, home).check()
        assert ((home / "proj" / ".pre-commit-config.yaml").read_text() == CONTENT) is inside
        assert ((home / "proj" / ".git" / "config").read_text() == config) is inside


HUBS = ("hub.git", "proj/hub.git", "many/1/hub.git")
UNMARK = """
for hub in HUBS:
    for name in ("HEAD", "objects", "refs"):
        for path in (f"{hub}/{name}", f"{hub}/hooks/../{name}"):
            step(lambda: os.unlink(path), lambda: os.rename(path, f"{hub}/hooks/../BISECT_LOG"))
            step(lambda: os.rename(path, "data/" + name), lambda: os.rmdir(path))
    for name in ("hooks/../hooks/post-receive", "hooks/../config", "hooks/post-receive", "config"):
        evil(f"{hub}/{name}")
"""


def test_a_repository_stays_one(tmp_path: Path) -> None:
    """A bare one is known by what is in it, some of which git writes."""
    for inside in (False, True):
        home = make_home(tmp_path / str(inside))
        for number in range(6000):  # more than are looked at
            (home / "many" / str(number)).mkdir(parents=True)
        for hub in HUBS:
            git("init", "--quiet", "--bare", hub, folder=home)
        run(inside, f"HUBS = {HUBS!r}{UNMARK}", home, home).check()
        for hub in HUBS:
            assert ((home / hub / "config").read_text() == "evil") is not inside
            assert (home / hub / "hooks" / "post-receive").exists() is not inside


PUBLIC = """
import struct
acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *each) for each in ((1, 7, -1), (4, 7, -1), (32, 7, -1)))
for name in ("proj", "proj/deep", "proj/deep/er", "unseen/1/x"):
    number = os.open(name, os.O_RDONLY)
    step(lambda: os.chmod(name, 0o755), lambda: os.fchmod(number, 0o707), lambda: os.chmod(name, 0))
    for kind in ("access", "default"):
        step(lambda: os.setxattr(name, f"system.posix_acl_{kind}", acl))
    os.chmod(name, 0o700)
os.makedirs("made/inner")
os.chmod("made", 0o755)
os.chmod("made/inner", 0o701)
os.chmod("data", 0o755)
"""


def test_a_folder_that_holds_something_closed_is_not_made_public(tmp_path: Path) -> None:
    """A key in it that others may read is closed to them by the folder's own mode."""
    folders = ("proj", "proj/deep", "proj/deep/er", "unseen/1/x")
    for inside in (False, True):
        home = make_home(tmp_path / str(inside))
        for number in range(6000):
            (home / "unseen" / str(number)).mkdir(parents=True)
        (home / "unseen" / "1" / "x").mkdir()
        (home / "unseen" / "1" / "x" / ".env").write_text(CONTENT)
        for name in folders:
            (home / name).chmod(0o700)
        code = PUBLIC if inside else PUBLIC.replace("os.chmod(name, 0o700)", "os.chmod(name, 0o755)")
        run(inside, code, home, home).check()
        for name in folders:
            assert ((home / name).stat().st_mode & 0o777 == 0o700) is inside, name
            assert not inside or not [each for each in os.listxattr(home / name) if "acl" in each]


NAMES = {
    "proj/linked": "proj/.env", "proj/src/linked": "proj/.env", "proj/hook.sh": "proj/.git/hooks/post-commit",
    "proj/src/tasks": "proj/.vscode/tasks.json", "proj/src/rc": ".bashrc", "proj/git-settings": ".config/git/config",
    "proj/policy": "policy.toml",
}  # fmt: skip


def test_another_name_of_a_closed_file_is_as_closed(tmp_path: Path) -> None:
    """Hard links that the user made: a hook, dot files, a policy that are kept in a project."""
    code = f"""
import contextlib
for path in {[name.removeprefix("proj/") for name in NAMES]!r}:
    with contextlib.suppress(OSError):
        print(open(path).read())
    with contextlib.suppress(OSError):
        open(path, "r+").write("evil")
"""
    for inside in (False, True):
        home = make_home(tmp_path / str(inside))
        for name, of in NAMES.items():
            (home / of).parent.mkdir(parents=True, exist_ok=True)
            if not (home / of).exists():
                (home / of).write_text("" if of == "policy.toml" else CONTENT)
            os.link(home / of, home / name)
        before = [(home / of).read_text() for of in NAMES.values()]
        if inside:
            command = launcher_command("", home, home / "proj", tmp_path / "audit.jsonl")
            done = subprocess.run(
                [*command, sys.executable, "-c", code],
                cwd=home / "proj", env={**os.environ, "HOME": str(home)}, capture_output=True, text=True, timeout=60,
                check=True,
            )  # fmt: skip
        else:
            done = subprocess.run(
                [sys.executable, "-c", code], cwd=home / "proj", capture_output=True, text=True, check=True
            )
        assert ([(home / of).read_text() for of in NAMES.values()] == before) is inside
        assert done.stdout.count(CONTENT) == (2 if inside else 5), "of the hook and the tasks: they may be read"
