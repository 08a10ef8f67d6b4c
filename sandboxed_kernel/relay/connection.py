"""Does: reads the front connection file, and makes the sockets over which the relay reaches the confined kernel.

*Front* is the side of the Jupyter client: the five channels of the connection file that the kernelspec was given.
*Back* is the side of the confined kernel: four unix sockets in a private folder, with a key of their own.

Who binds on the back side: **we do**, before anything untrusted exists. ``create_back`` binds and listens; the confined
process inherits the listening descriptors and only accepts (``ZMQ_USE_FD``, zmq_setsockopt(3)). So the sandbox needs
no right at all on the folder, no unix ``bind()`` at start, and cannot put a symbolic link to somebody else's socket
where the relay connects: the relay would then speak ZeroMQ to, say, a container daemon in the user's name.
``docs/decisions/back-sockets.md``.

It is no part of this module to speak ZeroMQ (``channels.py``).
"""

from __future__ import annotations

import json
import os
import socket
from typing import Any

from sandboxed_kernel.errors import HostError, PolicyError
from sandboxed_kernel.records import Record, replace

CHANNELS = ("shell", "iopub", "stdin", "control", "hb")
BACK_CHANNELS = ("shell", "iopub", "stdin", "control")  # the relay answers the heartbeat itself
LISTENERS_KEY = "sandboxed_kernel_listeners"  # in the back connection file: channel -> inherited descriptor
MAX_FILE_BYTES = 65536
# What hashlib guarantees, less MD5 and SHA-1 (no longer fit to authenticate, RFC 6151 and RFC 6194) and the
# shake functions (no fixed length, so no HMAC).
DIGESTS = ("sha224", "sha256", "sha384", "sha512", "sha3_224", "sha3_256", "sha3_384", "sha3_512", "blake2b", "blake2s")
_CURVE_KEYS = ("curve_publickey", "curve_secretkey")
_MAX_SOCKET_PATH = 107  # sun_path less its final NUL, unix(7)


class FrontConnection(Record):
    """A connection file that can be used: every field was checked. Only ``read_front`` makes one."""

    file: str
    transport: str  # "tcp" or "ipc"
    ip: str  # an address to bind, or for ipc a path prefix
    ports: dict[str, int]  # channel -> port; 0: any free one
    key: bytes
    digest: str  # a name of DIGESTS
    curve: tuple[bytes, bytes] | None  # (public, secret), Z85

    def endpoint(self, channel: str) -> str:
        """The ZeroMQ address of a channel; for port 0 of tcp that of a random port."""
        port = self.ports[channel]
        if self.transport == "ipc":
            return f"ipc://{self.ip}-{port}"
        return f"tcp://{self.ip}:{port or '*'}"


class BackConnection(Record):
    """Listening unix sockets for the confined kernel, and the connection file that tells it about them.

    The confined process must inherit every descriptor of ``listeners`` *under the same number*, and must be able to
    read ``file``; it needs no other right on ``folder`` and must have none to write there.
    Whoever forks owns a copy: ``close_listeners`` in each process that has no use for them.
    """

    folder: str
    file: str
    key: bytes
    listeners: dict[str, int]  # channel -> descriptor

    def path(self, channel: str) -> str:
        return f"{self.folder}/k-{_back_port(channel)}"

    def close_listeners(self) -> None:
        for descriptor in self.listeners.values():
            os.close(descriptor)
        self.listeners.clear()

    def unlink_sockets(self) -> None:
        """After the relay has connected nobody else needs the paths; without them nobody else can connect."""
        for channel in BACK_CHANNELS:
            try:
                os.unlink(self.path(channel))
            except FileNotFoundError:
                pass


