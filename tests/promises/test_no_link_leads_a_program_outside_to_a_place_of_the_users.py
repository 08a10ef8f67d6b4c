"""No link that the code makes leads a program outside that saves to it (Jupyter) over a file of the user's.

Links of environments, packages and archives work all the same.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.sandbox import launcher_command, run_command_inside, run_inside, run_outside

# Every way to make the link `a.ipynb` lead to the file.
WAYS = {
    "absolute": "os.symlink(FILE, 'a.ipynb')",
    "by descriptor": "os.symlink(FILE, 'a.ipynb', dir_fd=os.open('.', os.O_RDONLY))",
    "relative": "os.symlink(os.path.relpath(FILE), 'a.ipynb')",
    "dots after an absolute path": "os.symlink(os.getcwd() + '/' + os.path.relpath(FILE), 'a.ipynb')",
    "by a link that was there": "os.symlink('theirs/file', 'a.ipynb')",
    "through two": "os.symlink('.', 'one'); os.symlink('one/' + os.path.relpath(FILE), 'a.ipynb')",
    "moved up": """
os.makedirs('d/e/f')
os.symlink('../../../' + os.path.relpath(FILE, '..').replace('../', '') , 'd/e/f/link')
os.rename('d/e/f/link', 'a.ipynb')""",
    "in the folder of copies": "os.mkdir('copies'); os.rmdir('copies'); os.symlink(os.path.dirname(FILE), 'copies')",
    "through /proc": "os.symlink('/proc/self/cwd/' + os.path.relpath(FILE), 'a.ipynb')",
}
CODE = """
import errno, os
FILE = {file!r}
try:
    {way}
except OSError as error:
    print(errno.errorcode[error.errno])
"""


def save(workspace: Path) -> None:
    """As a program outside does that knows nothing of links: Jupyter's atomic writing, a copy into a folder."""
    for place in (workspace / "a.ipynb", workspace / "copies" / "file"):
        if os.path.lexists(place) or place.parent.is_dir():
            try:
                place.write_text("what the code chose")
            except OSError:
                pass  # a link to nowhere


def clear(workspace: Path) -> None:
    subprocess.run(["rm", "-rf", *workspace.glob("*")], check=True)


