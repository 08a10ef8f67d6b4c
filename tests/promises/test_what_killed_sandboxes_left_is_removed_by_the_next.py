"""The private folder of a launcher and a broker that were killed together is removed when another sandbox ends.

Nothing else is: no folder of a running sandbox, none that only looks like one, nothing that a link leads to. And code
inside cannot make its own folder look abandoned.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.support.living import Living, is_running
from tests.support.programs import REPORT
from tests.support.sandbox import Result, run_inside, run_outside
from tests.support.servers import wait_until

BOOT = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
MARKER = f".in-use-{BOOT}"
WAIT = """
import os, signal
os.makedirs(os.environ["HOME"] + "/deep/er")
print(os.environ["HOME"], flush=True)
signal.pause()
"""


def kill_both(program: Living) -> None:
    both = (program.launcher.pid, program.broker)
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in both:
            os.kill(pid, number)
    program.wait()
    wait_until(lambda: not is_running(both[1]), "the end of the broker")


def end_another(workspace: Path) -> Result:
    return run_inside("print('done')", workspace=workspace).check()


def test_the_end_of_another_sandbox_removes_it(workspace: Path, own_tmpdir: Path) -> None:
    with Living(WAIT, workspace=workspace) as running, Living(WAIT, workspace=workspace) as killed:
        kept, left = Path(running.line()).parent, Path(killed.line()).parent
        assert (left.parent, kept.parent) == (own_tmpdir, own_tmpdir)
        kill_both(killed)
        assert (left / "h" / "deep" / "er").is_dir(), "nobody is there to remove it"
        end_another(workspace)
        assert not left.exists()
        assert (kept / "h" / "deep" / "er").is_dir()
        assert is_running(running.launcher.pid)


def make(folder: Path, marker: str = MARKER, mode: int = 0o700) -> Path:
    folder.mkdir()
    (folder / "kept").write_text("kept")
    if marker:
        (folder / marker).touch(0o600)
    folder.chmod(mode)
    return folder


def test_what_only_looks_like_one_stays(workspace: Path, own_tmpdir: Path, tmp_path: Path) -> None:
    elsewhere = make(tmp_path / "elsewhere")
    linked_marker = make(own_tmpdir / "sbk-00000001", marker="")
    (linked_marker / MARKER).symlink_to(elsewhere / "kept")
    folder_as_marker = make(own_tmpdir / "sbk-00000002", marker="")
    (folder_as_marker / MARKER).mkdir()
    fifo_as_marker = make(own_tmpdir / "sbk-00000003", marker="")
    os.mkfifo(fifo_as_marker / MARKER)
    in_use = make(own_tmpdir / "sbk-00000004")
    stay = [
        elsewhere,
        linked_marker,
        folder_as_marker,
        fifo_as_marker,
        in_use,
        make(own_tmpdir / "sbk-00000005", marker=""),  # somebody's own, or one that is being made
        make(own_tmpdir / "sbk-00000006", marker=".in-use-00000000-0000-0000-0000-000000000000"),  # another machine's
        make(own_tmpdir / "sbk-00000007", mode=0o755),
        make(own_tmpdir / "sbk-0000000G"),
        make(own_tmpdir / "sbk-0000000A"),
        make(own_tmpdir / "sbk-000000008"),
        make(own_tmpdir / "sbk-check-9"),
        make(own_tmpdir / "kernel-00000"),
    ]
    (own_tmpdir / "sbk-0000000b").symlink_to(elsewhere)
    (own_tmpdir / "sbk-0000000c").write_text("kept")
    if os.geteuid() == 0:
        stay.append(make(own_tmpdir / "sbk-0000000d"))
        os.chown(stay[-1], 65534, 65534)
        stay.append(make(own_tmpdir / "sbk-0000000e"))
        os.chown(stay[-1] / MARKER, 65534, 65534)
    abandoned = make(own_tmpdir / "sbk-0000000f")

    lock = os.open(in_use, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        end_another(workspace)
    finally:
        os.close(lock)
    assert not abandoned.exists()
    assert [folder for folder in stay if (folder / "kept").read_text() != "kept"] == []
    assert (own_tmpdir / "sbk-0000000b").is_symlink()
    assert (own_tmpdir / "sbk-0000000c").read_text() == "kept"
    end_another(workspace)
    assert not in_use.exists(), "its lock was all that kept it"


# Everything that could make the private folder look abandoned, or lead its removal elsewhere. Where there is no sandbox
# each of these works, in this order.
MEDDLE = """
import errno, fcntl, json, os, sys
marker = "MARKER"
home, temporary = os.environ["HOME"], os.environ["TMPDIR"]
private = os.path.dirname(home)
inside = lambda name: private + "/" + name
def close(descriptor): os.close(descriptor); return "done"
def lock(path, flags):
    descriptor = os.open(path, flags)
    try: fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally: os.close(descriptor)
    return "done"
def there_and_back(old, new):
    os.rename(old, new); os.rename(new, old)
    return "done"
