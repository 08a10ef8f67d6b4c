"""In a folder that holds closed entries, everyday work gives what it gives without a sandbox."""

from __future__ import annotations

import os
import shutil
import struct
from pathlib import Path

import pytest

from tests.support.folders import GIT, make_home, picture
from tests.support.sandbox import run_inside, run_outside

# Each step is one everyday operation beside closed entries; what it gives is compared.
WORK = r"""
import contextlib, csv, glob, io, json, mmap, os, pathlib, shutil, sqlite3, stat, subprocess, sys, tarfile, tempfile
import zipfile
said = {}

def step(work):
    try:
        said[work.__name__] = work()
    except OSError as error:
        said[work.__name__] = type(error).__name__, error.errno

def sh(command):
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr

@step
def listing(): return sorted(each for each in os.listdir(".") if not each.startswith(".sandboxed-kernel"))
@step
def scan(): return sorted((each.name, each.is_dir()) for each in os.scandir(".") if not each.name.startswith("."))
@step
def new_file(): return pathlib.Path("new.txt").write_text("new"), pathlib.Path("new.txt").read_text()
@step
def append():
    with open("new.txt", "a") as file: file.write("er")
    return open("new.txt").read()
@step
def absolute(): return pathlib.Path.cwd().joinpath("new.txt").read_text()
@step
def by_descriptor(): return sh("cat /dev/stdin < new.txt; cat /dev/fd/3 3< new.txt; cat /proc/self/fd/0 < new.txt")
@step
def by_descriptor_to_write(): return sh("echo more > new2.txt; echo x 3<> new2.txt > /dev/fd/3; cat new2.txt")
@step
def around():
    here = os.getcwd()
    paths = (f"/{here}/new.txt", f"{here}/../{os.path.basename(here)}/new.txt", f"{here}//./new.txt")
    return [open(path).read() for path in paths]
@step
def exclusive(): return open("new.txt", "x")
@step
def exclusive_new(): return open("excl", "x").close()
@step
def missing(): return open("missing.txt")
@step
def not_a_folder(): return open("new.txt/x")
@step
def a_folder(): return open("data", "w")
@step
def folder_slash(): return open("new.txt/", "r")
@step
def made_with_slash(): return open("made/", "w")
@step
def truncated():
    os.truncate("new.txt", 3)
    return os.stat("new.txt").st_size
@step
def opened_to_truncate(): return open("excl", "w").write("1234"), open("excl", "w").close(), os.stat("excl").st_size
@step
def updated():
    with open("new.txt", "r+") as file:
        file.seek(1); file.write("X")
    return open("new.txt").read()
@step
def append_flag(): return __import__("fcntl").fcntl(os.open("new.txt", os.O_WRONLY | os.O_APPEND), 3) & os.O_APPEND
@step
def no_nonblock(): return __import__("fcntl").fcntl(os.open("new.txt", os.O_RDONLY), 3) & os.O_NONBLOCK
@step
def inheritable(): return os.get_inheritable(os.open("new.txt", os.O_RDONLY))
@step
def modes():
    old = os.umask(0o027)
    os.close(os.open("private.txt", os.O_CREAT | os.O_WRONLY, 0o666)); os.mkdir("private", 0o777)
    os.umask(0)
    os.close(os.open("public.txt", os.O_CREAT | os.O_WRONLY, 0o666)); os.mkdir("public", 0o777)
    os.umask(old)
    return [oct(os.stat(each).st_mode) for each in ("private.txt", "private", "public.txt", "public")]
@step
def save_by_rename():
    with open("new.txt.part", "w") as file: file.write("whole")
    os.replace("new.txt.part", "new.txt")
    return open("new.txt").read()
@step
def rename_over_folder(): return os.rename("new.txt", "data")
@step
def rename_folder(): return os.mkdir("one"), os.rename("one", "two"), os.path.isdir("two")
@step
def rename_missing(): return os.rename("nothing", "something")
@step
def rename_into():
    open("moving", "w").write("m"); os.rename("moving", "two/moved"); os.rename("two/moved", "moved")
    return open("moved").read()
@step
def move(): return shutil.move("moved", "two"), os.listdir("two")
@step
def tree():
    os.makedirs("a/b/c", exist_ok=True); os.makedirs("a/b/c", exist_ok=True)
    open("a/b/c/f", "w").write("f")
    return [(str(path)) for path in sorted(pathlib.Path("a").rglob("*"))]
@step
def remove_filled(): return os.rmdir("a")
@step
def remove_file_as_folder(): return os.rmdir("new.txt")
@step
def remove_folder_as_file(): return os.unlink("a")
@step
def make_again(): return os.mkdir("a")
@step
def remove_tree(): return shutil.rmtree("a"), os.path.exists("a")
@step
def often():
    for _ in range(100):
        os.mkdir("often"); open("often/x", "w").close(); os.unlink("often/x"); os.rmdir("often")
@step
def copies(): return shutil.copy("new.txt", "copied.txt"), shutil.copytree("two", "three"), open("copied.txt").read()
@step
def hard_link(): return os.link("new.txt", "linked"), os.stat("linked").st_nlink, os.unlink("linked")
@step
def hard_link_into(): return os.link("new.txt", "two/linked"), os.link("two/linked", "again"), os.stat("again").st_nlink
@step
def link(): return os.symlink("new.txt", "pointer"), open("pointer").read(), os.readlink("pointer")
@step
def write_through_link(): return open("pointer", "w").write("through"), open("new.txt").read()
@step
def no_follow(): return os.open("pointer", os.O_RDONLY | os.O_NOFOLLOW)
@step
def link_loop(): return os.symlink("loop", "loop"), open("loop")
@step
def folder_link(): return os.symlink("two", "pointed"), sorted(os.listdir("pointed"))
@step
def up_and_down(): return open("two/../new.txt").read(), open("./two/.././new.txt").read()
@step
def from_below():
    here = os.getcwd(); os.chdir("two")
    try: return open("../new.txt").read(), open("../fresh", "w").write("f"), os.path.exists("../fresh")
    finally: os.chdir(here)
@step
def by_descriptor():
    number = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    with open(os.open("bydir", os.O_CREAT | os.O_RDWR, dir_fd=number), "w") as file: file.write("d")
    return open("bydir").read(), os.unlink("bydir", dir_fd=number), "bydir" in os.listdir(number)
@step
def chmod(): return os.chmod("new.txt", 0o600), oct(os.stat("new.txt").st_mode), os.utime("new.txt", (10**9, 10**9))
@step
def globbed(): return sorted(glob.glob("*.txt")), sorted(glob.glob("**/moved", recursive=True))
@step
def table():
    with open("table.csv", "w", newline="") as file: csv.writer(file).writerows([[1, 2], [3, 4]])
    return open("table.csv").read()
@step
def database():
    with contextlib.closing(sqlite3.connect("work.db")) as base:
        base.execute("pragma journal_mode=wal"); base.execute("create table t(a)")
        base.execute("insert into t values(7)")
        base.commit()
        code = "import sqlite3; print(sqlite3.connect('work.db').execute('select a from t').fetchall())"
        return sh(f'{sys.executable} -c "{code}"')[1]
@step
def archive():
    with zipfile.ZipFile("z.zip", "w") as file: file.write("new.txt")
    with tarfile.open("t.tar", "w") as file: file.add("two")
    os.mkdir("out"); zipfile.ZipFile("z.zip").extractall("out"); tarfile.open("t.tar").extractall("out")
    return sorted(os.listdir("out"))
@step
def temporary():
    with tempfile.NamedTemporaryFile(dir=".", prefix="part", suffix=".txt") as file: file.write(b"1")
    with tempfile.TemporaryDirectory(dir=".", prefix="dir") as folder: open(f"{folder}/x", "w").close()
    return sorted(glob.glob("part*") + glob.glob("dir*"))
@step
def unnamed():
    with tempfile.TemporaryFile(dir=".") as file: return file.write(b"1")
@step
def mapped():
    with open("map", "w+b") as file:
        file.truncate(8192)
        with mmap.mmap(file.fileno(), 8192) as memory: memory[:4] = b"abcd"
    return open("map", "rb").read(4)
@step
def module():
    open("freshly.py", "w").write("value = 7")
    sys.path.insert(0, ""); import freshly
    return freshly.value
@step
def shell():
    return sh("echo hi > sh.txt; cat sh.txt; mv sh.txt sh2.txt; cp sh2.txt sh3.txt; rm sh2.txt; ls sh*; wc -c sh3.txt")
@step
def script(): return open("run.sh", "w").write("#!/bin/sh\necho ran"), os.chmod("run.sh", 0o755), sh("./run.sh")
@step
def program_kept(): return sh("cp run.sh other.sh && ./other.sh")
@step
def locked(): return sh("flock locked echo with-lock; rm locked")
@step
def unseen(): return os.path.exists(".idea/x"), os.stat(".git").st_mode, os.access("new.txt", os.W_OK)
for number in range(3, 200):
    with contextlib.suppress(OSError): os.close(number)
print(json.dumps(said, default=str))
"""
GIT_WORK = r"""
import json, subprocess
said = []
def git(*words):
    done = subprocess.run(["git", *words], capture_output=True, text=True)
    said.append([words, done.returncode, done.stdout, done.stderr])
git("status", "--short", "--untracked-files=no")
open("fresh.py", "w").write("y = 2\n")
git("add", "fresh.py"); git("commit", "-q", "-m", "fresh")
git("checkout", "-q", "-b", "topic"); open("src/code.py", "a").write("z = 3\n")
git("commit", "-q", "-a", "-m", "topic")
git("checkout", "-q", "main"); open("other.py", "w").write("o = 1\n"); git("add", "other.py")
git("commit", "-q", "-m", "other"); git("merge", "-q", "--no-edit", "topic"); git("log", "--format=%s")
git("checkout", "-q", "-b", "rebased", "topic"); git("rebase", "-q", "main")
open("src/code.py", "a").write("w = 4\n"); git("stash"); git("stash", "pop"); git("diff", "--stat")
git("tag", "v1"); git("branch"); git("reset", "-q", "--hard"); git("mv", "other.py", "moved.py")
git("rm", "-q", "fresh.py")
git("commit", "-q", "-m", "moved"); git("gc", "-q"); git("fsck"); git("status", "--short", "--untracked-files=no")
git("notes", "add", "-m", "n"); git("cherry-pick", "topic"); git("cherry-pick", "--abort")
git("revert", "--no-edit", "HEAD")
git("clone", "-q", ".", "cloned"); git("-C", "cloned", "log", "--format=%s", "-1"); git("grep", "x")
print(json.dumps(said).replace(__import__("os").getcwd(), "HERE"))
"""


