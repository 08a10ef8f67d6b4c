"""A broker without a sandbox: starts inside/start.py as a plain child and speaks notices/channel.py.

Run as a kernel: ``python tests/support/fake_broker.py -f CONNECTION_FILE [--active-content allow]``. A test injects
words with one JSON datagram (as of ``channel.encode``) to the unix socket named by FAKE_BROKER_SOCKET; a
``Reported`` is sent on with its number, and its ``Published`` is answered to the sender's address. It is tested
itself by every test that uses it.
"""

from __future__ import annotations

import argparse
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from sandboxed_kernel.errors import SandboxError
from sandboxed_kernel.notices import channel as words
from sandboxed_kernel.relay.connection import BackConnection, create_back, read_front
from sandboxed_kernel.relay.lifeline import Lifeline
from sandboxed_kernel.relay.loop import Relay, RelayOptions

START = Path(__file__).parents[2] / "sandboxed_kernel" / "inside" / "start.py"


class FakeBroker:
    """The child process of the relay that plays the broker, and the warden at ``orders`` and ``done``."""

    def __init__(self, relay: socket.socket, orders: int, done: int, back: BackConnection, private: str) -> None:
        self.relay, self.orders, self.done, self.private = relay, orders, done, private
        self.sender: str | None = None
        command = [sys.executable, str(START), "-f", back.file]
        environment = {**os.environ, "TMPDIR": private, "IPYTHONDIR": f"{private}/ipython"}
        fds = tuple(back.listeners.values())
        self.child = subprocess.Popen(command, pass_fds=fds, env=environment, process_group=0, stdin=subprocess.DEVNULL)
        back.close_listeners()
        self.cell: str | None = None  # that began last

    def run(self, control: socket.socket | None) -> None:
        pidfd = os.pidfd_open(self.child.pid)
        self.tell(words.Started(self.child.pid))
        sources: list[Any] = [pidfd, self.relay, self.orders, *([control] if control else [])]
        while True:
            ready = select.select(sources, [], [])[0]
            if self.relay in ready and not self.hear(control):
                break
            if self.orders in ready and not self.pass_on(os.read(self.orders, 64)):
                break
            if control in ready and control is not None:
                self.inject(control)
            if pidfd in ready:
                break
        self.end()

    def tell(self, word: words.FromBroker) -> None:
        self.relay.send(words.encode(word))

    def hear(self, control: socket.socket | None) -> bool:
        data = self.relay.recv(words.MAX_BYTES)
        if not data:
            return False
        if control is not None and self.sender:
            control.sendto(data, self.sender)
        match words.decode(data):
            case words.CellBegan(msg_id):
                self.cell = msg_id
        return True

    def pass_on(self, numbers: bytes) -> bool:
        for number in numbers:
            os.killpg(self.child.pid, number)
        os.write(self.done, numbers)
        return bool(numbers)

    def inject(self, control: socket.socket) -> None:
        data, self.sender = control.recvfrom(words.MAX_BYTES)
        if data == b"vanish":  # the broker dies: its child dies with it, and nobody says Ended
            os.killpg(self.child.pid, signal.SIGKILL)
            os._exit(1)
        word = words.decode(data)
        if isinstance(word, words.Reported) and word.event.cell is None:  # as the real one
            word = replace(word, event=replace(word.event, cell=self.cell))
        self.relay.send(words.encode(word))

    def end(self) -> None:
        try:
            os.killpg(self.child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        code = self.child.wait()
        shutil.rmtree(self.private, ignore_errors=True)  # the launcher may have been killed
        self.tell(words.Ended(-code if code < 0 else code << 8))


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("-f", "--f", required=True)
    parser.add_argument("--not-enforced", action="append", default=[])
    parser.add_argument("--remark", action="append", default=[])
    parser.add_argument("--active-content", default="strip", choices=("strip", "allow"))
    args = parser.parse_args()
    private = tempfile.mkdtemp(prefix="sbk-")
    try:
        front = read_front(args.f)
        back = create_back(private)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        orders, done = os.pipe(), os.pipe()
        if os.fork() == 0:
            os.setsid()
            ours.close()
            os.close(orders[1])
            control = None
            if path := os.environ.get("FAKE_BROKER_SOCKET"):
                control = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                control.bind(path)
            try:
                FakeBroker(theirs, orders[0], done[1], back, private).run(control)
            except BrokenPipeError:
                pass
            os._exit(0)
        theirs.close()
        os.close(orders[0])
        os.close(done[1])
        return Relay(
            front,
            back,
            ours,
            Lifeline(orders[1], done[0]),
            options=RelayOptions(
                active_content=args.active_content, not_enforced=tuple(args.not_enforced), remarks=tuple(args.remark)
            ),
        ).run()
    except SandboxError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    finally:
        shutil.rmtree(private, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
