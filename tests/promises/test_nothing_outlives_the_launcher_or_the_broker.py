"""However launcher, broker and warden end, everything inside ends with them, and nothing new is reached meanwhile."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sandboxed_kernel.linux import processes
from tests.support.living import Living, is_running
from tests.support.sandbox import compile_c
from tests.support.servers import TcpListener, wait_until

# Children of every kind that survive a terminal; each connects all the time.
FAMILY = """
import os, signal, socket, sys, time
server = SERVER
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
def reach_out():
    for number in range(1, 65):
        try: signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError): pass
    while True:
        try:
            with socket.create_connection(server, 5) as s: s.sendall(b"from inside")
        except OSError: pass
        time.sleep(0.01)
def start(*steps):
    if os.fork() == 0:
        for step in steps: step()
        reach_out()
def leave():
    if os.fork(): os._exit(0)
start(); start(os.setsid); start(os.setsid, leave); start(leave, os.setsid, leave)
os.makedirs(os.environ["HOME"] + "/kept"); open(os.environ["HOME"] + "/kept/file", "w").close()
time.sleep(0.3)
print(os.getpid(), os.environ["HOME"], flush=True)
signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.signal(signal.SIGINT, signal.SIG_IGN)
reach_out()
"""


def kill_launcher(program: Living) -> None:
    program.launcher.kill()


def kill_broker(program: Living) -> None:
    os.kill(program.broker, signal.SIGKILL)


def kill_group(program: Living) -> None:
    """As a terminal or a service manager does; the launcher leads a group of its own here."""
    os.killpg(program.launcher.pid, signal.SIGKILL)


def kill_main(program: Living) -> None:
    """The first process inside ends; what it started must not live on."""
    os.kill(processes.children(program.warden)[0], signal.SIGKILL)


def stop_then_kill(program: Living) -> None:
    """A stopped launcher is killed: it has had no time for anything."""
    program.launcher.send_signal(signal.SIGSTOP)
    program.launcher.kill()


def stop_broker_kill_launcher(program: Living) -> None:
    broker = program.broker
    os.kill(broker, signal.SIGSTOP)
    program.launcher.kill()
    wait_until(program.is_gone, "the end of everything inside")
    os.kill(broker, signal.SIGCONT)  # it removes the private folder


def stop_launcher_kill_broker_then_it(program: Living) -> None:
    """The launcher was killed as well, and needs longer to go."""
    program.launcher.send_signal(signal.SIGSTOP)
    os.kill(program.broker, signal.SIGKILL)
    time.sleep(0.5)
    program.launcher.kill()


def kill_at_once(*pids: int) -> None:
    """At one instant: none has time to do anything about another's end."""
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in pids:
            os.kill(pid, number)


ENDS: dict[str, Callable[[Living], None]] = {
    "launcher killed": kill_launcher,
    "broker killed": kill_broker,
    "process group killed": kill_group,
    "first process killed": kill_main,
    "launcher stopped and killed": stop_then_kill,
    "warden killed": lambda program: os.kill(program.warden, signal.SIGKILL),
    "launcher and broker killed at once": lambda program: kill_at_once(program.launcher.pid, program.broker),
    "launcher and warden killed at once": lambda program: kill_at_once(program.launcher.pid, program.warden),
    "broker and warden killed at once": lambda program: kill_at_once(program.broker, program.warden),
    "broker stopped, launcher killed": stop_broker_kill_launcher,
    "launcher stopped, broker killed, then the launcher": stop_launcher_kill_broker_then_it,
}


