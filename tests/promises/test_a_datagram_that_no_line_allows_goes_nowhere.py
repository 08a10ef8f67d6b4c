"""UDP that no ``udp://`` line allows reaches nobody, whichever call sends it, to one host or to all of them."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

import pytest

from tests.support.attempts import make_all, program
from tests.support.interfaces import has_ipv6
from tests.support.sandbox import run_inside
from tests.support.servers import UdpListener

GROUP = "239.255.77.1"  # administratively scoped, RFC 2365

# Every body is made for IPv4 and IPv6: ``family``, ``where`` and ``raw`` are set before it.
WAYS = {
    "sendto": "return datagram().sendto(payload, where)",
    "sendto-nonblocking": "s = datagram(); s.setblocking(False); return s.sendto(payload, where)",
    "sendto-raw": "return syscall('sendto', datagram().detach(), payload, len(payload), 0, raw, len(raw))",
    "sendto-high-bits": """
        fd = syscall("socket", HIGH | family, HIGH | 2, HIGH | 17)
        return syscall("sendto", HIGH | fd, payload, len(payload), HIGH, raw, HIGH | len(raw))
    """,
    "sendmsg": "return datagram().sendmsg([payload], [], 0, where)",
    "sendmmsg": """
        header, parts = message(payload, raw)
        return syscall("sendmmsg", datagram().detach(), header + bytes(8), 1, 0)
    """,
    "connect-send": "s = datagram(); s.connect(where); return s.send(payload)",
    "connect-write": "s = datagram(); s.connect(where); return os.write(s.fileno(), payload)",
    "connect-sendmsg": "s = datagram(); s.connect(where); return s.sendmsg([payload])",
    # Whatever came of the connect: the message is sent, with and without a destination of its own.
    "send-in-spite": """
        s = datagram()
        s.connect_ex(where)
        s.send(payload)
        return s.sendmsg([payload], [], 0, where)
    """,
    # A socket that asks names is a socket that the broker serves: what else is sent with it?
    "after-a-name-server": """
        s = datagram()
        s.connect((where[0], 53))
        s.connect_ex(where)
        return s.sendmsg([payload], [], 0, where)
    """,
    "after-unspec": """
        s = datagram()
        s.connect((where[0], 53))
        syscall("connect", s.fileno(), bytes(16), 16)
        return s.sendmsg([payload], [], 0, where)
    """,
    "bound": "s = datagram(); s.bind((where[0], 0)); return s.sendto(payload, where)",
    "by-a-child": """
        code = f"import socket; socket.socket({int(family)}, 2).sendto({payload!r}, {where!r})"
        import subprocess
        return subprocess.run([sys.executable, "-c", code], capture_output=True).returncode
    """,
    "asyncio": """
        import asyncio
        async def go():
            transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
                asyncio.DatagramProtocol, remote_addr=where)
            transport.sendto(payload)
            transport.close()
        asyncio.run(go())
    """,
    "splice": """
        s = datagram()
        s.connect_ex(where)
        reading, writing = os.pipe()
        os.write(writing, payload)
        return os.splice(reading, s.fileno(), len(payload))
    """,
}


def for_address(address: str, port: int) -> str:
    return f"""
where = ({address!r}, {port})
raw = sockaddr(*where)
family = socket.AF_INET6 if ":" in where[0] else socket.AF_INET
def datagram():
    return socket.socket(family, socket.SOCK_DGRAM)
"""


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "own"])
def test_a_datagram_that_no_line_allows_goes_nowhere(address: str, workspace: Path, own_address: str) -> None:
    if address == "::1" and not has_ipv6():
        pytest.skip("no IPv6 loopback on this machine")
    address = own_address if address == "own" else address
    with UdpListener(address) as wanted, UdpListener(address) as other:
        policy = f'[network]\nallow = ["udp://{wanted.endpoint}"]'
        made = make_all(
            WAYS,
            arrived=lambda: [contact.data.decode() for contact in other.received()],
            workspace=workspace,
            setting=for_address(address, other.port),
            policy=policy,
        )
        # A public address would be told of; loopback is where libraries probe, and is refused in silence.
        told = {event.port for event in made.result.refused(kind="datagram", address=address)}
        assert told == (set() if other.address in ("127.0.0.1", "::1") else {other.port}), made.inside

        relayed = {way: WAYS[way] for way in ("sendto", "sendto-raw", "connect-send", "connect-write", "bound")}
        run_inside(program(relayed, for_address(address, wanted.port)), workspace=workspace, policy=policy).check()
        assert {contact.data.decode() for contact in wanted.received()} == set(relayed)


TO_MANY = {
    "broadcast": """
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        return s.sendto(payload, ("127.255.255.255", port))
    """,
    "multicast": """
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
        except OSError:
            pass
        return s.sendto(payload, (group, port))
    """,
    "multicast-connected": """
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
        except OSError:
            pass
        s.connect_ex((group, port))
        return s.send(payload)
    """,
}


def test_nor_does_one_to_all_hosts_or_to_a_group(workspace: Path) -> None:
    # On every address: the group of one service, the broadcast address of the other.
    with UdpListener("0.0.0.0") as other:
        membership = struct.pack("4s4s", socket.inet_aton(GROUP), socket.inet_aton("127.0.0.1"))
        other.sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
        make_all(
            TO_MANY,
            arrived=lambda: [contact.data.decode() for contact in other.received()],
            workspace=workspace,
            setting=f"port, group = {other.port}, {GROUP!r}",
            policy='[network]\nallow = ["udp://0.0.0.0/0:*", "udp://127.0.0.1:9"]',
        )
