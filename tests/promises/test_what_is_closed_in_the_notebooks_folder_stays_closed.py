"""A notebook in the home folder or in a project: keys, environments, hooks and settings in it stay as they are.

The sandbox starts all the same, and works with the rest (test_work_goes_on_beside_what_is_closed.py).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.folders import CONTENT, OBEYED, SECRETS, git, make_home, picture
from tests.support.sandbox import LAUNCHER, Result, run_inside, run_outside

# Every way in which a file could be read or changed, its name be taken, or its folder be exchanged for another one.
WAYS = """
import contextlib, json, os, sys
read = []

def try_all(path):
    folder, name = os.path.split(path)
    number = None
    with contextlib.suppress(OSError):
        number = os.open(folder or ".", os.O_RDONLY | os.O_DIRECTORY)
    def ways():
        yield lambda: open(path, "r+").write("evil")
        yield lambda: open(path, "a").write("evil")
        yield lambda: os.truncate(path, 0)
        yield lambda: os.open(path, os.O_RDONLY | os.O_TRUNC)
        yield lambda: os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        again = os.path.join(folder, ".", "..", os.path.basename(folder), name)
        yield lambda: os.write(os.open(again, os.O_WRONLY), b"evil")
        yield lambda: os.chmod(path, 0o777)
        yield lambda: os.utime(path, (1, 1))
        yield lambda: os.setxattr(path, "user.evil", b"1")
        yield lambda: os.link(path, "linked")
        yield lambda: open("linked", "a").write("evil")
        yield lambda: os.symlink(path, "led")
        yield lambda: open("led", "a").write("evil")
        yield lambda: open("evil", "w").write("evil")
        yield lambda: os.replace("evil", path)
        yield lambda: open("evil", "w").write("evil")
        yield lambda: os.link("evil", path)
        yield lambda: os.symlink("evil", path)
        yield lambda: os.rename(path, "moved")
        yield lambda: os.rename(folder, folder + "-moved") if folder else None
        yield lambda: os.unlink(path)
        yield lambda: os.mkdir(path)
        yield lambda: os.mkfifo(path)
        yield lambda: os.makedirs(folder, exist_ok=True)
        yield lambda: open(path, "w").write("evil")
        if number is not None:
            yield lambda: os.write(os.open(name, os.O_WRONLY | os.O_CREAT, dir_fd=number), b"evil")
            yield lambda: os.write(os.open(f"/proc/self/fd/{number}/{name}", os.O_WRONLY), b"evil")
            yield lambda: os.unlink(name, dir_fd=number)
            yield lambda: os.rename("evil", name, dst_dir_fd=number)
        yield lambda: os.write(os.open("/proc/self/cwd/" + path, os.O_WRONLY | os.O_CREAT), b"evil")
        yield lambda: os.write(os.open(os.path.abspath(path), os.O_WRONLY | os.O_CREAT), b"evil")
        yield lambda: os.write(os.open(path.upper(), os.O_WRONLY), b"evil")
    for way in ways():
        with contextlib.suppress(OSError):
            way()
    with contextlib.suppress(OSError):
        read.append([path, open(path).read()])
    if number is not None:
        os.close(number)

paths = json.loads(sys.stdin.read())
for path in paths:
    with contextlib.suppress(OSError):
        read.append([path, open(path).read()])
for path in paths:
    try_all(path)
