"""Which ports a server of the sandbox may have: decided for every combination of addresses."""

from __future__ import annotations

import errno
from ipaddress import IPv4Address, ip_address
from itertools import product

import pytest

from sandboxed_kernel.broker.calls import AF_INET, AF_INET6, InetAddress
from sandboxed_kernel.broker.decisions import (
    BindTo,
    PortsOfOthers,
    Refuse,
    decide_bind,
    decide_port,
    ports_to_give,
)
from sandboxed_kernel.surroundings import ports_of_jupyter

EPHEMERAL = range(32768, 61000)
GIVEN = range(61000, 65536)
HERE = ("127.0.0.1", "127.0.0.2", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1", "192.0.2.1", "2001:db8::1")


def taken(*listening: str, reserved: tuple[int, ...] = ()) -> PortsOfOthers:
    return PortsOfOthers(EPHEMERAL, reserved, tuple(map(ip_address, listening)))


def bind(host: str, port: int, others: PortsOfOthers) -> BindTo | Refuse:
    address = ip_address(host)
    family = AF_INET if isinstance(address, IPv4Address) else AF_INET6
    to = InetAddress(address, port)
    return decide_bind(family, to, v6_only=False, own_interface=True, given=GIVEN, taken=others)


@pytest.mark.parametrize(("host", "other"), list(product(HERE, HERE)))
def test_a_port_that_somebody_listens_on_anywhere_is_in_use(host: str, other: str) -> None:
    assert isinstance(bind(host, 8080, taken()), BindTo)
    verdict = bind(host, 8080, taken(other))
    assert isinstance(verdict, Refuse)
    assert verdict.error == errno.EADDRINUSE


def test_it_is_explained_where_linux_would_not_say_so_itself() -> None:
    for host, other in (("127.0.0.1", "127.0.0.1"), ("127.0.0.1", "0.0.0.0"), ("::1", "::"), ("::1", "::1")):
        assert decide_port(ip_address(host), 8080, taken(other)) == Refuse(errno.EADDRINUSE)
    for host, other in (("127.0.0.1", "127.0.0.2"), ("127.0.0.1", "::1"), ("::1", "0.0.0.0"), ("::1", "192.0.2.1")):
        verdict = decide_port(ip_address(host), 8080, taken("127.0.0.1", other) if other == host else taken(other))
        assert verdict is not None
        assert verdict.reason is not None
        assert f"at {other}," in verdict.reason


def test_a_reserved_port_is_in_use() -> None:
    verdict = bind("127.0.0.1", 8888, taken(reserved=(8888,)))
    assert isinstance(verdict, Refuse)
    assert verdict.error == errno.EADDRINUSE
    assert isinstance(bind("127.0.0.1", 8889, taken(reserved=(8888,))), BindTo)


@pytest.mark.parametrize("host", HERE)
def test_what_linux_hands_out_cannot_be_bound_by_number(host: str) -> None:
    for port in (EPHEMERAL[0], EPHEMERAL[-1], 50_000):
        verdict = bind(host, port, taken())
        assert isinstance(verdict, Refuse)
        assert verdict.error == errno.EACCES
        assert verdict.reason is not None
        assert "the ports 32768 to 60999 to" in verdict.reason
    for port in (0, 1024, EPHEMERAL[0] - 1, EPHEMERAL[-1] + 1, 65_535):
        assert isinstance(bind(host, port, taken()), BindTo)


@pytest.mark.parametrize(
    ("ephemeral", "given"),
    [
        (EPHEMERAL, GIVEN),
        (range(32768, 65536), range(28672, 32768)),
        (range(3000, 65536), range(1024, 3000)),
        (range(1024, 65536), range(1024 + 77, 1024 + 77 + 1024)),
        (range(1024, 1536), range(1536, 65536)),
        (range(1024, 64512), range(64512, 65536)),  # 1,024 are enough
        (range(1024, 64513), range(1024 + 77, 1024 + 77 + 1024)),
        (range(2048, 65536), range(1024, 2048)),
        (range(1, 65536), range(1 + 77, 1 + 77 + 1024)),
    ],
)
def test_port_0_gives_what_linux_hands_out_to_nobody(ephemeral: range, given: range) -> None:
    assert ports_to_give(ephemeral, 77) == given


def test_where_linux_hands_out_all_ports_each_sandbox_has_its_own_few() -> None:
    ephemeral = range(1024, 65536)
    found = {ports_to_give(ephemeral, lot) for lot in range(0, 1 << 32, 999_999_937)}
    assert len(found) == 5
    for ports in found:
        assert len(ports) == 1024
        assert set(ports) <= set(ephemeral)


def test_jupyter_says_its_ports_in_the_environment() -> None:
    environment = {
        "JUPYTERHUB_API_URL": "http://127.0.0.1:8081/hub/api",
        "JUPYTERHUB_SERVICE_URL": "http://[::1]:43210/user/x/",
        "JUPYTERHUB_SERVICE_PREFIX": "/user/x:9/",
        "JUPYTERHUB_HOST": "",
        "JUPYTER_PORT": "8890",
        "JPY_PARENT_PID": "4321",
        "HTTP_PROXY": "http://proxy:3128",
    }
    assert ports_of_jupyter(environment) == {8081, 43210, 8890}
    assert ports_of_jupyter({}) == frozenset()
