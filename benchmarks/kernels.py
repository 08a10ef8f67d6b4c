"""Does: a Jupyter kernel of one contender, driven by jupyter_client: the same client code for every contender."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty

import zmq
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import KernelManager

from benchmarks.commands import Failed, quiet_environment, workspace
from benchmarks.model import Contender

_DEADLINE = 120.0  # seconds for anything at all
_LOOK = 1.0  # seconds without an answer after which is asked whether the kernel lives at all
_SETTLE = 0.3  # seconds: what a kernel does just after its first cell belongs to its start
_DELIMITER = b"<IDS|MSG>"  # https://jupyter-client.readthedocs.io/en/stable/messaging.html#the-wire-protocol


class Kernel:
    """One started kernel and one client; it may not be ready yet."""

    def __init__(self, manager: KernelManager) -> None:
        self._manager = manager
        self.client: BlockingKernelClient = manager.blocking_client()
        self.client.start_channels(hb=False)

    @property
    def pid(self) -> int:
        """Of the process that jupyter_client started."""
        return int(self._manager.provisioner.process.pid)  # type: ignore[union-attr] # typed as its base class

    def ask_info(self) -> None:
        """kernel_info_request, and its reply."""
        self._reply_to(self.client.kernel_info())

    def execute(self, code: str) -> None:
        """execute_request, and its reply. Raises Failed where the code raised."""
        content = self._reply_to(self.client.execute(code))["content"]
        if content["status"] != "ok":
            raise Failed(f"{code!r}: {content.get('ename')}: {content.get('evalue')}")

    def execute_and_drain(self, code: str) -> int:
        """As ``execute``, with everything that it published, undecoded; how many messages that was.

        A client that decoded them would measure itself: the JSON of 100 MB takes longer than its transport.
        """
        msg_id = self.client.execute(code)
        socket = self.client.iopub_channel.socket
        messages, end = 0, time.monotonic() + _DEADLINE
        while True:
            if not socket.poll(max(0, int((end - time.monotonic()) * 1000)), zmq.POLLIN):
                raise Failed(f"{code!r}: no end of its output within {_DEADLINE} s")
            frames = socket.recv_multipart(copy=False)
            messages += 1
            if _is_idle_of(frames, msg_id):
                break
        content = self._reply_to(msg_id)["content"]
        if content["status"] != "ok":
            raise Failed(f"{code!r}: {content.get('ename')}: {content.get('evalue')}")
        return messages

    def _reply_to(self, msg_id: str) -> dict[str, dict[str, str]]:
        """Raises Failed: no answer in time, or the kernel has ended."""
        end = time.monotonic() + _DEADLINE
        while time.monotonic() < end:
            try:
                reply: dict[str, dict[str, str]] = self.client.get_shell_msg(timeout=_LOOK)
            except Empty:
                if not self._manager.is_alive():
                    raise Failed("the kernel has ended") from None
                continue
            if reply["parent_header"].get("msg_id") == msg_id:
                return reply
        raise Failed(f"no reply within {_DEADLINE} s")

    def close(self) -> None:
        self.client.stop_channels()
        self._manager.shutdown_kernel(now=True)
        self._manager.cleanup_resources()


def _is_idle_of(frames: list[zmq.Frame], msg_id: str) -> bool:
    """Topics, delimiter, signature, header, parent header, metadata, content: only a status is decoded."""
    begin = next(place for place, frame in enumerate(frames) if frame.buffer == _DELIMITER)
    if b'"status"' not in frames[begin + 2].bytes:
        return False
    parent, content = json.loads(frames[begin + 3].bytes), json.loads(frames[begin + 5].bytes)
    return bool(parent.get("msg_id") == msg_id and content["execution_state"] == "idle")


def start(contender: Contender, folder: Path) -> Kernel:
    """Start the kernel as Jupyter does; ``folder`` is its working directory. Raises Failed."""
    argv = contender.kernel(folder)
    if argv is None:
        raise Failed(f"{contender.name} starts no Jupyter kernels")
    beside = folder.parent
    manager = KernelManager(connection_file=str(beside / "connection.json"))
    manager._kernel_spec = KernelSpec(argv=argv, display_name=contender.name, language="python")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    manager.start_kernel(env=quiet_environment(beside), cwd=str(folder), **quiet)
    return Kernel(manager)


@contextmanager
def ready(contender: Contender) -> Iterator[Kernel]:
    """A kernel that has run its first cell, ended on leaving."""
    with workspace() as folder:
        kernel = start(contender, folder)
        try:
            kernel.execute("pass")
            time.sleep(_SETTLE)
            yield kernel
        finally:
            kernel.close()