@pytest.mark.parametrize("end", ENDS)
def test_everything_inside_ends_with_them(end: str, workspace: Path) -> None:
    with TcpListener() as server:
        code = FAMILY.replace("SERVER", repr((server.address, server.port)), 1)
        check_outside(code, server, workspace)
        with Living(code, workspace=workspace, policy=f'[network]\nallow = ["{server.endpoint}"]') as program:
            first, _, folder = program.line().partition(" ")
            home = Path(folder)
            assert (home / "kept" / "file").exists()
            assert len(program.note()) >= 5
            assert int(first) in program.inside
            wait_for_another(server)
            ENDS[end](program)
            wait_until(program.is_gone, "the end of everything inside", within=2.0)
            program.wait()
            wait_until(lambda: not home.parent.exists(), "the removal of the private folders", within=5.0)
            reached = len(server.received())
            assert len(server.received()) == reached


def test_nothing_new_is_reached_while_the_broker_is_stopped(workspace: Path) -> None:
    with TcpListener() as server:
        code = FAMILY.replace("SERVER", repr((server.address, server.port)), 1)
        with Living(code, workspace=workspace, policy=f'[network]\nallow = ["{server.endpoint}"]') as program:
            program.line()
            program.note()
            wait_for_another(server)
            os.kill(program.broker, signal.SIGSTOP)
            reached = len(server.received())
            time.sleep(0.1)
            assert len(server.received()) == reached
            os.kill(program.broker, signal.SIGCONT)
            wait_for_another(server)
            program.launcher.kill()
            wait_until(program.is_gone, "the end of everything inside")


# Chains of processes, each of which lives only until it has forked the next, in a session of its own: whoever looks
# for them in /proc comes too late. Their number stays the same, and they end by themselves, for the machine's sake.
CHAINS = r"""
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
int main(int argc, char **argv) {
    int pause = atoi(argv[1]); /* microseconds; outside, init has to reap what ends, and may be slow */
    time_t end = time(NULL) + 10;
    signal(SIGCHLD, SIG_IGN);
    for (int i = 0; i < 20; i++)
        if (fork() == 0) {
            while (time(NULL) < end && access("stop", F_OK) != 0) {
                if (fork() != 0) _exit(0);
                setsid();
                if (pause) usleep(pause);
            }
            _exit(0);
        }
    puts("running"); fflush(stdout);
    usleep(200000);
    return 7;
}
"""


def test_processes_that_fork_faster_than_one_can_look_end_with_the_first(workspace: Path) -> None:
    chains = str(compile_c(CHAINS, workspace, name="chains"))
    try:
        outside = subprocess.Popen([chains, "20000"], cwd=workspace, stdout=subprocess.PIPE, start_new_session=True)
        with outside:
            assert outside.stdout is not None
            assert outside.stdout.readline() == b"running\n"
            assert outside.wait(30) == 7
            # Whoever lives holds the other end of this pipe.
            assert not select.select([outside.stdout], [], [], 0.2)[0], "they ended with the first"
            (workspace / "stop").touch()
            assert outside.stdout.read() == b""
        (workspace / "stop").unlink()

        with Living([chains, "0"], workspace=workspace) as program:
            assert program.line(30) == "running"
            assert program.launcher.wait(15) == 7
            assert program.launcher.stdout is not None
            assert select.select([program.launcher.stdout], [], [], 1.0)[0], "something inside lives on"
            assert program.launcher.stdout.read() == b""
    finally:
        (workspace / "stop").touch()


def wait_for_another(server: TcpListener) -> None:
    before = len(server.contacts)
    wait_until(lambda: len(server.contacts) > before, "another connection")


def check_outside(code: str, server: TcpListener, workspace: Path) -> None:
    """The same processes outlive whoever started them where there is no sandbox."""
    outside = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, "HOME": str(workspace)},
    )
    with outside:
        assert outside.stdout is not None
        outside.stdout.readline()
        left = [pid for pid in running(code) if pid != outside.pid]
        outside.kill()
    try:
        server.received()
        wait_for_another(server)
    finally:
        for pid in left:
            os.kill(pid, signal.SIGKILL)


def running(code: str) -> list[int]:
    """The processes that run ``code``."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if code.encode() in (entry / "cmdline").read_bytes() and is_running(int(entry.name)):
                found.append(int(entry.name))
        except OSError:
            continue
    return found