print(json.dumps(read))
"""


def names(beneath: str) -> list[str]:
    return [os.path.relpath(name, beneath or ".") for name in (*SECRETS, *OBEYED) if name.startswith(beneath)]


def closed(home: Path, beneath: str) -> dict[str, tuple[int, bytes | str]]:
    """What is at the closed names now, with what is missing."""
    found = picture(home)
    return {name: found.get(name, (0, "missing")) for name in (*SECRETS, *OBEYED) if name.startswith(beneath)}


def run(inside: bool, home: Path, folder: Path, beneath: str) -> Result:
    said = json.dumps(names(beneath))
    runner = run_inside if inside else run_outside
    return runner(WAYS, workspace=folder, env={"HOME": str(home)}, stdin=said, timeout=120).check()


@pytest.mark.parametrize("beneath", ["", "proj/"], ids=["home", "project"])
def test_what_is_closed_in_the_notebooks_folder_stays_closed(beneath: str, tmp_path: Path) -> None:
    plain = make_home(tmp_path / "plain")
    before = closed(plain, beneath)
    outside = run(False, plain, plain / beneath, beneath)
    assert all(closed(plain, beneath)[name] != before[name] for name in before), "some attacks show nothing"
    secrets = set(names(beneath)[: len([name for name in SECRETS if name.startswith(beneath)])])
    assert {path for path, _text in outside.json()} >= secrets

    home = make_home(tmp_path / "sandboxed")
    before = closed(home, beneath)
    inside = run(True, home, home / beneath, beneath)
    assert closed(home, beneath) == before
    got = {path for path, text in inside.json() if text == CONTENT}
    assert not got & secrets, inside.stdout
    assert not list(home.rglob(".sandboxed-kernel-*")), "the pool stayed"
    assert inside.refused(kind="file", address=str(home / "proj" / ".env"))
    assert inside.refused(kind="file", address=str(home / "proj" / ".git" / "hooks" / "post-commit"))


def test_what_must_not_be_moved_is_the_way_to_it_too(tmp_path: Path) -> None:
    """The policy's folder, moved away and made anew, would give the next kernel another policy."""
    home = make_home(tmp_path)
    settings = home / "settings" / "deep"
    settings.mkdir(parents=True)
    policy = settings / "policy.toml"
    policy.write_text("")
    code = """
import contextlib, os
for step in (
    lambda: os.rename("settings", "elsewhere"),
    lambda: os.rename("settings/deep", "elsewhere"),
    lambda: os.makedirs("settings/deep", exist_ok=True),
    lambda: open("settings/deep/policy.toml", "w").write("evil"),
    lambda: os.makedirs("made/deep"),
    lambda: open("made/deep/policy.toml", "w").write("evil"),
    lambda: os.rename("made", "settings"),
    lambda: os.unlink("settings/deep/policy.toml"),
    lambda: os.rmdir("settings/deep"),
    lambda: os.rename("made/deep/policy.toml", "settings/deep/policy.toml"),
):
    with contextlib.suppress(OSError):
        step()
"""
    command = [*LAUNCHER, "run", "--policy", str(policy), "--audit", str(tmp_path / "audit"), "--"]
    env = {**os.environ, "HOME": str(home)}
    done = subprocess.run(
        [*command, sys.executable, "-c", code],
        cwd=home,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (home / "made" / "deep" / "policy.toml").read_text() == "evil"
    assert policy.read_text() == ""


RACES = """
import contextlib, ctypes, os, threading, time
libc = ctypes.CDLL(None, use_errno=True)
end = time.monotonic() + 4
os.makedirs("free", exist_ok=True)
open("free/file", "w").close()
buffer = ctypes.create_string_buffer(b"x" * 64)

def swapped():  # the path is rewritten while the broker looks at it
    while time.monotonic() < end:
        buffer.value = b"free/file"
        buffer.value = b".envrc"

def opener():
    while time.monotonic() < end:
        number = libc.open(buffer, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        if number >= 0:
            os.write(number, b"evil")
            os.close(number)

def links():  # a folder becomes a link to a closed one, and a folder again
    while time.monotonic() < end:
        for step in (
            lambda: os.mkdir("turns"), lambda: os.rmdir("turns"), lambda: os.symlink(".git", "turns"),
            lambda: os.rename("turns", "turned"), lambda: os.unlink("turned"), lambda: os.rename("free", "turns"),
            lambda: os.rename("turns", "free"),
        ):
            with contextlib.suppress(OSError):
                step()

def through():
    while time.monotonic() < end:
        for path in ("turns/config", "turned/hooks/post-commit", "turns/../.env", "turns/hooks/made"):
            with contextlib.suppress(OSError):
                number = os.open(path, os.O_RDWR | os.O_CREAT)
                os.write(number, b"evil")
                os.close(number)

def walkers():  # the working directory is exchanged under a relative path
    while time.monotonic() < end:
        for folder in ("src", "..", ".git/objects", "../..", "src/.."):
            with contextlib.suppress(OSError):
                os.chdir(folder)
        with contextlib.suppress(OSError):
            os.chdir(START)

START = os.getcwd()
threads = [threading.Thread(target=each) for each in (swapped, opener, opener, links, through, through)]
[each.start() for each in threads]
[each.join() for each in threads]
end = time.monotonic() + 2
threads = [threading.Thread(target=each) for each in (walkers, through, swapped, opener)]
[each.start() for each in threads]
[each.join() for each in threads]
"""


def test_threads_that_race_the_look_gain_nothing(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    before = closed(home, "")
    run_inside(RACES, workspace=home / "proj", env={"HOME": str(home)}).check()
    assert closed(home, "") == before
    assert not (home / "proj" / ".git" / "hooks" / "made").exists()


def test_git_that_cannot_change_a_closed_file_is_told(tmp_path: Path) -> None:
    """It says "Switched to branch" and ends with 0: the next commit would silently take the change back."""
    home = make_home(tmp_path)
    project = home / "proj"
    git("add", "--force", ".pre-commit-config.yaml", folder=project)
    git("commit", "--quiet", "-m", "hooks", folder=project)
    git("checkout", "--quiet", "-b", "other", folder=project)
    (project / ".pre-commit-config.yaml").write_text("other\n")
    git("commit", "--quiet", "-a", "-m", "other", folder=project)
    git("checkout", "--quiet", "main", folder=project)
    code = 'import subprocess; subprocess.run(["git", "checkout", "other"], check=False)'
    inside = run_inside(code, workspace=project, env={"HOME": str(home)}).check()
    assert (project / ".pre-commit-config.yaml").read_text() == CONTENT
    assert inside.refused(kind="file", address=str(project / ".pre-commit-config.yaml"), process="git")


def test_what_a_killed_sandbox_left_in_the_folder_goes_with_the_next(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    left = home / "proj" / ".sandboxed-kernel-pool-00000000"
    (left / "0").mkdir(parents=True)
    (left / "0" / "file").write_text("left")
    run_inside("pass", workspace=home / "proj", env={"HOME": str(home)}).check()
    assert not left.exists()


# What an attacker with the source found on the first version: steps that need more than one name.
DETOURS = """
import contextlib, json, os
read = []
def step(*works):
    for work in works:
        with contextlib.suppress(OSError, ValueError):
            work()
def look(path):
    with contextlib.suppress(OSError):
        read.append([path, open(path).read()])
def evil(path):
    step(lambda: open(path, "a").write("evil"))
    step(lambda: open(path, "w").write("evil"))

(pool,) = [name for name in os.listdir(".") if name.startswith(".sandboxed-kernel-pool-")] or [""]
# Moved into a folder in which no name is judged.
for place in ("data/moved", "proj/.git/rebase-merge", f"{pool}/0/moved"):
    for name in ("proj", "deep", "keep"):
        step(lambda: os.makedirs(os.path.dirname(place)), lambda: os.rename(name, place))
        for path in (f"{place}/.env", f"{place}/.git/hooks/post-commit", f"{place}/er/.env", f"{place}/kept/.env"):
            look(path); evil(path)
        step(lambda: os.rename(place, name))
# Moved aside, and made anew.
step(lambda: os.rename("proj", "aside"), lambda: os.mkdir("proj"), lambda: os.makedirs("proj/.venv/lib"))
evil("proj/.venv/pyvenv.cfg"); evil("proj/.git/config")
step(lambda: os.rename("keep", "aside2"), lambda: os.makedirs("keep/kept")); evil("keep/kept/.env")
# Where closed links lead.
for path in ("secrets/prod.txt", "dotfiles/netrc", "dotfiles/ssh/config", "dotfiles/sshd/id", "dotfiles/profile"):
    look(path); evil(path)
# Links of its own that lead programs outside.
step(lambda: os.symlink("profile", "data/l"), lambda: os.rename("data/l", "dotfiles/note.ipynb"))
step(lambda: os.symlink(".bashrc", "data/l2"), lambda: os.rename("data/l2", "note.ipynb"))
step(lambda: os.mkdir("e"), lambda: os.symlink("e/.env", "p.json"), lambda: os.rename("e", "e2"),
     lambda: os.symlink("keep/kept", "e"))
step(lambda: os.symlink("conf", "g"), lambda: os.symlink(".", "h"), lambda: os.symlink("h/.bashrc", "i"))
step(lambda: os.mkdir("proj/.git/rebase-merge"), lambda: os.symlink("hooks/post-commit", "proj/.git/rebase-merge/l"),
     lambda: os.rename("proj/.git/rebase-merge/l", "proj/.git/COMMIT_EDITMSG"),
     lambda: os.symlink("hooks/post-commit", "proj/.git/COMMIT_EDITMSG"))
# Secrets in closed folders, beside them, and copies.
for path in (".devcontainer/.env", "proj/.devcontainer/.env", "deploy/.env", "deploy/server.key", "..env.swp", ".env~",
             "data/.env_prod", "proj/.ipynb_checkpoints/.env-checkpoint", "#.env#", "key.p12", "proj/.npmrc"):
    look(path); evil(path)
# What a repository names, repositories in repositories, bare ones.
for path in ("proj/githooks/pre-commit", "proj/gitconf", "proj/.git/modules/lib/logs/config",
             "hub.git/hooks/post-receive", "hub.git/config", "hub.git/commondir", "bin/tool"):
    evil(path)
step(lambda: os.chmod(".", 0o777))
print(json.dumps(read))
"""


def make_detours(home: Path) -> list[Path]:
    """What these are about; the files that must be neither read nor changed."""
    files = [
        home / name
        for name in (
            "deep/er/.env", "keep/kept/.env", "secrets/prod.txt", "dotfiles/netrc", "dotfiles/ssh/config",
            "dotfiles/sshd/id", "proj/.devcontainer/.env", "deploy/.env", "deploy/server.key", "..env.swp", ".env~",
            "data/.env_prod", "proj/.ipynb_checkpoints/.env-checkpoint", "#.env#", "key.p12", "proj/.npmrc",
            "proj/githooks/pre-commit", "proj/gitconf", "proj/.git/modules/lib/logs/config",
            "hub.git/hooks/post-receive", "bin/tool",
        )
    ]  # fmt: skip
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(CONTENT)
    (home / ".netrc").symlink_to("dotfiles/netrc")
    (home / ".ssh" / "config").symlink_to(home / "dotfiles" / "ssh" / "config")
    (home / ".sshd").symlink_to("dotfiles/sshd")
    (home / "proj" / ".env.prod").symlink_to("../secrets/prod.txt")
    (home / "deploy" / "pyvenv.cfg").write_text("home = /usr/bin")
    (home / "proj" / ".git" / "modules" / "lib" / "logs" / "HEAD").write_text("ref: refs/heads/main")
    for name in ("objects", "refs"):
        (home / "hub.git" / name).mkdir()
    (home / "hub.git" / "HEAD").write_text("ref: refs/heads/main")
    with (home / "proj" / ".git" / "config").open("a") as settings:
        settings.write("[core]\n\thooksPath = githooks\n[include]\n\tpath = ../gitconf\n")
    return files


def test_detours_lead_nowhere(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    files = make_detours(home)
    mode = home.stat().st_mode
    before = closed(home, "")
    config = (home / "proj" / ".git" / "config").read_text()
    links = {path for path in home.rglob("*") if path.is_symlink()}
    inside = run_inside(DETOURS, workspace=home, env={"HOME": str(home)}).check()
    assert {str(file) for file in files if not file.exists() or file.read_text() != CONTENT} == set()
    assert closed(home, "") == before
    assert (home / "proj" / ".git" / "config").read_text() == config
    assert [path for path, text in inside.json() if CONTENT in text] == []
    assert home.stat().st_mode == mode
    assert not (home / "hub.git" / "commondir").exists()
    # No link leads a program outside to what is closed.
    for link in {path for path in home.rglob("*") if path.is_symlink()} - links:
        leads_to = link.resolve()
        assert leads_to not in [*files, home / ".bashrc", home / "dotfiles" / "profile"], link
        assert not leads_to.is_relative_to(home / "keep"), link


@pytest.mark.parametrize("name", ["proj", "dotfiles", "keep/kept"])
def test_the_detours_work_without_a_sandbox(name: str, tmp_path: Path) -> None:
    home = make_home(tmp_path)
    files = make_detours(home)
    run_outside(DETOURS, workspace=home, env={"HOME": str(home)}).check()
    changed = {str(file) for file in files if not file.exists() or file.read_text() != CONTENT}
    assert any(path.startswith(str(home / name)) for path in changed)
