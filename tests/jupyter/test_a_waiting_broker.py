"""While code inside keeps the broker waiting in Linux, a kernel goes on: its calls, its notices, Ctrl-C and the end."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from sandboxed_kernel.linux import processes
from sandboxed_kernel.notices.render import MIME
from tests.support import freezers, kernels
from tests.support.living import is_running, threads_in_linux
from tests.support.servers import wait_until

# In a process of its own, with COUNT more.
FREEZE = '''
import subprocess, sys
code = """
{freezers}
import resource
file = os.open("/dev/shm/sandboxed-kernel-test-%d" % os.getpid(), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
os.unlink("/dev/shm/sandboxed-kernel-test-%d" % os.getpid())
start_hogs()
time.sleep(0.1)
hold_inode(file)
def change():
    while True:
        os.fchmod(file, 0o600)
threading.stack_size(65536)
for _ in range({processes} - 1):
    if os.fork() == 0:
        change()
for _ in range({threads} - 1):
    threading.Thread(target=change).start()
change()
"""
freezing = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
'''
ASK = """
import socket
heard = []
with socket.create_server(("127.0.0.1", 0)) as server:
    for _ in range(20):
        with socket.create_connection(server.getsockname(), 5):
            heard.append(server.accept()[0].close())
print(len(heard))
try:
    socket.create_connection(("198.51.100.2", 80), 5)
except PermissionError:
    print("refused")
"""


def freeze(processes: int, threads: int) -> str:
    text = Path(freezers.__file__).read_text().replace('"""', "'''").replace("\\", "\\\\")
    code = FREEZE.replace("{freezers}", text)
    return code.replace("{processes}", str(processes)).replace("{threads}", str(threads))


def interrupt(kernel: kernels.Kernel) -> None:
    """A busy cell, which an interrupt ends within a second."""
    busy = kernel.begin("while True: pass")
    time.sleep(0.3)
    began = time.monotonic()
    kernel.request("control", "interrupt_request", {})
    assert "KeyboardInterrupt" in kernel.finish(busy).error
    assert time.monotonic() - began < 1.0


@pytest.mark.parametrize(("processes_", "threads"), [(1, 1), (50, 1), (1, 1000)])
def test_a_kernel_goes_on_and_ends_while_calls_wait(processes_: int, threads: int, short_path: Path) -> None:
    with kernels.running(kernels.REAL, short_path) as kernel:
        kernel.run(freeze(processes_, threads))
        broker = processes.children(kernel.pid)[0]
        wait_until(lambda: threads_in_linux(broker), "the broker to wait in Linux", within=20.0)
        asked = kernel.run(ASK)
        told = [m for m in asked.iopub if MIME in m["content"].get("data", {})]
        assert [m["content"]["text"] for m in asked.iopub if m["msg_type"] == "stream"] == ["20\nrefused\n"]
        assert [m["content"]["data"][MIME]["address"] for m in told] == ["198.51.100.2"]
        interrupt(kernel)
        wait_until(lambda: threads_in_linux(broker), "the broker to wait in Linux still", within=5.0)
        inside = list(processes.descendants(broker))
        began = time.monotonic()
        kernel.manager.shutdown_kernel(now=False)
        assert time.monotonic() - began < 2.0
        wait_until(lambda: not any(map(is_running, inside)), "the end of everything inside", within=2.0)


def test_a_thousand_frozen_processes_delay_neither_an_interrupt_nor_the_end(short_path: Path) -> None:
    policy = short_path / "policy.toml"
    policy.write_text("[home]\nkeep = false")  # root's SQLite calls fchown(2) for the history, and would wait as well
    with kernels.running([*kernels.REAL, "--policy", str(policy)], short_path) as kernel:
        kernel.run(freeze(1000, 1))
        broker = processes.children(kernel.pid)[0]
        wait_until(lambda: len(threads_in_linux(broker)) > 30, "the broker to wait in Linux", within=20.0)
        interrupt(kernel)
        inside = list(processes.descendants(broker))
        kernel.manager.shutdown_kernel(now=False)
        wait_until(lambda: not any(map(is_running, inside)), "the end of everything inside", within=2.0)
