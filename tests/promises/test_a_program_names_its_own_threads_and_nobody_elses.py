"""Threads and children name themselves through /proc; nothing else in it becomes writable."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.folders import make_home
from tests.support.sandbox import compile_c, run_command_inside, run_inside, run_outside

# What it was answered, and the name that is there afterwards: by a path of each form, for each kind of thread.
OWN = """
import ctypes, json, os, threading
said, stop = {}, threading.Event()
libc = ctypes.CDLL(None, use_errno=True)

def write(name, path, flags):
    try:
        file = os.open(path, flags)
        os.write(file, name.encode())
        os.close(file)
    except OSError as error:
        said[name] = error.errno
    else:
        said[name] = open(path).read().strip()

thread = threading.Thread(target=stop.wait)
thread.start()
tid, pid = thread.native_id, os.getpid()
named = libc.pthread_setname_np(ctypes.c_ulong(thread.ident), b"cuda-worker")
said["pthread"] = named, open(f"/proc/self/task/{tid}/comm").read()
write("self-task", f"/proc/self/task/{tid}/comm", os.O_RDWR)
write("pid-task", f"/proc/{pid}/task/{tid}/comm", os.O_WRONLY)
write("tid", f"/proc/{tid}/comm", os.O_WRONLY)
write("itself", "/proc/self/comm", os.O_RDWR | os.O_LARGEFILE)
write("thread-self", "/proc/thread-self/comm", os.O_WRONLY)
write("no-such", "/proc/self/task/1/comm", os.O_RDWR)
child = os.fork()
if child == 0:
    said.clear()
    write("child", "/proc/self/comm", os.O_RDWR)
    write("child-by-pid", f"/proc/{os.getpid()}/task/{os.getpid()}/comm", os.O_RDWR)
    print(json.dumps(said), flush=True)
    os._exit(0)
os.waitpid(child, 0)
stop.set()
print(json.dumps(said))
"""


def test_own_threads_are_named_as_outside(workspace: Path) -> None:
    inside, outside = (run(OWN, workspace=workspace).check() for run in (run_inside, run_outside))
    assert "cuda-worker" in outside.stdout
    assert inside.stdout == outside.stdout
    assert not inside.events


def test_also_where_the_folder_is_guarded(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    inside = run_inside(OWN, workspace=home / "proj", env={"HOME": str(home)})
    assert inside.json() == run_outside(OWN, workspace=tmp_path).json()


EVERYTHING_ELSE = """
import json, os, stat
opened = []
def look(folder):
    for name in os.listdir(folder):
        path = f"{folder}/{name}"
        try:
            if stat.S_ISREG(os.lstat(path).st_mode):
                for flags in (os.O_WRONLY, os.O_RDWR | os.O_CLOEXEC, os.O_WRONLY | os.O_CREAT):
                    try:
                        os.close(os.open(path, flags))
                        opened.append((path.replace(str(os.getpid()), "PID"), flags & os.O_CREAT))
                    except OSError:
                        pass
        except OSError:
            pass
pid = os.getpid()
for folder in ("/proc/self", f"/proc/{pid}/task/{pid}", "/proc", "/proc/sys/kernel", f"/proc/{os.getppid()}"):
    look(folder)
for path in ("/proc/self/task/../comm", "/proc/self//comm", "/proc/self/../self/mem", "/proc/self/comm/",
             "/proc/self/root/proc/self/comm", "/proc/self/task/self/comm", "/dev/../proc/self/oom_score_adj"):
    try:
        os.close(os.open(path, os.O_WRONLY))
        opened.append((path, 0))
    except OSError:
        pass
print(json.dumps(sorted(set(opened))))
"""


def test_nothing_else_in_proc_becomes_writable(workspace: Path) -> None:
    assert len(run_outside(EVERYTHING_ELSE, workspace=workspace).json()) > 10
    assert run_inside(EVERYTHING_ELSE, workspace=workspace).json() == [
        ["/proc/self/comm", 0], ["/proc/PID/task/PID/comm", 0]
    ][::-1]  # fmt: skip


def test_a_program_outside_keeps_its_name(workspace: Path) -> None:
    """Linux answers EINVAL to whoever writes it, outside too; inside it cannot even be opened."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as victim:
        code = f"""
import os
pid = {victim.pid}
for path in (f"/proc/{{pid}}/comm", f"/proc/{{pid}}/task/{{pid}}/comm", f"/proc/self/task/{{pid}}/comm"):
    for flags in (os.O_RDWR, os.O_WRONLY | os.O_CLOEXEC, os.O_WRONLY | os.O_CREAT):
        try:
            os.close(os.open(path, flags))
            print("opened")
        except OSError as error:
            print(type(error).__name__)
"""
        assert "opened" in run_outside(code, workspace=workspace).check().stdout
        told = run_inside(code, workspace=workspace).check().stdout
        victim.communicate(b"\n")
    assert "opened" not in told


RACE = r"""
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
static char path[64] = "/proc/self/comm";
static volatile int over;
static void *swap(void *unused) {
    const char *const leaves[] = {"comm", "stat", "comm", "mem\0"};
    for (unsigned round = 0; !over; round++) {
        memcpy(path + 11, leaves[round % 4], 4);
        for (volatile int wait = 0; wait < 2000; wait++) {}
    }
    return unused;
}
int main(void) {
    pthread_t thread;
    char found[64], name[64];
    int wrong = 0, named = 0;
    pthread_create(&thread, 0, swap, 0);
    for (int i = 0; i < 20000; i++) {
        int file = open(path, O_RDWR);
        if (file < 0) continue;
        snprintf(name, sizeof name, "/proc/self/fd/%d", file);
        ssize_t size = readlink(name, found, sizeof found - 1);
        found[size < 0 ? 0 : size] = 0;
        if (size > 5 && !strcmp(found + size - 5, "/comm")) named++; else wrong++;
        close(file);
    }
    over = 1;
    pthread_join(thread, 0);
    printf("%d\n", wrong);
    return named ? 0 : 3;
}
"""


def test_a_path_exchanged_in_a_race_opens_nothing_else(workspace: Path) -> None:
    program = compile_c(RACE, workspace, "-pthread", name="race")
    assert run_command_inside([program], workspace=workspace).check().stdout == "0\n"
