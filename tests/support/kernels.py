"""A Jupyter kernel under test, driven by jupyter_client: the sandboxed one, or the relay with a broker that
sandboxes nothing.

``SANDBOXED_KERNEL_UNDER_TEST=fake`` runs the tests that need no injected events with that broker too, which tells
whether a failure is the relay's or the sandbox's.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zmq
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import KernelManager

from sandboxed_kernel.errors import HostError
from sandboxed_kernel.notices import channel as words
from sandboxed_kernel.notices.events import Event

Message = dict[str, Any]
DEADLINE = 30.0  # seconds for anything at all; on a quiet machine each step takes milliseconds

FAKE = [sys.executable, str(Path(__file__).with_name("fake_broker.py")), "-f", "{connection_file}"]
REAL = [sys.executable, "-I", "-m", "sandboxed_kernel", "-f", "{connection_file}"]
PLAIN = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]


def command_under_test() -> list[str]:
    return FAKE if os.environ.get("SANDBOXED_KERNEL_UNDER_TEST") == "fake" else REAL


def spec(command: list[str]) -> KernelSpec:
    metadata = {"supported_encryption": ["curve"]}
    return KernelSpec(
        argv=command, display_name="under test", language="python", interrupt_mode="message", metadata=metadata
    )


@dataclass
class Outcome:
    """What one execute_request led to."""

    msg_id: str
    reply: Message
    iopub: list[Message]

    @property
    def status(self) -> str:
        return str(self.reply["content"]["status"])

    def of(self, *types: str) -> list[Message]:
        return [message for message in self.iopub if message["msg_type"] in types]

    @property
    def text(self) -> str:
        return "".join(message["content"]["text"] for message in self.of("stream"))

    @property
    def error(self) -> str:
        """What the cell's error output says, empty for none."""
        return "".join("\n".join(message["content"]["traceback"]) for message in self.of("error"))

    @property
    def displays(self) -> list[Message]:
        return self.of("display_data", "update_display_data", "execute_result")


class Kernel:
    """One running kernel and one client."""

    def __init__(self, manager: KernelManager, client: BlockingKernelClient, broker: FakeBrokerControl | None) -> None:
        self.manager, self.client, self.broker = manager, client, broker
        self._replies: dict[str, Message] = {}  # read while another cell was waited for
        self._idle: set[str] = set()

    @property
    def pid(self) -> int:
        """The launcher's."""
        return int(self.manager.provisioner.process.pid)  # type: ignore[union-attr]

    @property
    def connection(self) -> dict[str, Any]:
        return dict(self.manager.get_connection_info())

    def begin(self, code: str, **options: Any) -> str:
        return str(self.client.execute(code, **options))

    def finish(self, msg_id: str) -> Outcome:
        """Until the reply and the idle that belong to it; every iopub message meanwhile, of whatever parent."""
        iopub: list[Message] = []
        end = time.monotonic() + DEADLINE
        # Both at once, as real clients do: one that does not read iopub until the reply is a slow one.
        while not (msg_id in self._replies and msg_id in self._idle):
            for channel in self._readable(end):
                message: Message = getattr(self.client, f"get_{channel}_msg")(timeout=0)
                parent = str(message["parent_header"].get("msg_id"))
                if channel == "shell":
                    self._replies[parent] = message
                    continue
                iopub.append(message)
                if message["content"].get("execution_state") == "idle":
                    self._idle.add(parent)
        return Outcome(msg_id, self._replies.pop(msg_id), iopub)

    def _readable(self, end: float) -> list[str]:
        poller = zmq.Poller()
        names = {}
        for channel in ("shell", "iopub"):
            names[socket_of := getattr(self.client, f"{channel}_channel").socket] = channel
            poller.register(socket_of, zmq.POLLIN)
        ready = poller.poll(int(max(0.0, end - time.monotonic()) * 1000))
        assert ready, "nothing more came within the deadline"
        return [names[source] for source, _ in ready]

    def run(self, code: str, **options: Any) -> Outcome:
        return self.finish(self.begin(code, **options))

    def request(self, channel: str, msg_type: str, content: Message, **header: Any) -> Message:
        """Any request, and the reply to it."""
        message = self.client.session.msg(msg_type, content)
        message["header"].update(header)
        getattr(self.client, f"{channel}_channel").send(message)
        end = time.monotonic() + DEADLINE
        while True:
            reply: Message = getattr(self.client, f"get_{channel}_msg")(timeout=end - time.monotonic())
            parent = str(reply["parent_header"].get("msg_id"))
            if parent == message["header"]["msg_id"]:
                return reply
            self._replies[parent] = reply  # a cell ended meanwhile: for ``finish``

    def until_iopub(self, wanted: Callable[[Message], bool]) -> list[Message]:
        """Every message up to and including the wanted one."""
        found: list[Message] = []
        end = time.monotonic() + DEADLINE
        while not found or not wanted(found[-1]):
            found.append(self.client.get_iopub_msg(timeout=end - time.monotonic()))
        return found

    def exit_code(self) -> int:
        """Waits for the launcher to end."""
        process = self.manager.provisioner.process  # type: ignore[union-attr]
        return int(process.wait(timeout=DEADLINE))


