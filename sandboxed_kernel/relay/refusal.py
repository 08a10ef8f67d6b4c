"""Does: stands in for a kernel that may not be started, so that the user reads the reason in the notebook.

Nothing untrusted runs. ``kernel_info`` is answered, and every cell with the error, until a client says shutdown, the
parent is gone, or somebody ends the process.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Sequence

import zmq

from sandboxed_kernel.errors import SandboxError
from sandboxed_kernel.relay import answers
from sandboxed_kernel.relay.cells import Cell
from sandboxed_kernel.relay.channels import Socket, Source, Waiting
from sandboxed_kernel.relay.connection import FrontConnection
from sandboxed_kernel.relay.front import Front, installed_versions
from sandboxed_kernel.relay.messages import Frame, Json, Unusable, Verified
from sandboxed_kernel.relay.watch import Signals, Watch, parent_pid


def serve_refusal(front: FrontConnection, error: SandboxError) -> int:
    """Until the clients have had enough; gives the error's exit code. Raises HostError when a port is taken. Main
    thread only.
    """
    context = zmq.Context[Socket]()
    voice = Front(context, front)
    serve(voice, type(error).__name__, str(error), parent_pid())
    voice.close()
    context.term()
    return error.exit_code


def serve(front: Front, name: str, message: str, parent: int | None, waiting: Iterable[Cell] = ()) -> None:
    """The same on sockets that are bound already; ``waiting`` cells were asked for before it was known."""
    refusal = _Refusal(front, name, message)
    for cell in waiting:
        refusal.refuse(cell.channel, cell.header, cell.identities, silent=cell.silent)
    with Signals() as signals, Watch(parent) as watch:
        handlers: dict[Source, Callable[[], object]] = {
            front.channels["hb"]: front.echo_heartbeat,
            front.channels["iopub"]: front.welcome_subscribers,
            front.channels["shell"]: lambda: refusal.take("shell"),
            front.channels["control"]: lambda: refusal.take("control"),
            front.channels["stdin"]: lambda: front.receive("stdin"),
            signals.fileno(): lambda: refusal.signalled(signals.read()),
        }
        descriptor = watch.fileno()
        if descriptor is not None:
            handlers[descriptor] = refusal.stop
        sources = Waiting(handlers)
        while not refusal.over:
            for source in sources.ready(0.02 if front.blocked else None):
                handlers[source]()
            front.flush()
        sources.close()


class _Refusal:
    """What is answered, and whether it is over."""

    def __init__(self, front: Front, name: str, message: str) -> None:
        self._front = front
        self._message = message
        self._name = name
        self.over = False

    def stop(self) -> None:
        self.over = True

    def signalled(self, numbers: bytes) -> None:
        # SIGINT is how every shutdown and many an impatient user begin; it interrupts a cell, and here none runs.
        self.over = self.over or any(number != signal.SIGINT for number in numbers)

    def take(self, channel: str) -> None:
        while (frames := self._front.receive(channel)) is not None:
            try:
                self._answer(channel, self._front.verify(frames))
            except Unusable:
                continue

    def _answer(self, channel: str, request: Verified) -> None:
        kind = request.msg_type
        if kind == "execute_request":
            silent = request.content().get("silent") is True
            self.refuse(channel, request.header, request.identities, silent=silent)
        elif kind == "kernel_info_request":
            self._front.answer(channel, request, answers.kernel_info(installed_versions()))
        elif kind == "shutdown_request":
            restart = request.content().get("restart") is True
            self._front.answer(channel, request, {"status": "ok", "restart": restart})
            self.stop()
        elif kind == "interrupt_request":
            self._front.answer(channel, request, {"status": "ok"})
        elif kind == "is_complete_request":
            self._front.answer(channel, request, {"status": "unknown"})
        elif kind.endswith("_request"):
            self._front.answer(channel, request, self._error())

    def _error(self) -> Json:
        return {"status": "error", "ename": self._name, "evalue": self._message, "traceback": [self._message]}

    def refuse(self, channel: str, parent: Json, identities: Sequence[Frame], *, silent: bool) -> None:
        error = self._error()
        self._front.publish("status", {"execution_state": "busy"}, parent)
        if not silent:
            text = f"[sandbox] Nothing was run: {self._message}\n"
            self._front.publish("stream", {"name": "stderr", "text": text}, parent)
            self._front.publish("error", {name: error[name] for name in ("ename", "evalue", "traceback")}, parent)
        # 0: a number is required, and no cell has run
        content = {**error, "execution_count": 0, "user_expressions": {}, "payload": []}
        self._front.reply(channel, "execute_reply", content, identities, parent)
        self._front.publish("status", {"execution_state": "idle"}, parent)
