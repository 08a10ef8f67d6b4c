"""Does: the supervisor's own voice towards the clients: verified requests in; signed replies and iopub messages out.

Used by the relay and by the refusal, so that both answer ``kernel_info`` and its kin in the same words.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from collections.abc import Sequence

import zmq

from sandboxed_kernel.relay import answers, channels, messages
from sandboxed_kernel.relay.channels import Outlet, Socket
from sandboxed_kernel.relay.connection import FrontConnection
from sandboxed_kernel.relay.messages import Frame, Json, Signer, Verified, write_object
from sandboxed_kernel.relay.schema import Checked


class Front:
    """The five bound sockets and the front key. Raises HostError when a port is taken."""

    def __init__(self, context: zmq.Context[Socket], connection: FrontConnection) -> None:
        self.channels, self.connection = channels.bind_front(context, connection)
        self.session = os.urandom(16).hex()  # new per start: clients tell a restarted kernel by it
        self._signer = Signer(connection.key, connection.digest)
        self._outlet = Outlet(self.channels["iopub"])
        self._count = 0
        self._second = (0, "")  # and its date, which many messages share
        self._parent: tuple[Json, bytes] = ({}, b"{}")  # likewise, as it is written

    @property
    def blocked(self) -> bool:
        """A client has no room for more output."""
        return self._outlet.blocked

    def flush(self) -> None:
        self._outlet.flush(time.monotonic())

    def close(self) -> None:
        """After what waits for slow clients has gone out, or their time is over."""
        deadline = time.monotonic() + channels.PATIENCE + 1
        while self.blocked and time.monotonic() < deadline:
            time.sleep(0.005)
            self.flush()
        for channel in self.channels.values():
            channel.socket.close()

    def receive(self, channel: str) -> list[Frame] | None:
        return self.channels[channel].receive()

    def verify(self, frames: Sequence[Frame]) -> Verified:
        """Raises Unusable."""
        return Verified(frames, self._signer)

    def header(self, msg_type: str) -> Json:
        self._count += 1
        now = time.time()
        if int(now) != self._second[0]:
            self._second = int(now), time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
        return {
            "msg_id": f"{self.session}_{os.getpid()}_{self._count}",
            "msg_type": msg_type,
            "username": "sandboxed-kernel",
            "session": self.session,
            "date": f"{self._second[1]}.{int(now % 1 * 1e6):06d}Z",
            "version": messages.PROTOCOL_VERSION,
        }

    def publish(self, msg_type: str, content: Json, parent: Json) -> None:
        """One message of our own on iopub."""
        self._publish([msg_type.encode()], self._parts(msg_type, content, parent, {}))

    def _publish(self, topic: Sequence[Frame], parts: list[Frame]) -> None:
        self._outlet.send_own(messages.frames(topic, parts, [], self._signer), time.monotonic())

    def reset_rate_limit(self) -> None:
        """Jupyter Server's rate limiter passes on no display for a while after 3,000 messages or 3 MB in 3 s, and
        resets on any idle status (``_limit_rate`` in its kernels/connection/channels.py). This one's parent is a
        kernel_info_request that nobody made, which no client mistakes for a cell.
        """
        self.publish("status", {"execution_state": "idle"}, self.header("kernel_info_request"))

    def reply(self, channel: str, msg_type: str, content: Json, identities: Sequence[Frame], parent: Json) -> None:
        """One message of our own to one client."""
        self._send(channel, identities, self._parts(msg_type, content, parent, {}))

    def pass_output(self, message: Checked) -> None:
        """To every client that has room, under a header of ours: ids, dates and sessions are not the sandbox's."""
        parts = self._parts(message.msg_type, message.content, message.parent, message.metadata)
        topic = [message.msg_type.encode()]
        self._outlet.send_output(messages.frames(topic, parts, message.buffers, self._signer))

    def pass_reply(self, channel: str, message: Checked, identities: Sequence[Frame]) -> None:
        """Likewise, to the client that asked."""
        parts = self._parts(message.msg_type, message.content, message.parent, message.metadata)
        self._send(channel, identities, parts)

    def _send(self, channel: str, identities: Sequence[Frame], parts: list[Frame]) -> None:
        self.channels[channel].send(messages.frames(identities, parts, [], self._signer))

    def answer(self, channel: str, request: Verified, content: Json) -> None:
        """A request answered in the kernel's stead, with the busy and idle that a client waits for."""
        self.publish("status", {"execution_state": "busy"}, request.header)
        reply = request.msg_type.removesuffix("request") + "reply"
        self.reply(channel, reply, content, request.identities, request.header)
        self.publish("status", {"execution_state": "idle"}, request.header)

    def _parts(self, msg_type: str, content: Json, parent: Json, metadata: Json) -> list[Frame]:
        if parent is not self._parent[0]:
            self._parent = parent, write_object(parent)
        written = write_object(metadata) if metadata else b"{}"
        return [write_object(self.header(msg_type)), self._parent[1], written, write_object(content)]

    def echo_heartbeat(self) -> None:
        """As ipykernel's thread does (heartbeat.py); here it also answers for a kernel that is stuck."""
        heartbeat = self.channels["hb"]
        while (beat := heartbeat.receive()) is not None:
            heartbeat.send(beat)

    def welcome_subscribers(self) -> None:
        """JEP 65: each new subscriber is told, so that it knows when output cannot be missed any more."""
        while (frames := self.receive("iopub")) is not None:
            if frames[0][:1] != b"\x01":  # an unsubscription
                continue
            topic = bytes(frames[0][1:])
            try:
                name = topic.decode()
            except UnicodeDecodeError:
                continue
            parts = self._parts("iopub_welcome", {"subscription": name}, {}, {})
            self._publish([topic] if topic else [], parts)


def installed_versions() -> answers.Versions:
    """Of this interpreter, which is also the one that runs inside. Nothing is imported for it.

    Whoever runs another interpreter inside passes its versions itself.
    """
    python = sys.version.split()[0]
    return answers.Versions(python, sys.version, _installed_version("IPython", "ipython") or "unknown")


def _installed_version(module: str, distribution: str) -> str | None:
    """From the name of the .dist-info folder: importlib.metadata would cost 20 ms before the first reply."""
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        return None
    site = os.path.dirname(next(iter(spec.submodule_search_locations)))
    for name in os.listdir(site):
        stem, _, rest = name.lower().partition("-")
        if stem == distribution and rest.endswith(".dist-info"):
            return rest.removesuffix(".dist-info")
    return None
