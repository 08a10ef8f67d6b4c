"""Where Linux lets us make a control group, it keeps the limits: to the byte, for the sandbox alone, and it goes away.

Run by tests/vm/run.py, each in a group that has another one above it to make groups in.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandboxed_kernel import check
from sandboxed_kernel.linux import cgroups
from sandboxed_kernel.linux.cgroups import Group
from tests.support import kernels
from tests.support.living import Living
from tests.support.sandbox import run_inside, run_outside
from tests.support.servers import wait_until

WANTED = frozenset({"memory", "pids"})

# For a moment only: the broker's look, four times a second, would not see it.
SPIKE = 'held = bytearray(b"x") * 250_000_000; open("grown", "w").close()'

THREADS = """
import json, threading
threading.stack_size(65536)
done, started = threading.Event(), []
try:
    for _ in range(NUMBER):
        thread = threading.Thread(target=done.wait)
        thread.start()
        started.append(thread)
    told = "none refused"
except RuntimeError as error:
    told = str(error)
done.set()
for thread in started: thread.join()
print(json.dumps([told, len(started)]))
"""

POLICY = '[limits]\nmemory = "200 MB"'
SLEEP = "import time; print('ready', flush=True); time.sleep(100)"


@pytest.fixture
def above() -> Path:
    """The group above ours, where those of the sandboxes are made; empty of them again after each test."""
    own = Path("/proc/self/cgroup").read_text().removeprefix("0::").strip()
    found = Path("/sys/fs/cgroup" + own).parent
    assert made_in(found) == []
    return found


@pytest.fixture
def group(above: Path) -> Iterator[Group]:
    """One as the launcher makes it, for what has to be shown outside first."""
    place = cgroups.find_place(WANTED)
    assert place == cgroups.Place(str(above), WANTED)
    made = cgroups.make(place)
    yield made
    assert made.remove(time.monotonic() + 5)


def made_in(above: Path) -> list[Path]:
    return [path for path in above.iterdir() if path.name.startswith("sandboxed-kernel-")]


def group_of(pid: int) -> str:
    return "/sys/fs/cgroup" + Path(f"/proc/{pid}/cgroup").read_text().removeprefix("0::").strip()


def test_memory_is_kept_to_the_byte(workspace: Path, above: Path) -> None:
    grown = workspace / "grown"
    run_outside(SPIKE, workspace=workspace).check()
    assert grown.exists()
    grown.unlink()

    run_inside(SPIKE, workspace=workspace, policy='[limits]\nmemory = "400 MB"').check()
    assert grown.exists()
    grown.unlink()

    ended = run_inside(SPIKE, workspace=workspace, policy='[limits]\nmemory = "100 MB"')
    assert ended.returncode == 128 + signal.SIGKILL
    assert not grown.exists()
    (event,) = ended.refused(kind="limit")
    assert '[limits] memory = "100 MB"' in event.reason
    assert made_in(above) == []


def test_all_processes_together_are_held_and_end_together(workspace: Path, above: Path) -> None:
    family = """
import os, time
for number in range(3):
    if os.fork() == 0:
        held = bytearray(b"x") * 50_000_000
        open(f"grown{number}", "w").close()
        time.sleep(20)
        open("outlived", "w").close()
        os._exit(0)
    time.sleep(0.5)
time.sleep(20)
open("outlived", "w").close()
"""
    began = time.monotonic()
    ended = run_inside(family, workspace=workspace, policy='[limits]\nmemory = "140 MB"')
    assert time.monotonic() - began < 15
    assert ended.refused(kind="limit", host="memory")
    assert (workspace / "grown0").exists()
    assert not (workspace / "grown2").exists()
    assert not (workspace / "outlived").exists()


def test_processes_are_counted_and_threads_are_not(workspace: Path, above: Path) -> None:
    policy = "[limits]\nprocesses = 10"
    inside = run_inside(THREADS.replace("NUMBER", "40"), workspace=workspace, policy=policy)
    assert inside.json() == ["none refused", 40]
    assert not inside.events

    forks = "import os, time\nfor _ in range(15):\n    if os.fork() == 0: time.sleep(8); os._exit(0)\ntime.sleep(8)"
    ended = run_inside(f"{forks}\nopen('forked', 'w').close()", workspace=workspace, policy=policy)
    assert not (workspace / "forked").exists()
    assert "more than 10 processes" in ended.refused(kind="limit", host="processes")[0].reason


def test_a_bomb_meets_a_dam_and_the_cell_is_told(workspace: Path, above: Path) -> None:
    """1,024 processes and threads, of which a policy with ten processes says nothing; Linux refuses the next one."""
    code = THREADS.replace("NUMBER", "1100")
    assert run_outside(code, workspace=workspace).json() == ["none refused", 1100]
    inside = run_inside(code, workspace=workspace, policy="[limits]\nprocesses = 10")
    assert inside.json() == ["can't start new thread", 1023]  # and the first one; the broker's own do not count
    (event,) = inside.refused(kind="limit")
    assert "EAGAIN" in event.reason


def test_nobody_inside_leaves_the_group_or_changes_it(workspace: Path, above: Path, group: Group) -> None:
    attempts = """
import json, os, sys, time
told = {}
def attempt(name, function):
    try:
        function()
        told[name] = "done"
    except OSError as error:
        told[name] = os.strerror(error.errno)
def write(path, text):
    with open(path, "w") as file: file.write(text)
