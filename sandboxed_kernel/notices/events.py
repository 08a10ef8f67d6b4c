"""Pure: what the broker decided, as a value that travels to the relay, the audit log and embedders alike."""

from __future__ import annotations

from typing import Any, Literal

from sandboxed_kernel.records import Record, as_dict

SCHEMA_VERSION = 1

Kind = Literal[
    "connect",  # a TCP or unix connection
    "bind",  # a local address or path
    "name",  # a DNS question
    "tls",  # a connection that is allowed, for what its TLS greeting asks for
    "datagram",  # UDP, by connect or sendto
    "socket",  # a socket family or type that does not exist inside
    "metadata",  # chmod, chown, times, extended attributes
    "link",  # a symbolic link to a place outside
    "file",  # what is closed in the notebook's folder
    "process",  # limits, priorities, affinity of other processes
    "malformed",  # arguments that make no sense; refused, logged
    "limit",  # a [limits] entry was crossed
]


class Event(Record):
    """One decision. Refusals always make one; an allowed destination makes one when it is new.

    ``protocol`` is tcp, udp, unix, dns or netlink ...; ``host`` is the name as the code asked for it where known,
    ``address`` the numeric address or the path. ``allow_line`` is the line that would allow it, ready to paste, or
    None where no line can; of a file, with its key (``read = ["/path"]``). Where only a name was asked for, it has the
    ports 80 and 443: the port is not known yet.
    ``when`` is seconds since the epoch. ``cell`` is the msg_id of the execute_request that ran,
    None before the first: the broker says the one that began last, in whose ``count`` it is; the relay shows it there.
    """

    kind: Kind
    verdict: Literal["refused", "allowed"]
    reason: str  # one sentence, for people
    protocol: str
    when: float
    pid: int
    process: str  # the command's short name, /proc/PID/comm; chosen by the sandboxed code: show it as text only
    host: str | None = None
    address: str | None = None
    port: int | None = None
    rule: str | None = None  # the policy line that allowed it ("policy.toml: network.allow[2]")
    allow_line: str | None = None
    count: int = 1
    cell: str | None = None

    @property
    def destination(self) -> tuple[str, str, str | None, int | None]:
        """What coalesces: events with the same key differ only in count, time and process."""
        return (self.kind, self.protocol, self.host or self.address, self.port)

    def to_json(self) -> dict[str, Any]:
        return {"version": SCHEMA_VERSION, **as_dict(self)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Event:
        """The inverse of ``to_json``. ValueError: another version; KeyError, TypeError: missing or unknown keys."""
        data = dict(data)
        if data.pop("version", None) != SCHEMA_VERSION:
            raise ValueError("an event of another schema version")
        return cls(**data)
