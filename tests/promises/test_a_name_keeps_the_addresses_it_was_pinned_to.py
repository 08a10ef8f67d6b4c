"""A name means what it meant when it was looked up, and never this machine, its network or its cloud by surprise.

DNS rebinding: the owner of an allowed name changes its records between two questions. The name servers here are the
attacker's; the receiver is a service on this machine, which the name comes to point at.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Self

import pytest

from tests.support.attempts import TOOLS
from tests.support.dns_server import DnsServer
from tests.support.sandbox import launcher_command, run_inside
from tests.support.servers import TcpListener, wait_until

ASK = f"""
{TOOLS}
def addresses(name):
    return sorted({{i[4][0] for i in socket.getaddrinfo(name, 443, type=socket.SOCK_STREAM)}})
def look_up(name):
    try:
        return addresses(name)
    except socket.gaierror:
        return []
def connect(host, port):
    return outcome(lambda _: socket.create_connection((host, port), 5).close(), b"")
"""

# A step at a time: the test changes the records between two lines of standard input.
STEPS = f"""
{ASK}
for line in sys.stdin:
    print(json.dumps(eval(line)), flush=True)
"""


class Inside:
    """A sandboxed program that evaluates one expression after the other, while the test changes the world."""

    def __init__(self, policy: str, workspace: Path, resolv_conf: Path, *, launcher: list[str] | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="sbk-")
        folder = self._folder.name
        command = launcher_command(policy, folder, workspace, Path(folder, "audit.jsonl"), resolv_conf)
        if launcher is not None:
            command[: command.index("run")] = launcher
        self._process = subprocess.Popen(
            [*command, sys.executable, "-c", STEPS],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=workspace, start_new_session=True,
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._process.communicate(timeout=20)
        self._folder.cleanup()

    def __call__(self, expression: str) -> object:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(expression + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


def test_a_name_keeps_the_addresses_it_was_pinned_to(workspace: Path, tmp_path: Path) -> None:
    with TcpListener() as local, DnsServer({"api.example.org": ["192.0.2.10"]}, ttl=0) as server:
        resolv_conf = Path(server.write_resolver_config(tmp_path))
        policy = f'[network]\nallow = ["api.example.org:{local.port}"]'
        with Inside(policy, workspace, resolv_conf) as inside:
            assert inside("look_up('api.example.org')") == ["192.0.2.10"]
            asked = len(server.queries)
            server.records["api.example.org"] = ["127.0.0.1"]
            assert inside("[look_up('api.example.org') for _ in range(3)][-1]") == ["192.0.2.10"]
            # Whatever the code believes that the name means now: an address is judged by what it was pinned for.
            assert inside(f"connect('127.0.0.1', {local.port})") == "EACCES"
            assert len(server.queries) == asked  # nobody was asked again
        assert not local.received()


@pytest.mark.parametrize("pins", ["session", "ttl"])
def test_a_name_under_a_wildcard_is_pinned_when_first_asked_for(pins: str, workspace: Path, tmp_path: Path) -> None:
    records = {"a.data.example.org": ["192.0.2.10"], "data.example.org": ["192.0.2.11"]}
    with TcpListener() as local, DnsServer(records) as server:
        policy = f'[network]\npins = "{pins}"\nallow = ["*.data.example.org:{local.port}"]'
        with Inside(policy, workspace, Path(server.write_resolver_config(tmp_path))) as inside:
            assert inside("look_up('nobody.example.org')") == []
            assert server.queries == []  # a wildcard has no name yet, and others are none of it
            assert inside("look_up('a.data.example.org')") == ["192.0.2.10"]
            server.records["a.data.example.org"] = ["127.0.0.1"]
            assert inside("look_up('a.data.example.org')") == ["192.0.2.10"]
            assert inside("look_up('data.example.org')") == []  # the name itself is not beneath itself
            # A name that is first asked for when it already points here, and one that appears only now.
            server.records["b.data.example.org"] = ["127.0.0.1", "192.0.2.12"]
            assert inside("look_up('b.data.example.org')") == ["192.0.2.12"]
            assert inside(f"connect('127.0.0.1', {local.port})") == "EACCES"
            assert {query.name for query in server.queries} == {"a.data.example.org", "b.data.example.org"}
        assert not local.received()


# Half a minute is the shortest time to live that is taken at its word; one second here, so that the test need not wait.
HASTY = """
import sys
from sandboxed_kernel.cli import main
from sandboxed_kernel.hostnames import pins