def compare(code: str, folder: str, tmp_path: Path) -> dict[str, list[object]]:
    """What differs between a plain run and one inside, each in a home folder of its own, at the same path."""
    home = make_home(tmp_path)
    kept = tmp_path / "kept"
    shutil.copytree(home, kept, symlinks=True)
    env = {**GIT, "HOME": str(home)}
    policy = _passing(env)
    outside = run_outside(code, workspace=home / folder, env=env).json()
    shutil.rmtree(home)
    kept.rename(home)
    inside = run_inside(code, workspace=home / folder, env=env, policy=policy, timeout=120).json()
    pairs = dict(outside) if isinstance(outside, dict) else {str(each[0]): each[1:] for each in outside}
    others = dict(inside) if isinstance(inside, dict) else {str(each[0]): each[1:] for each in inside}
    return {name: [pairs[name], others.get(name)] for name in pairs if pairs[name] != others.get(name)}


def _passing(env: dict[str, str]) -> str:
    names = ", ".join(f'"{name}"' for name in env if name.startswith("GIT_"))
    return f"[environment]\npass = [{names}]\n"


@pytest.mark.parametrize("folder", ["", "proj"], ids=["home", "project"])
def test_work_goes_on_beside_what_is_closed(folder: str, tmp_path: Path) -> None:
    assert compare(WORK, folder, tmp_path) == {}


