"""A real DNS server on loopback, for tests: UDP and TCP, answers from a dict, remembers what it was asked.

    with DnsServer({"a.test": ["127.0.0.5"], "www.test": ["CNAME a.test"]}) as server:
        resolve("a.test", resolver_config=server.write_resolver_config(tmp_path))
        assert server.asked("a.test")

Not for production, and strict: a name that is not in the dict does not exist.
"""

from __future__ import annotations

import socketserver
import struct
import threading
import time
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset


class Query(NamedTuple):
    name: str  # lower case, without the trailing dot
    type: str  # "A", "AAAA", "TXT" ...
    over_tcp: bool


class DnsServer:
    """Serves ``records``: name -> addresses, ``CNAME name``, ``TXT text``. All may change at any time."""

    def __init__(
        self, records: dict[str, list[str]] | None = None, *, ttl: int = 300, address: str = "127.0.0.1"
    ) -> None:
        self.records = dict(records or {})
        self.ttl = ttl
        self.address = address
        self.port = 0  # the same for UDP and TCP, once it serves
        self.queries: list[Query] = []
        self.silent = False  # take questions, answer none
        self.silent_types: set[str] = set()  # the same for "AAAA" only, say
        self.delay = 0.0  # seconds before each answer
        self.rcode = dns.rcode.NOERROR  # another one is the answer to everything
        self.truncate = False  # over UDP, answer only "ask again over TCP"
        self._servers: list[socketserver.BaseServer] = []

    def __enter__(self) -> Self:
        udp, tcp = self._bind()
        self._servers = [udp, tcp]
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def asked(self, name: str) -> bool:
        """Whether a question for ``name``, or for a name under it, arrived."""
        return any(query.name == name or query.name.endswith("." + name) for query in self.queries)

    def write_resolver_config(self, folder: Path, *lines: str) -> str:
        """A resolv.conf in ``folder`` that names this server, with further ``lines``; its path."""
        path = folder / "resolv.conf"
        path.write_text("\n".join([f"nameserver {self.address}", f"options port:{self.port}", *lines, ""]))
        return str(path)

    def answer(self, wire: bytes, *, over_tcp: bool) -> bytes | None:
        """The reply to one question; None is silence."""
        query = dns.message.from_wire(wire)
        question = query.question[0]
        rdtype = dns.rdatatype.to_text(question.rdtype)
        self.queries.append(Query(question.name.to_text(omit_final_dot=True).lower(), rdtype, over_tcp))
        if self.silent or rdtype in self.silent_types:
            return None
        time.sleep(self.delay)
        reply = dns.message.make_response(query, recursion_available=True)
        reply.set_rcode(self.rcode)
        if self.truncate and not over_tcp:
            reply.flags |= dns.flags.TC
        elif self.rcode == dns.rcode.NOERROR:
            self._fill(reply, question.name, rdtype)
        return reply.to_wire()

    def _fill(self, reply: dns.message.Message, name: dns.name.Name, rdtype: str) -> None:
        records = self.records.get(name.to_text(omit_final_dot=True).lower())
        if records is None:
            reply.set_rcode(dns.rcode.NXDOMAIN)
            return
        typed = [_read_record(record) for record in records]
        for target in (data for record_type, data in typed if record_type == "CNAME" != rdtype):
            reply.answer.append(dns.rrset.from_text(name, self.ttl, "IN", "CNAME", f"{target}."))
            self._fill(reply, dns.name.from_text(target), rdtype)
        if matching := [data for record_type, data in typed if record_type == rdtype]:
            reply.answer.append(dns.rrset.from_text_list(name, self.ttl, "IN", rdtype, matching))

    def _bind(self) -> tuple[socketserver.BaseServer, socketserver.BaseServer]:
        """Both servers on one port; a port that is free for TCP may be taken for UDP, so try some."""
        server = self

        class Datagram(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                wire, socket = self.request
                reply = server.answer(wire, over_tcp=False)
                if reply is not None:
                    socket.sendto(reply, self.client_address)

        class Stream(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                while len(prefix := self.rfile.read(2)) == 2:
                    reply = server.answer(self.rfile.read(*struct.unpack(">H", prefix)), over_tcp=True)
                    if reply is not None:
                        self.wfile.write(struct.pack(">H", len(reply)) + reply)

        for attempt in range(20):
            tcp = _TcpServer((self.address, self.port), Stream)
            try:
                udp = _UdpServer(tcp.server_address[:2], Datagram)
            except OSError:
                tcp.server_close()
                if attempt == 19:
                    raise
                continue
            self.port = tcp.server_address[1]
            return udp, tcp
        raise AssertionError("unreachable")


class _UdpServer(socketserver.ThreadingUDPServer):
    daemon_threads = True


class _TcpServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


def _read_record(record: str) -> tuple[str, str]:
    """``"192.0.2.1"`` is ("A", it), ``"CNAME a.test"`` is ("CNAME", "a.test")."""
    type_, _, data = record.partition(" ")
    if data:
        return type_, data
    return ("A" if ip_address(record).version == 4 else "AAAA"), record
