"""A network of the policy, or a name, that happens to hold an address of this machine does not open the services on it.

They often listen on every address and rely on a firewall, which does not stand between a machine and itself. Who owns
an allowed name could point it at the machine that runs the code, on a public address too.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path

import pytest

from tests.support.attempts import TOOLS
from tests.support.dns_server import DnsServer
from tests.support.interfaces import has_ipv6
from tests.support.sandbox import run_inside, run_outside
from tests.support.servers import TcpListener, UdpListener

GO = """
def tcp(_):
    with socket.create_connection((host, port), 5) as s:
        s.sendall(b"payload")
def udp(_):
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.sendto(b"payload", (host, udp_port))
print(json.dumps([outcome(tcp, b""), outcome(udp, b"")]))
"""


def allowing(hosts: list[str], ports: tuple[int, int], *, private: bool = False) -> str:
    """A policy with a TCP and a UDP line for each of ``hosts``."""
    rest = f"private = {'true' if private else 'false'}"
    lines = [f'{{ host = "{host}", port = {ports[0]}, {rest} }}' for host in hosts]
    lines += [f'{{ host = "{host}", port = {ports[1]}, {rest}, protocol = "udp" }}' for host in hosts]
    return f"[network]\nallow = [{', '.join(lines)}]"


def around(address: str) -> list[str]:
    """Networks that hold ``address``, as the policy writes them."""
    if ":" in address:
        return ["[::/0]", f"[{ip_network(f'{address}/64', strict=False)}]"]
    return ["0.0.0.0/0", str(ip_network(f"{address}/24", strict=False)), str(ip_network(f"{address}/31", strict=False))]


def check(address: str, workspace: Path, tmp_path: Path) -> None:
    with TcpListener(address) as tcp, UdpListener(address) as udp:
        ports = (tcp.port, udp.port)
        code = f"{TOOLS}\nhost, port, udp_port = {address!r}, {tcp.port}, {udp.port}\n{GO}"

        def arrived() -> tuple[int, int]:
            return len(tcp.received()), len(udp.received())

        assert run_outside(code, workspace=workspace).json() == ["None", "None"]
        assert arrived() == (1, 1)
        with DnsServer({"api.example.org": [address]}) as server:
            resolv_conf = Path(server.write_resolver_config(tmp_path))

            def come(hosts: list[str], *, private: bool = False) -> object:
                policy = allowing(hosts, ports, private=private)
                return run_inside(code, workspace=workspace, policy=policy, resolv_conf=resolv_conf).json()

            assert come([*around(address), "api.example.org"]) == ["EACCES", "ENETUNREACH"]
            assert arrived() == (1, 1)
            assert come([f"[{address}]" if ":" in address else address]) == ["None", "None"]
            assert come(["api.example.org"], private=True) == ["None", "None"]
            assert come(around(address)[:1], private=True) == ["None", "None"]
            assert arrived() == (4, 4)


def test_a_wide_rule_does_not_open_this_machine(workspace: Path, tmp_path: Path, own_address: str) -> None:
    check(own_address, workspace, tmp_path)


def test_nor_does_the_line_that_the_user_is_told_to_write_forget_to_say_so(
    workspace: Path, tmp_path: Path, own_address: str
) -> None:
    with TcpListener(own_address) as tcp, DnsServer({"api.example.org": [own_address]}) as server:
        code = f"{TOOLS}\nhost, port, udp_port = 'api.example.org', {tcp.port}, 9\n{GO}"
        result = run_inside(
            code,
            workspace=workspace,
            policy=allowing(["api.example.org"], (tcp.port, 9)),
            resolv_conf=Path(server.write_resolver_config(tmp_path)),
        )
        (event,) = result.refused(kind="connect")
        assert event.allow_line == f'{{ host = "api.example.org", port = {tcp.port}, private = true }}'


SECOND = ("203.0.113.77", "203.0.113.78", "2001:db8:77::1")  # documentation, RFC 5737 and 3849


@pytest.fixture
def more_addresses() -> Iterator[None]:
    lengths = [(address, "64" if ":" in address else "24") for address in SECOND]
    try:
        for address, length in lengths:
            if ":" not in address or has_ipv6():
                subprocess.run(["ip", "address", "replace", f"{address}/{length}", "dev", "lo"], check=True)
        yield
    finally:
        for address, length in reversed(lengths):
            command = ["ip", "address", "delete", f"{address}/{length}", "dev", "lo"]
            subprocess.run(command, check=False, stderr=subprocess.DEVNULL)


@pytest.mark.root
@pytest.mark.usefixtures("more_addresses")
@pytest.mark.parametrize("address", SECOND[1:])
def test_nor_a_second_address_of_an_interface(address: str, workspace: Path, tmp_path: Path) -> None:
    """Its packets carry the interface's first address, so that it does not look like an own one."""
    if ":" in address and not has_ipv6():
        pytest.skip("no IPv6 on this machine")
    check(address, workspace, tmp_path)