def read_front(file: str) -> FrontConnection:
    """The connection file, checked. Raises PolicyError: it is whoever wrote the file who must act."""
    try:
        with open(file, "rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise PolicyError(file, f"cannot be read ({error.strerror})", "Pass the connection file: -f FILE.") from error
    if len(data) > MAX_FILE_BYTES:
        raise PolicyError(file, f"is larger than {MAX_FILE_BYTES} bytes", "Pass a Jupyter connection file.")
    try:
        fields = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise PolicyError(file, f"is not JSON ({error})", "Pass a Jupyter connection file.") from error
    if not isinstance(fields, dict):
        raise PolicyError(file, "is not a JSON object", "Pass a Jupyter connection file.")
    return FrontConnection(
        file=os.path.abspath(file),
        transport=_one_of(file, fields, "transport", ("tcp", "ipc"), "tcp"),
        ip=_address(file, fields),
        ports={channel: _port(file, fields, f"{channel}_port") for channel in CHANNELS},
        key=_key(file, fields),
        digest=_digest(file, fields),
        curve=_curve(file, fields),
    )


def _one_of(file: str, fields: dict[str, Any], name: str, allowed: tuple[str, ...], default: str) -> str:
    value = fields.get(name, default)
    if value not in allowed:
        raise PolicyError(f"{file}: {name}", f"{value!r}", f"Write one of {', '.join(allowed)}.")
    return str(value)


def _address(file: str, fields: dict[str, Any]) -> str:
    ip = fields.get("ip")
    if not isinstance(ip, str) or not ip or "\0" in ip:
        raise PolicyError(f"{file}: ip", f"{ip!r}", 'Write an address to listen on: "127.0.0.1".')
    if fields.get("transport") == "ipc" and len(os.fsencode(ip)) + len("-65535") > _MAX_SOCKET_PATH:
        raise PolicyError(f"{file}: ip", "is too long a path for unix sockets", "Use a shorter runtime folder.")
    return ip


def _port(file: str, fields: dict[str, Any], name: str) -> int:
    port = fields.get(name)
    if not isinstance(port, int) or isinstance(port, bool) or not 0 <= port <= 65535:
        raise PolicyError(f"{file}: {name}", f"{port!r}", "Write a port from 0 (any free one) to 65535.")
    if port == 0 and fields.get("transport") == "ipc":
        raise PolicyError(f"{file}: {name}", "0", "Write a number from 1: it is the end of a socket's path.")
    return port


def _key(file: str, fields: dict[str, Any]) -> bytes:
    key = fields.get("key")
    if not isinstance(key, str) or not key:
        # An empty key switches signatures off (jupyter_client.session): whoever reaches the port could run code.
        raise PolicyError(f"{file}: key", f"{key!r}", "Write a random key; without one anybody on the port is obeyed.")
    return key.encode()


def _digest(file: str, fields: dict[str, Any]) -> str:
    schemes = tuple(f"hmac-{digest}" for digest in DIGESTS)
    return _one_of(file, fields, "signature_scheme", schemes, "hmac-sha256").removeprefix("hmac-")


def _curve(file: str, fields: dict[str, Any]) -> tuple[bytes, bytes] | None:
    found = [fields.get(name) for name in _CURVE_KEYS]
    if found == [None, None]:
        return None
    for name, value in zip(_CURVE_KEYS, found, strict=True):
        # 32 bytes in Z85 are 40 characters, https://rfc.zeromq.org/spec/32/
        if not isinstance(value, str) or len(value) != 40 or not value.isascii():
            raise PolicyError(f"{file}: {name}", "is not a CurveZMQ key", "Write both keys in Z85, 40 characters each.")
    return str(found[0]).encode(), str(found[1]).encode()


def rewrite_ports(front: FrontConnection, ports: dict[str, int]) -> FrontConnection:
    """Puts the ports that were really bound into the file, all at once: a client never reads half of it.

    Raises HostError when the file cannot be replaced.
    """
    temporary = f"{front.file}.{os.getpid()}"
    try:
        with open(front.file, "rb") as stream:
            fields = json.loads(stream.read(MAX_FILE_BYTES))
        fields.update({f"{channel}_port": port for channel, port in ports.items()})
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as out:
            json.dump(fields, out, indent=2)
        os.replace(temporary, front.file)
    except (OSError, ValueError) as error:
        raise HostError(f"{front.file}: the ports in use cannot be written there ({error}).") from error
    return replace(front, ports=ports)


def create_back(folder: str) -> BackConnection:
    """Binds the four sockets in ``folder`` (ours, 0700, outside every writable grant) and writes the connection file.

    To be called before the broker is forked, so that the confined process can inherit the listeners.
    Raises HostError.
    """
    back = BackConnection(folder, f"{folder}/kernel.json", os.urandom(32).hex().encode(), {})
    try:
        for channel in BACK_CHANNELS:
            back.listeners[channel] = _listen(back.path(channel))
        fields = {
            "transport": "ipc",
            "ip": f"{folder}/k",
            **{f"{channel}_port": _back_port(channel) for channel in CHANNELS},
            "key": back.key.decode(),
            "signature_scheme": "hmac-sha256",
            LISTENERS_KEY: back.listeners,
        }
        descriptor = os.open(back.file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as out:
            json.dump(fields, out)
    except OSError as error:
        back.close_listeners()
        raise HostError(f"{folder}: the sockets to the sandbox cannot be made there ({error}).") from error
    return back


def _back_port(channel: str) -> int:
    return CHANNELS.index(channel) + 1


def _listen(path: str) -> int:
    """A listening unix socket that a child process inherits; the descriptor is the caller's."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as listener:
        listener.bind(path)  # OSError when longer than 107 bytes
        listener.listen(4)
        listener.set_inheritable(True)
        return listener.detach()