pins.SHORTEST_TTL = 1
sys.exit(main())
"""


def test_with_pins_ttl_new_addresses_are_added_and_the_guard_stays(workspace: Path, tmp_path: Path) -> None:
    with TcpListener() as local, DnsServer({"api.example.org": ["192.0.2.10"]}, ttl=1) as server:
        resolv_conf = Path(server.write_resolver_config(tmp_path))
        policy = f'[network]\npins = "ttl"\nallow = ["api.example.org:{local.port}"]'
        with Inside(policy, workspace, resolv_conf, launcher=[sys.executable, "-I", "-c", HASTY]) as inside:
            assert inside("look_up('api.example.org')") == ["192.0.2.10"]
            server.records["api.example.org"] = ["192.0.2.20", "127.0.0.1", "169.254.169.254", "10.0.0.1"]
            found = wait_until(
                lambda: (now := inside("look_up('api.example.org')")) != ["192.0.2.10"] and now, "the new address"
            )
            assert found == ["192.0.2.10", "192.0.2.20"]
            for address in ("127.0.0.1", "169.254.169.254", "10.0.0.1"):
                assert inside(f"connect({address!r}, {local.port})") == "EACCES"
        assert not local.received()


# What a hostile owner may answer. "private" says what the rule has to say for it; None: nothing opens it to a name.
GUARDED = {
    "127.0.0.1": True,
    "127.8.8.8": True,
    "::1": True,
    "10.1.2.3": True,
    "192.168.1.1": True,
    "100.64.0.1": True,
    "fd00::1": True,
    "::ffff:10.1.2.3": True,
    "64:ff9b::10.1.2.3": True,
    "2002:a01:203::1": True,
    "169.254.169.254": None,
    "169.254.1.1": None,
    "fe80::1": None,
    "fd00:ec2::254": None,
    "100.100.100.200": None,
    "168.63.129.16": None,
    "0.0.0.0": None,
    "::": None,
    "::ffff:0.0.0.0": None,
    "224.0.0.1": None,
    "ff02::1": None,
    "255.255.255.255": None,
    "::ffff:169.254.169.254": None,
    "64:ff9b::169.254.169.254": None,
}


def test_a_name_never_means_the_cloud_and_private_networks_only_where_the_rule_says_so(
    workspace: Path, tmp_path: Path
) -> None:
    names = {f"n{number}.example.org": address for number, address in enumerate(GUARDED)}
    records = {name: [address, "192.0.2.10"] for name, address in names.items()}
    code = f"{ASK}\nprint(json.dumps({{name: look_up(name) for name in {list(names)!r}}}))"
    with DnsServer(records) as server:
        resolv_conf = Path(server.write_resolver_config(tmp_path))
        rules = ", ".join(f'"{name}:443"' for name in names)
        result = run_inside(code, workspace=workspace, policy=f"[network]\nallow = [{rules}]", resolv_conf=resolv_conf)
        # The good address beside the bad one stays usable, and the user reads about the bad one.
        assert {name: became for name, became in result.json().items() if became != ["192.0.2.10"]} == {}
        assert {event.host for event in result.refused(kind="name")} == set(names)

        rules = ", ".join(f'{{ host = "{name}", port = 443, private = true }}' for name in names)
        result = run_inside(code, workspace=workspace, policy=f"[network]\nallow = [{rules}]", resolv_conf=resolv_conf)
        opened = {names[name] for name, became in result.json().items() if became != ["192.0.2.10"]}
        assert opened == {address for address, private in GUARDED.items() if private}


def test_a_name_that_points_here_opens_a_local_service_only_where_the_rule_says_private(
    workspace: Path, tmp_path: Path
) -> None:
    with TcpListener() as local, DnsServer({"api.example.org": ["127.0.0.1"]}) as server:
        resolv_conf = Path(server.write_resolver_config(tmp_path))
        code = f"{ASK}\nprint(json.dumps([look_up('api.example.org'), connect('127.0.0.1', {local.port})]))"
        rule = f'host = "api.example.org", port = {local.port}'
        policy = f"[network]\nallow = [{{ {rule}, private = true }}]"
        opened = run_inside(code, workspace=workspace, policy=policy, resolv_conf=resolv_conf)
        assert opened.json() == [["127.0.0.1"], "None"]
        assert len(local.received()) == 1
        refused = run_inside(code, workspace=workspace, policy=policy.replace("true", "false"), resolv_conf=resolv_conf)
        assert refused.json() == [[], "EACCES"]
        assert len(local.received()) == 1
        (event,) = refused.refused(kind="name")
        assert event.allow_line is not None
        assert "private = true" in event.allow_line


def test_an_address_of_a_name_opens_the_ports_of_that_name_and_no_other(workspace: Path, tmp_path: Path) -> None:
    """Two names at one address, each with its own port; and the service of the machine on a third one."""
    with TcpListener() as one, TcpListener() as two, TcpListener() as three, DnsServer() as server:
        server.records = {"one.example.org": ["127.0.0.1"], "two.example.org": ["127.0.0.1"]}
        rules = [("one", one.port), ("two", two.port)]
        allow = ", ".join(f'{{ host = "{n}.example.org", port = {p}, private = true }}' for n, p in rules)
        ports = [one.port, two.port, three.port]
        code = f"{ASK}\nprint(json.dumps([connect('one.example.org', p) for p in {ports!r}]))"
        policy = f"[network]\nallow = [{allow}]"
        result = run_inside(
            code, workspace=workspace, policy=policy, resolv_conf=Path(server.write_resolver_config(tmp_path))
        )
        # Names are gone once a connect begins: one address is one place, with the ports of all its names.
        assert result.json() == ["None", "None", "EACCES"]
        assert not three.received()