class FakeBrokerControl:
    """The test's end of fake_broker.py's control socket."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "broker.sock")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(DEADLINE)
        self._socket.bind(str(folder / "test.sock"))
        self._numbers = 0
        self.heard: list[words.FromBroker | words.FromRelay] = []

    def say(self, word: words.FromBroker) -> None:
        self._socket.sendto(words.encode(word), self.path)

    def vanish(self) -> None:
        self._socket.sendto(b"vanish", self.path)

    def hear(self, kind: type) -> words.FromBroker | words.FromRelay:
        """The next word of this kind from the relay; the others are kept in ``heard``."""
        while True:
            word = words.decode(self._socket.recv(words.MAX_BYTES))
            self.heard.append(word)
            if isinstance(word, kind):
                return word

    def report(self, event: Event) -> None:
        """As the broker does: holds until the relay says that the notice is on its way."""
        self._numbers += 1
        self.say(words.Reported(event, self._numbers))
        assert self.hear(words.Published) == words.Published(self._numbers)

    def close(self) -> None:
        self._socket.close()


@contextmanager
def running(
    command: list[str], folder: Path, *, cwd: Path | None = None, with_broker: bool = False, **options: Any
) -> Iterator[Kernel]:
    """A kernel whose client is ready, ended on leaving. ``options`` are traits of KernelManager."""
    environment = {**os.environ, "IPYTHONDIR": str(folder / "ipython"), "XDG_STATE_HOME": str(folder / "state")}
    control = FakeBrokerControl(folder) if with_broker else None
    if control is not None:
        environment["FAKE_BROKER_SOCKET"] = control.path
    notebook = cwd or folder / "notebook"  # not ``folder``: the sandbox may write in it, but not to the audit log
    notebook.mkdir(exist_ok=True)
    manager, client = _start(command, folder, notebook, environment, options)
    try:
        yield Kernel(manager, client, control)
    finally:
        _end(manager, client)
        if control is not None:
            control.close()


def _start(
    command: list[str], folder: Path, notebook: Path, environment: dict[str, str], options: dict[str, Any]
) -> tuple[KernelManager, BlockingKernelClient]:
    """Once more with other ports, as Jupyter Server does, where one was taken before the kernel could listen on it."""
    for left in reversed(range(3)):
        manager = KernelManager(connection_file=str(folder / f"connection{left}.json"), **options)
        manager._kernel_spec = spec(command)
        manager.start_kernel(env=environment, cwd=str(notebook))
        client = manager.blocking_client()
        client.start_channels()
        try:
            client.wait_for_ready(timeout=DEADLINE)
        except RuntimeError:
            taken = manager.provisioner.process.poll() == HostError.exit_code  # type: ignore[union-attr]
            _end(manager, client)
            if not (taken and left):
                raise
        else:
            return manager, client
    raise AssertionError("not reached: the last attempt returns or raises")


def _end(manager: KernelManager, client: BlockingKernelClient) -> None:
    client.stop_channels()
    manager.shutdown_kernel(now=True)
    manager.cleanup_resources()