def done(call, *arguments, **more): call(*arguments, **more); return "done"
WAYS = dict(
    open=lambda: close(os.open(private, os.O_RDONLY)),
    list=lambda: done(os.listdir, private),
    lock=lambda: lock(private, os.O_RDONLY),
    lock_marker=lambda: lock(inside(marker), os.O_RDONLY),
    write_marker=lambda: close(os.open(inside(marker), os.O_WRONLY | os.O_TRUNC)),
    chmod=lambda: done(os.chmod, private, 0o700),
    chmod_marker=lambda: done(os.chmod, inside(marker), 0o644),
    times=lambda: done(os.utime, private),
    make=lambda: close(os.open(inside("new"), os.O_CREAT | os.O_WRONLY)),
    make_unnamed=lambda: close(os.open(private, os.O_TMPFILE | os.O_WRONLY)),
    make_folder=lambda: done(os.mkdir, inside("folder")),
    make_link=lambda: done(os.symlink, "/", inside("link")),
    link_marker=lambda: done(os.link, inside(marker), temporary + "/marker"),
    move_in=lambda: done(os.mkdir, temporary + "/in") and done(os.rename, temporary + "/in", inside("in")),
    move_home=lambda: there_and_back(home, inside("x")),
    exchange_home=lambda: there_and_back(home, temporary + "/x"),
    replace_marker=lambda: close(os.open(temporary + "/other", os.O_CREAT | os.O_WRONLY))
        and done(os.rename, temporary + "/other", inside(marker)),
    move_marker=lambda: there_and_back(inside(marker), inside("moved")),
    move_folder=lambda: there_and_back(private, private[:-1] + ("1" if private[-1] == "0" else "0")),
    remove_marker=lambda: done(os.unlink, inside(marker)),
)
told = {}
REPORT
sys.stdout.flush()
WAIT
""".replace("MARKER", MARKER).replace("REPORT", REPORT)

REFUSED = {"EACCES", "EPERM", "EXDEV", "EROFS"}


def test_nothing_inside_makes_its_folder_look_abandoned(workspace: Path, own_tmpdir: Path) -> None:
    alike = make(own_tmpdir / "sbk-00000000")
    env = {"HOME": str(alike / "h"), "TMPDIR": str(alike / "t")}
    for folder in env.values():
        os.mkdir(folder)
    outside = run_outside(MEDDLE.replace("WAIT", ""), workspace=workspace, env=env).json()
    assert [way for way, came_of_it in outside.items() if came_of_it != "done"] == []
    shutil.rmtree(alike)

    with Living(MEDDLE.replace("WAIT", WAIT), workspace=workspace) as program:
        inside = json.loads(program.line())
        assert inside.keys() == outside.keys()
        assert {way: came_of_it for way, came_of_it in inside.items() if came_of_it not in REFUSED} == {}
        private = Path(program.line()).parent
        assert sorted(os.listdir(private)) == [MARKER, "h", "r", "t"]
        assert private.stat().st_mode & 0o777 == 0o700
        assert (private / MARKER).stat().st_mode & 0o777 == 0o600
        lock = os.open(private, os.O_RDONLY)
        with pytest.raises(OSError) as refused:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(lock)
        assert refused.value.errno == errno.EWOULDBLOCK
        end_another(workspace)
        assert (private / "h" / "deep").is_dir()
        # The broker alone holds the lock as well.
        os.kill(program.broker, signal.SIGSTOP)
        broker = program.broker
        program.launcher.kill()
        program.launcher.wait()
        end_another(workspace)
        assert (private / "h" / "deep").is_dir()
        os.kill(broker, signal.SIGCONT)
        wait_until(lambda: not private.exists(), "the removal by the broker")


# Survivors of a sandbox whose launcher and broker are gone, that put links where the removal just saw a folder.
SURVIVOR = """
import os, signal, sys, time
outside = OUTSIDE
if os.fork():
    signal.pause()
os.setsid()
os.chdir(os.environ["HOME"])
for number in range(200): os.makedirs(f"{number}/inner")
print(os.environ["HOME"], flush=True)
end = time.monotonic() + 20
while time.monotonic() < end:
    for number in range(200):
        try:
            os.rename(f"{number}", f"moved {number}")
            os.symlink(outside, f"{number}")
            os.unlink(f"{number}")
            os.rename(f"moved {number}", f"{number}")
        except OSError:
            pass
"""


def test_survivors_do_not_lead_the_removal_outside(workspace: Path, own_tmpdir: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "inner").mkdir(parents=True)
    (outside / "inner" / "kept").write_text("kept")
    outside.chmod(0o500)
    before = outside.stat()
    with Living(SURVIVOR.replace("OUTSIDE", repr(str(outside))), workspace=workspace) as program:
        private = Path(program.line()).parent
        assert len(program.note()) == 2
        kill_both(program)
        assert not program.is_gone()
        for _ in range(3):
            end_another(workspace)
        assert not program.is_gone()
        for pid in filter(is_running, program.inside):
            os.kill(pid, signal.SIGKILL)
        wait_until(program.is_gone, "the end of the survivors")
        end_another(workspace)
        assert not private.exists()
    after = outside.stat()
    assert (after.st_mode, after.st_ctime_ns) == (before.st_mode, before.st_ctime_ns)
    assert (outside / "inner" / "kept").read_text() == "kept"
    outside.chmod(0o700)