def test_what_is_made_is_there_outside(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    run_inside(WORK, workspace=home / "proj", env={"HOME": str(home)}).check()
    found = picture(home / "proj")
    assert found["new.txt"][1] == b"through"
    assert found["work.db"][1]
    assert found["out/new.txt"][1] == b"through"


def test_git_works_where_its_hooks_and_settings_are_closed(tmp_path: Path) -> None:
    assert compare(GIT_WORK, "proj", tmp_path) == {}


def test_a_program_that_is_compiled_there_runs(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    (home / "proj" / "x.c").write_text('#include <stdio.h>\nint main(void) { puts("compiled"); return 0; }\n')
    code = """
import subprocess
for _ in range(3):
    done = subprocess.run("gcc -o a.out x.c && ./a.out && rm a.out", shell=True, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "compiled\\n"), done
"""
    run_inside(code, workspace=home / "proj", env={"HOME": str(home)}).check()


# What is made in a folder gets from it: its group, its ACL; and programs that are made run.
INHERIT = r"""
import os, shutil, stat, subprocess
def attributes(path):
    return sorted((name, os.getxattr(path, name).hex()) for name in os.listxattr(path))
for place in (".", "src", "made", "made/deeper"):
    if place.startswith("made"):
        os.mkdir(place)
    open(f"{place}/file", "w").close()
    os.close(os.open(f"{place}/private", os.O_CREAT | os.O_WRONLY, 0o600))
    os.close(os.open(f"{place}/program", os.O_CREAT | os.O_WRONLY, 0o777))
    with open(f"{place}/script", "w") as script:
        script.write("#!/bin/sh\necho one\n")
    os.chmod(f"{place}/script", 0o755)
    for command in (f"{place}/script", f"sed -i s/one/two/ {place}/script; {place}/script"):
        print(subprocess.run(command, shell=True, capture_output=True, text=True))
    for name in ("", "file", "private", "program", "script"):
        status = os.stat(f"{place}/{name}")
        print(place, name, stat.filemode(status.st_mode), status.st_gid, attributes(f"{place}/{name}"))
"""


def default_acl() -> bytes:
    """Owner and owning group all, this very group by its number too, others nothing: struct posix_acl_xattr_entry."""
    entries = ((1, 7, -1), (4, 7, -1), (8, 7, os.getegid()), (16, 7, -1), (32, 0, -1))
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)


@pytest.mark.parametrize("where", [(), (".",), ("src",), (".", "src")], ids=["none", "root", "src", "both"])
@pytest.mark.parametrize("kind", ["set-group-id", "ACL"])
def test_what_is_made_inherits_what_it_does_outside(kind: str, where: tuple[str, ...], tmp_path: Path) -> None:
    said = []
    for inside in (False, True):
        home = make_home(tmp_path / str(inside))
        for name in where:
            folder = home / "proj" / name
            if kind == "ACL":
                os.setxattr(folder, "system.posix_acl_default", default_acl())
            else:
                folder.chmod(0o2775)
        runner = run_inside if inside else run_outside
        said.append(runner(INHERIT, workspace=home / "proj", env={"HOME": str(home)}).check().stdout)
    assert said[1] == said[0]
