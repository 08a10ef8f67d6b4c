"""Does: a network cable of the test's own with two hosts at its other end, and a look at what goes over it.

    with Wire(ports=[7001, 7002]) as wire:
        socket.create_connection((wire.allowed4, 7001))
        assert wire.ports_of(wire.forbidden4) == set()

Needs root: a veth(4) pair, a network namespace for its far end, packet(7). All of it is gone afterwards.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import threading
from collections.abc import Collection
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Self

from tests.support.servers import DEADLINE, family_of, wait_until

_ETH_P_ALL, _ETH_P_IP, _ETH_P_IPV6 = 0x0003, 0x0800, 0x86DD  # linux/if_ether.h
_ROUTING = 43  # IPPROTO_ROUTING, RFC 8200 section 4.4

# In the other namespace: accepts on every address and port, reads, keeps.
_SERVE = """
import json, select, socket, sys
ports = json.loads(sys.argv[1])
listeners = [socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True) for port in ports]
print("serving", flush=True)
kept = []
while True:
    for ready in select.select([*listeners, sys.stdin], [], [])[0]:
        if ready is sys.stdin:
            sys.exit()
        kept.append(ready.accept()[0])
"""


class Wire:
    """``allowed*`` and ``forbidden*`` are two hosts there; both take connections on ``ports``."""

    allowed4, forbidden4 = "198.18.77.2", "198.18.77.3"  # benchmarking, RFC 2544
    allowed6, forbidden6 = "fd77:7::2", "fd77:7::3"

    def __init__(self, ports: Collection[int]) -> None:
        self._ports = list(ports)
        self._namespace = f"sbk{os.getpid()}"
        self._here, self._there = f"sbka{os.getpid()}", f"sbkb{os.getpid()}"
        self._seen: list[tuple[IPv4Address | IPv6Address, int]] = []
        self._ending = False
        self._server: subprocess.Popen[str] | None = None
        self._sniffer: socket.socket | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        try:
            self._lay()
            self._listen_in()
            wait_until(lambda: self._answers(self.allowed6) and self._answers(self.allowed4), "the wire")
        except BaseException:
            self.__exit__()
            raise
        return self

    def _lay(self) -> None:
        here, there, namespace = self._here, self._there, self._namespace
        _ip("netns", "add", namespace)
        _ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", namespace)
        for address in ("198.18.77.1/24", "fd77:7::1/64"):
            _ip("address", "add", address, "dev", here, *(["nodad"] if ":" in address else []))
        for address in (self.allowed4, self.forbidden4, self.allowed6, self.forbidden6):
            suffix = ["/64", "nodad"] if ":" in address else ["/24"]
            _ip("-n", namespace, "address", "add", address + suffix[0], "dev", there, *suffix[1:])
        _ip("-n", namespace, "link", "set", there, "up")
        _ip("link", "set", here, "up")
        command = ["ip", "netns", "exec", namespace, sys.executable, "-c", _SERVE, json.dumps(self._ports)]
        self._server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._server.stdout is not None
        assert self._server.stdout.readline() == "serving\n"

    def _listen_in(self) -> None:
        self._sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        self._sniffer.bind((self._here, _ETH_P_ALL))
        self._thread = threading.Thread(target=self._sniff, name="sniffer", daemon=True)
        self._thread.start()

    def __exit__(self, *raised: object) -> None:
        self._ending = True
        if self._thread is not None:
            self._mark(1)  # wakes the sniffer
            self._thread.join(DEADLINE)
        if self._sniffer is not None:
            self._sniffer.close()
        if self._server is not None:
            self._server.communicate(timeout=DEADLINE)  # closes its input
        for undo in (("link", "delete", self._here), ("netns", "delete", self._namespace)):
            subprocess.run(["ip", *undo], check=False, stderr=subprocess.DEVNULL)  # where it came so far

    def ports_of(self, address: str) -> set[int]:
        """The TCP and UDP ports that something on this machine has sent to at ``address``, whoever it was."""
        mark = 1024 + secrets.randbelow(60000)
        self._mark(mark)
        wait_until(lambda: (ip_address("198.18.77.9"), mark) in self._seen, "the sniffer's own mark")
        return {port for where, port in list(self._seen) if where == ip_address(address)}

    def _answers(self, address: str) -> bool:
        with socket.socket(family_of(address)) as client:
            client.settimeout(1)
            return client.connect_ex((address, self._ports[0])) == 0

    def _mark(self, port: int) -> None:
        """A packet for nobody; it goes by packet(7) because nobody answers to its address either."""
        header = bytes([0x45, 0, 0, 28, 0, 0, 0, 0, 64, socket.IPPROTO_UDP, 0, 0])
        header += socket.inet_aton("198.18.77.1") + socket.inet_aton("198.18.77.9")
        udp = bytes(2) + port.to_bytes(2, "big") + (8).to_bytes(2, "big") + bytes(2)
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
            sock.bind((self._here, 0))
            sock.send(b"\xff" * 6 + bytes(6) + _ETH_P_IP.to_bytes(2, "big") + header + udp)

    def _sniff(self) -> None:
        assert self._sniffer is not None
        while not self._ending:
            frame, (_, _, direction, *_) = self._sniffer.recvfrom(65536)
            if direction == socket.PACKET_OUTGOING and (found := _destination(frame)) is not None:
                self._seen.append(found)


def _destination(frame: bytes) -> tuple[IPv4Address | IPv6Address, int] | None:
    """Where an Ethernet frame goes and the port it names; None for what is neither TCP nor UDP."""
    kind, packet = int.from_bytes(frame[12:14], "big"), frame[14:]
    address: IPv4Address | IPv6Address
    if kind == _ETH_P_IP:
        address, protocol, start = IPv4Address(packet[16:20]), packet[9], (packet[0] & 15) * 4
    elif kind == _ETH_P_IPV6:
        address, protocol, start = IPv6Address(packet[24:40]), packet[6], 40
        if protocol == _ROUTING:
            protocol, start = packet[40], 40 + 8 * (packet[41] + 1)
    else:
        return None
    if protocol not in (socket.IPPROTO_TCP, socket.IPPROTO_UDP):
        return None
    return address, int.from_bytes(packet[start + 2 : start + 4], "big")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
