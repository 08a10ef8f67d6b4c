"""What Landlock alone refuses, without the filter and the broker: the second fence, as far as this Linux has it.

The same test holds on every Linux: an older one lets pass what only a newer Landlock refuses, which is the control that
the attempt works. ``make test-vm`` runs it on a Linux that has them all.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from sandboxed_kernel.confinement.filesystem import WRITE, handled_fs, handled_net, restrict_flags, scoped
from sandboxed_kernel.linux import landlock, processes
from tests.support.child import in_child
from tests.support.servers import TcpListener, UdpListener, unix_listener

TCP_SINCE, ABSTRACT_SINCE, PATH_SINCE, UDP_SINCE = 4, 6, 9, 10  # Landlock's ABI: linux/landlock.h


def _reach(targets: dict[str, tuple[int, int, object]]) -> dict[str, bool]:
    """Which targets a process under every right of Landlock reaches, with all files writable and no filter."""
    abi = landlock.abi_version()
    processes.set_no_new_privs()
    ruleset = landlock.create_ruleset(handled_fs(abi), handled_net(abi), scoped(abi))
    root = os.open("/", os.O_PATH)
    landlock.add_path(ruleset, root, WRITE & handled_fs(abi))
    landlock.restrict_self(ruleset, restrict_flags(abi))
    return {name: _reaches(*target) for name, target in targets.items()}


def _reaches(family: int, kind: int, address: object) -> bool:
    with socket.socket(family, kind) as client:
        try:
            client.connect(address)  # type: ignore[arg-type] # each family's own form
            client.send(b"from inside")
        except PermissionError:
            return False
    return True


def test_each_version_of_landlock_refuses_what_it_can(tmp_path: Path) -> None:
    abi = landlock.abi_version()
    if abi < 1:
        pytest.fail("this machine is said to have Landlock")
    with (
        TcpListener() as tcp,
        UdpListener() as udp,
        unix_listener(tmp_path / "s") as path,
        unix_listener(f"\0sandboxed-kernel-test-{os.getpid()}") as abstract,
    ):
        reached = in_child(
            lambda: _reach(
                {
                    "tcp": (socket.AF_INET, socket.SOCK_STREAM, (tcp.address, tcp.port)),
                    "udp": (socket.AF_INET, socket.SOCK_DGRAM, (udp.address, udp.port)),
                    "path": (socket.AF_UNIX, socket.SOCK_STREAM, str(tmp_path / "s")),
                    "abstract": (socket.AF_UNIX, socket.SOCK_STREAM, abstract.sock.getsockname()),
                }
            )
        )
        received = {
            "tcp": bool(tcp.received()),
            "udp": bool(udp.received()),
            "path": bool(path.received()),
            "abstract": bool(abstract.received()),
        }
    assert reached == received
    assert received == {
        "tcp": abi < TCP_SINCE,
        "udp": abi < UDP_SINCE,
        "path": abi < PATH_SINCE,
        "abstract": abi < ABSTRACT_SINCE,
    }