@pytest.mark.parametrize("way", WAYS)
def test_saving_through_a_link_changes_nothing_outside(way: str, workspace: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    file = outside / "file"
    code = CODE.format(file=str(file), way="\n    ".join(WAYS[way].strip().splitlines()))

    def attempt(inside: bool) -> str:
        clear(workspace)
        file.write_text("the user's")
        os.symlink(outside, workspace / "theirs")
        told = (run_inside if inside else run_outside)(code, workspace=workspace).check().stdout
        save(workspace)
        return told

    attempt(inside=False)
    changed = file.read_text() != "the user's"
    assert changed or way in ("moved up", "through /proc")  # these say another path from where they lie
    told = attempt(inside=True)
    assert file.read_text() == "the user's"
    assert told in ("EPERM\n", "")


def test_the_refusal_is_told(workspace: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    result = run_inside(CODE.format(file=str(file), way=WAYS["absolute"]), workspace=workspace)
    assert result.stdout == "EPERM\n"
    assert [event.address for event in result.refused(kind="link")] == [str(file)]
    assert f"a symbolic link to {file} refused" in result.stderr


MOVED = """
import os, sys
cache = os.environ["XDG_CACHE_HOME"]
for way in (os.rename, lambda a, b: os.link(a, b, follow_symlinks=False)):
    for link, place in ((os.path.expanduser("~/own.ipynb"), "a.ipynb"), (cache + "/theirs", "copies")):
        try:
            way(link, place)
            print(os.path.basename(link))
        except OSError:
            pass
"""


@pytest.mark.parametrize("where", ["", "deep/er/"])
def test_a_link_of_the_private_home_that_is_moved_leads_nowhere(where: str, workspace: Path, tmp_path: Path) -> None:
    """What the policy opens for reading in the user's home stands in the private one, as links."""
    home = tmp_path / "home"
    theirs = home / ".cache" / "theirs"
    theirs.mkdir(parents=True)
    (workspace / where).mkdir(parents=True, exist_ok=True)
    for file in (home / "own.ipynb", theirs / "file"):
        file.write_text("the user's")
    policy = '[filesystem]\nread = ["~/own.ipynb", "~/.cache/theirs"]'
    code = f"""
import os
print(open(os.path.expanduser('~/own.ipynb')).read(), os.listdir(os.environ['XDG_CACHE_HOME'] + '/theirs'))
os.chdir({where or "."!r})
{MOVED}"""
    inside = run_inside(code, workspace=workspace, policy=policy, env={"HOME": str(home), "XDG_DATA_HOME": ""}).check()
    assert inside.stdout.split() == ["the", "user's", "['file']", "own.ipynb", "theirs"]  # moved they were
    save(workspace / where)
    for file in (home / "own.ipynb", theirs / "file"):
        assert file.read_text() == "the user's"


# The link to the private home leads nowhere, until the one to the user's files is moved there.
EXCHANGED = {
    "a file": ("h + '/new'", "h + '/own.ipynb'", "h + '/new'"),
    "a folder": ("h + '/new/file'", "h + '/theirs'", "h + '/new'"),
    "in the cache": ("c + '/new/file'", "c + '/theirs'", "c + '/new'"),
    "a link made in the home": ("h + '/new'", "h + '/own.ipynb'", "h + '/new'"),
    "by way of a link in the home": ("h + '/harmless'", "h + '/own.ipynb'", "h + '/harmless'"),
}


@pytest.mark.parametrize("way", EXCHANGED)
def test_no_link_to_the_private_home_leads_to_what_is_put_there_later(
    way: str, workspace: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    for folder in (home / "theirs", home / ".cache" / "theirs"):
        folder.mkdir(parents=True)
        (folder / "file").write_text("the user's")
    (home / "own.ipynb").write_text("the user's")
    (workspace / "mine").touch()
    target, link, place = EXCHANGED[way]
    make = f"os.symlink({target}, 'a.ipynb')"
    if way == "a link made in the home":
        make = f"os.symlink({target}, h + '/x'); os.rename(h + '/x', 'a.ipynb')"
    if way == "by way of a link in the home":
        make = f"os.symlink(os.path.abspath('mine'), {target}); {make}; os.unlink({target})"
    code = f"""
import contextlib, os, sys
h, c = os.path.expanduser("~"), os.environ["XDG_CACHE_HOME"]
with contextlib.suppress(PermissionError):
    {make}
os.rename({link}, {place})
print(open({place} if os.path.isfile({place}) else {place} + "/file").read(), flush=True)
sys.stdin.read()
"""
    policy = '[filesystem]\nread = ["~/own.ipynb", "~/theirs", "~/.cache/theirs"]'
    command = launcher_command(policy, tmp_path, workspace, tmp_path / "audit.jsonl")
    environment = {**os.environ, "HOME": str(home), "XDG_DATA_HOME": ""}
    with subprocess.Popen(
        [*command, sys.executable, "-c", code], stdin=-1, stdout=-1, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "the user's\n"  # it works where it was put
        save(workspace)  # while the kernel lives, as Jupyter does
        process.communicate("")
    for file in (home / "own.ipynb", home / "theirs" / "file", home / ".cache" / "theirs" / "file"):
        assert file.read_text() == "the user's"


def test_links_in_the_private_home_work_beside_those_of_the_policy(workspace: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "data").mkdir(parents=True)
    code = """
import os, tempfile
cache = os.environ["XDG_CACHE_HOME"]
for place in (os.path.expanduser("~/made"), cache + "/models", tempfile.mkdtemp()):
    os.makedirs(place + "/blobs"); os.makedirs(place + "/snapshots/1")
    open(place + "/blobs/x", "w").write("content")
    os.symlink("../../blobs/x", place + "/snapshots/1/relative")  # as huggingface_hub's
    os.symlink(place + "/blobs", place + "/absolute")
    os.symlink("blobs", place + "/plain")
    if os.geteuid() != 0:  # root may write there
        os.symlink("/usr", place + "/system")
    os.rename(place + "/plain", place + "/snapshots/plain")
    os.rename(place + "/snapshots/plain", place + "/plain")
    for path in ("snapshots/1/relative", "absolute/x", "plain/x"):
        print(open(f"{place}/{path}").read(), end=" ")
os.symlink("inner", "own"); os.symlink(os.path.abspath("inner"), "own2")
"""
    policy = '[filesystem]\nread = ["~/data"]'
    inside = run_inside(code, workspace=workspace, policy=policy, env={"HOME": str(home), "XDG_DATA_HOME": ""}).check()
    assert inside.stdout.split() == ["content"] * 9
    assert os.readlink(workspace / "own2") == str(workspace / "inner")


LINKS = """
import json, os
os.makedirs("project/bin"); os.makedirs("project/lib/inner")
open("project/lib/file", "w").write("content")
links = {
    "project/bin/tool": "../lib/file",          # npm, pip's data files
    "project/lib/inner/up": "../../lib",        # tar, git
    "project/lib/same": "file",
    "project/absolute": os.path.abspath("project/lib"),
    "project/dangling": "not/there/yet",
    "project/nothing": "/dev/null",
    "home": os.environ["HOME"],
}
if os.geteuid() != 0: # root may write there
    links["project/system"] = "/usr/bin"
for name, target in links.items():
    os.symlink(target, name)
os.rename("project", "moved")
os.rename("moved", "project")
print(json.dumps({name: [os.path.islink(name), os.path.exists(name)] for name in links}))
print(open("project/bin/tool").read())
"""


def test_everyday_links_work(workspace: Path) -> None:
    outside = run_outside(LINKS, workspace=workspace).check()
    clear(workspace)
    inside = run_inside(LINKS, workspace=workspace).check()
    assert inside.stdout == outside.stdout
    assert inside.events == ()


def test_an_environment_and_an_archive_are_made(workspace: Path) -> None:
    (workspace / "folder" / "inner").mkdir(parents=True)
    (workspace / "folder" / "file").write_text("content")
    os.symlink("../file", workspace / "folder" / "inner" / "link")
    subprocess.run(["tar", "cf", "archive.tar", "folder"], cwd=workspace, check=True)
    script = "rm -r folder && tar xf archive.tar && cat folder/inner/link && /usr/bin/python3 -m venv --without-pip env"
    done = run_command_inside(["sh", "-c", f"{script} && env/bin/python -c 'print(1)'"], workspace=workspace).check()
    assert done.stdout == "content1\n"
    # Where root starts it, a link to the system's Python would let a program outside write over that: venv copies it.
    assert bool(done.events) == (os.geteuid() == 0)


@pytest.mark.parametrize(("target", "path"), [("", "a"), ("x", ""), ("x", "there"), ("x", "no/where"), ("x", "there/")])
def test_errors_are_those_of_outside(target: str, path: str, workspace: Path) -> None:
    code = f"""
import errno, os
os.makedirs("there", exist_ok=True)
try: os.symlink({target!r}, {path!r})
except OSError as error: print(errno.errorcode[error.errno])
"""
    outside = run_outside(code, workspace=workspace)
    inside = run_inside(code, workspace=workspace)
    assert inside.stdout == outside.stdout != ""