own = "/sys/fs/cgroup" + open("/proc/self/cgroup").read()[3:].strip()
above = os.path.dirname(own)
attempt("widen", lambda: write(own + "/memory.max", "max"))
attempt("more", lambda: write(own + "/pids.max", "max"))
attempt("beneath", lambda: os.mkdir(own + "/below"))
attempt("beside", lambda: os.mkdir(above + "/beside"))
attempt("leave", lambda: write(OUTSIDE + "/cgroup.procs", "0"))
print(json.dumps(told), flush=True)
"""
    ours = group_of(os.getpid())
    attempts = attempts.replace("OUTSIDE", repr(ours))
    group.set("memory.max", "100000000")
    enter = f"open({group.path + '/cgroup.procs'!r}, 'w').write('0')\n"
    outside = run_outside(enter + attempts, workspace=workspace).json()
    os.rmdir(f"{group.path}/below")
    (above / "beside").rmdir()
    assert set(outside.values()) == {"done"}, outside

    policy = '[limits]\nmemory = "100 MB"\nprocesses = 10'
    with Living(f"{attempts}time.sleep(100)", workspace=workspace, policy=policy) as program:
        told = program.line()
        assert told.count("Permission denied") == 5, told
        (made,) = [path for path in made_in(above) if str(path) != group.path]
        inside = [int(pid) for pid in (made / "cgroup.procs").read_text().split()]
        assert inside
        assert (made / "memory.max").read_text().strip() == str(100_000_000 // 4096 * 4096)
        assert (made / "pids.max").read_text().strip() == "1024"
        assert program.launcher.pid not in inside
        assert program.broker not in inside
        assert group_of(program.launcher.pid) == group_of(program.broker) == ours
        program.launcher.terminate()
        program.wait()
        assert not made.exists()


@pytest.mark.parametrize("who", ["launcher", "broker"])
def test_the_group_is_gone_however_the_sandbox_ends(workspace: Path, above: Path, who: str) -> None:
    with Living(SLEEP, workspace=workspace, policy=POLICY) as program:
        program.line()
        program.note()
        assert len(made_in(above)) == 1
        os.kill(program.launcher.pid if who == "launcher" else program.broker, signal.SIGKILL)
        wait_until(lambda: made_in(above) == [], "the end of the group")
        assert program.is_gone()


def test_what_nobody_holds_any_more_is_ended_by_the_next(workspace: Path, above: Path) -> None:
    """Launcher and broker killed at the same instant: the warden ends the rest, and the next one removes the group."""
    with (
        Living(SLEEP, workspace=workspace, policy=POLICY) as program,
        Living(SLEEP, workspace=workspace, policy=POLICY) as other,
    ):
        for each in (program, other):
            each.line()
            each.note()
        confined = program.inside - {program.warden}  # which stays in the launcher's group
        (left,) = {group_of(pid) for pid in confined}
        for pid in (program.launcher.pid, program.broker):
            os.kill(pid, signal.SIGSTOP)
        for pid in (program.launcher.pid, program.broker):
            os.kill(pid, signal.SIGKILL)
        time.sleep(1)
        assert Path(left).exists()

        run_inside("", workspace=workspace, policy=POLICY).check()
        assert not Path(left).exists()
        assert program.is_gone()
        assert not other.is_gone()
        end(other, above)


def end(program: Living, above: Path) -> None:
    """Not as Living does, which kills launcher and broker at once."""
    program.launcher.terminate()
    program.wait()
    assert made_in(above) == []


def test_keeping_memory_costs_the_broker_no_wake_up(workspace: Path, above: Path) -> None:
    with Living(SLEEP, workspace=workspace, policy=POLICY) as program:
        program.line()
        time.sleep(2)  # it gets ready
        before = switches(program.broker)
        time.sleep(3)
        assert switches(program.broker) == before
        end(program, above)


def switches(pid: int) -> list[str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return [line for line in lines if "ctxt_switches" in line]


@pytest.mark.root
def test_a_launcher_that_is_spared_does_not_spare_the_sandbox(workspace: Path, above: Path) -> None:
    """With oom_score_adj -1000 in the sandbox too, Linux would find nobody to end."""
    own = Path("/proc/self/oom_score_adj")
    before = own.read_text()
    own.write_text("-1000")
    try:
        ended = run_inside(SPIKE, workspace=workspace, policy='[limits]\nmemory = "100 MB"')
    finally:
        own.write_text(before)
    assert ended.refused(kind="limit", host="memory")


def test_the_kernel_that_uses_too_much_is_told_and_its_neighbour_is_not_disturbed(
    tmp_path_factory: pytest.TempPathFactory, above: Path
) -> None:
    folders = [tmp_path_factory.mktemp("k") for _ in range(2)]
    commands = []
    for folder in folders:
        policy = folder / "policy.toml"
        policy.write_text('[limits]\nmemory = "200 MB"\nprocesses = 20\n')
        commands.append([*kernels.REAL, "--policy", str(policy)])
    with kernels.running(commands[0], folders[0]) as kernel, kernels.running(commands[1], folders[1]) as neighbour:
        neighbour.run("x = 6 * 7")
        refused = kernel.run(THREADS.replace("NUMBER", "1100"))
        assert "can't start new thread" in refused.text
        assert any("EAGAIN" in display["content"]["data"]["text/plain"] for display in refused.displays)
        outcome = kernel.run("held = bytearray(b'x') * 400_000_000")
        assert '[limits] memory = "200 MB"' in outcome.error
        assert '[limits] memory = "200 MB"' in outcome.reply["content"]["evalue"]
        assert kernel.exit_code() == 128 + signal.SIGKILL
        assert neighbour.run("print(x)").text == "42\n"
        assert len(made_in(above)) == 1
    wait_until(lambda: made_in(above) == [], "the end of the groups")


def test_check_says_how_limits_are_kept(above: Path) -> None:
    (said,) = [result for result in check.check() if result.name == "limits"]
    assert said.holds
    assert "control group" in said.detail
    assert made_in(above) == []
