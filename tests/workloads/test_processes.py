"""Every way Python has to use more than one process."""

from __future__ import annotations

import pytest

from tests.support.workloads import Both, text_of

pytestmark = pytest.mark.container

# What is sent to a started process has to be imported there: a module in the notebook's folder, as users write it.
MODULE = """
%%writefile work.py
import os, sys
from multiprocessing import shared_memory

def square(x):
    return x * x

def who(_):
    return os.getpid()

def fill(name):
    block = shared_memory.SharedMemory(name)
    block.buf[:3] = b"abc"
    block.close()

def count(state, lock):
    for _ in range(50):
        with lock:
            state["n"] += 1

def put(queue, pipe):
    queue.put(("from the queue", os.getpid() != os.getppid()))
    pipe.send("from the pipe")

def append(shared, ends):
    shared[1] = b"changed"
    ends.get().send("by a pipe that came through a queue")

def tell():
    print("told by a child", flush=True)
"""


@pytest.fixture(scope="module", autouse=True)
def module(both: Both) -> None:
    both.run(MODULE)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(both: Both, method: str) -> None:
    told = both.say(f"""
import os, multiprocessing, work
from multiprocessing import shared_memory
context = multiprocessing.get_context({method!r})
with context.Pool(2) as pool:
    print(pool.map(work.square, range(5)), os.getpid() in pool.map(work.who, range(4)))

with context.Manager() as manager:
    state, lock = manager.dict(n=0), manager.Lock()
    children = [context.Process(target=work.count, args=(state, lock)) for _ in range(2)]
    [child.start() for child in children], [child.join() for child in children]
    print(state["n"], [child.exitcode for child in children])

block = shared_memory.SharedMemory(create=True, size=16)
child = context.Process(target=work.fill, args=(block.name,))
child.start(), child.join()
print(bytes(block.buf[:3]))
block.close(), block.unlink()

queue, (ours, theirs) = context.Queue(), context.Pipe()
child = context.Process(target=work.put, args=(queue, theirs))
child.start()
print(queue.get(timeout=20), ours.recv())
child.join()
""")
    assert told.splitlines() == [
        "[0, 1, 4, 9, 16] False", "100 [0, 0]", "b'abc'", "('from the queue', True) from the pipe"
    ]  # fmt: skip


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_descriptors_and_shared_lists_are_handed_on(both: Both, method: str) -> None:
    """A pipe's end in a queue is fetched from a server of the sender's, as a descriptor over a unix socket."""
    told = both.say(f"""
import multiprocessing, work
from multiprocessing.managers import SharedMemoryManager
context = multiprocessing.get_context({method!r})
with SharedMemoryManager(ctx=context) as manager:
    shared, ends, (ours, theirs) = manager.ShareableList([1, b"as it was", 2.5]), context.Queue(), context.Pipe()
    child = context.Process(target=work.append, args=(shared, ends))
    child.start(), ends.put(theirs)
    print(ours.recv(), list(shared))
    child.join()
""")
    assert told == "by a pipe that came through a queue [1, b'changed', 2.5]"


def test_concurrent_futures(both: Both) -> None:
    assert (
        both.say("""
import work
from concurrent.futures import ProcessPoolExecutor
with ProcessPoolExecutor(2) as pool:
    failed = pool.submit(int, "no number").exception()
    print(list(pool.map(work.square, range(3))), type(failed).__name__)
""")
        == "[0, 1, 4] ValueError"
    )


def test_output_of_forked_children(both: Both) -> None:
    assert both.say("""
import multiprocessing, os, work
child = multiprocessing.get_context("fork").Process(target=work.tell)
child.start(), child.join()
if (pid := os.fork()) == 0:
    print("told by a fork", flush=True)
    os._exit(0)
_ = os.waitpid(pid, 0)
import time; time.sleep(0.3)  # it travels by another way than ours
""").splitlines() == ["told by a child", "told by a fork"]


def test_a_child_that_fails_is_seen_to_fail(both: Both) -> None:
    assert (
        both.say("""
import os, signal, subprocess, sys
code = subprocess.run([sys.executable, "-c", "raise SystemExit(3)"]).returncode
child = subprocess.Popen(["sleep", "60"])
child.send_signal(signal.SIGKILL)
print(code, child.wait())
""")
        == "3 -9"
    )


def test_every_folder_that_a_variable_names_exists(both: Both) -> None:
    """Astropy warns and goes without where it does not."""
    told = text_of(
        both.inside.run("""
import os
names = [n for n in os.environ if n.startswith("XDG_")] + ["HOME", "TMPDIR", "TMUX_TMPDIR"]
print(len(names), [n for n in names if not os.path.isdir(os.environ[n])])
""")
    )
    assert told.strip() == "8 []"
