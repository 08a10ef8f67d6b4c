"""While code inside keeps the broker waiting in Linux, a cell can be interrupted, and the kernel ends at once."""

from __future__ import annotations

import time
from pathlib import Path

from sandboxed_kernel.linux import processes
from tests.support import freezers, kernels
from tests.support.living import is_running, threads_in_linux
from tests.support.servers import wait_until

# In a process of its own, so that the kernel itself needs nothing of the broker.
FREEZE = '''
import subprocess, sys
code = """
{freezers}
file = os.open("/dev/shm/sandboxed-kernel-test-%d" % os.getpid(), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
os.unlink("/dev/shm/sandboxed-kernel-test-%d" % os.getpid())
start_hogs()
time.sleep(0.1)
hold_inode(file)
while True:
    os.fchmod(file, 0o600)
"""
freezing = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
'''


def test_an_interrupt_and_the_end_do_not_wait_for_it(short_path: Path) -> None:
    text = Path(freezers.__file__).read_text().replace('"""', "'''").replace("\\", "\\\\")
    with kernels.running(kernels.REAL, short_path) as kernel:
        kernel.run(FREEZE.replace("{freezers}", text))
        broker = processes.children(kernel.pid)[0]
        wait_until(lambda: threads_in_linux(broker), "the broker to wait in Linux", within=20.0)
        busy = kernel.begin("while True: pass")
        time.sleep(0.3)
        began = time.monotonic()
        kernel.request("control", "interrupt_request", {})
        assert "KeyboardInterrupt" in kernel.finish(busy).error
        assert time.monotonic() - began < 1.0
        assert threads_in_linux(broker), "the broker waits no longer"
        inside = list(processes.descendants(broker))
        began = time.monotonic()
        kernel.manager.shutdown_kernel(now=False)
        assert time.monotonic() - began < 2.0
        wait_until(lambda: not any(map(is_running, inside)), "the end of everything inside", within=2.0)
