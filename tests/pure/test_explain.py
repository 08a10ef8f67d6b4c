"""The line that allows, or the line to paste; and that sandboxed code cannot choose what the pasted line allows."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sandboxed_kernel.errors import PolicyError
from sandboxed_kernel.policy.explain import (
    Explanation,
    allow_line,
    allow_name_line,
    endpoint,
    explain_endpoint,
    explain_path,
    implied_grants,
)
from sandboxed_kernel.policy.file import parse
from sandboxed_kernel.policy.guarded import Closed
from sandboxed_kernel.policy.model import PathGrant, Policy, Transport

TEXT = """
[network]
allow = ["pypi.org:443", "*.example.org:80,443", { host = "db.corp", port = 5432, private = true }, "10.0.0.0/8:5432",
         "udp://stats.example:8125", "[2001:db8::1]:443", "0.0.0.0/0:8443", "h.example:*"]
[filesystem]
read = ["~/data", "/srv"]
write = ["~/data/out"]
"""


def read(text: str) -> Policy:
    return parse(text, place="policy.toml", workspace="/home/u/book", home="/home/u")


POLICY = read(TEXT)
HERE = (PathGrant("/home/u/book", True, "/home/u/book", "every sandbox"),)

ALLOWED: list[tuple[str, int, Transport, str]] = [
    ("pypi.org", 443, "tcp", 'network.allow[0] = "pypi.org:443"'),
    ("PyPI.org.", 443, "tcp", 'network.allow[0] = "pypi.org:443"'),
    ("a.b.example.org", 80, "tcp", 'network.allow[1] = "*.example.org:80,443"'),
    ("db.corp", 5432, "tcp", 'network.allow[2] = { host = "db.corp", port = 5432, private = true }'),
    ("10.1.2.3", 5432, "tcp", 'network.allow[3] = "10.0.0.0/8:5432"'),
    ("::ffff:10.1.2.3", 5432, "tcp", 'network.allow[3] = "10.0.0.0/8:5432"'),
    ("stats.example", 8125, "udp", 'network.allow[4] = "udp://stats.example:8125"'),
    ("2001:DB8::1", 443, "tcp", 'network.allow[5] = "[2001:db8::1]:443"'),
    ("8.8.8.8", 8443, "tcp", 'network.allow[6] = "0.0.0.0/0:8443"'),
]

REFUSED: list[tuple[str, int, Transport, str, str | None]] = [
    ("pypi.org", 80, "tcp", "pypi.org is on the allowlist, but not on port 80", '"pypi.org:80"'),
    ("pypi.org", 443, "udp", "pypi.org is on the allowlist, but not on UDP port 443", '"udp://pypi.org:443"'),
    (
        "example.org",
        443,
        "tcp",
        "example.org is not on the allowlist; the name is not even resolved",
        '"example.org:443"',
    ),
    (
        "Evil.Example",
        443,
        "tcp",
        "evil.example is not on the allowlist; the name is not even resolved",
        '"evil.example:443"',
    ),
    (
        "localhost",
        80,
        "tcp",
        "localhost is this machine; only the ports on which the sandbox itself listens may be reached",
        '"localhost:80"',
    ),
    (
        "127.0.0.1",
        8443,
        "tcp",
        "127.0.0.1 is this machine; only the ports on which the sandbox itself listens may be reached",
        '"127.0.0.1:8443"',
    ),
    (
        "2001:db8::2",
        443,
        "tcp",
        "no rule holds 2001:db8::2 on port 443; a name that resolves to it may still open it",
        '"[2001:db8::2]:443"',
    ),
    (
        "192.168.1.1",
        8443,
        "tcp",
        "no rule holds 192.168.1.1 on port 8443; a name that resolves to it may still open it",
        '"192.168.1.1:8443"',
    ),
    ("169.254.42.42", 8443, "tcp", "169.254.42.42 is never reachable: Scaleway", None),
    ("h.example", 53, "tcp", "the sandbox itself answers what is asked on port 53; no name server is reached", None),
]


@pytest.mark.parametrize(("host", "port", "transport", "rule"), ALLOWED)
def test_an_allowed_endpoint_is_explained_by_its_line(host: str, port: int, transport: Transport, rule: str) -> None:
    explanation = explain_endpoint(POLICY, host, port, transport)
    assert (explanation.allowed, explanation.rule, explanation.line) == (True, f"policy.toml: {rule}", None)


@pytest.mark.parametrize(("host", "port", "transport", "reason", "line"), REFUSED)
def test_a_refused_endpoint_comes_with_the_line_to_paste(
    host: str, port: int, transport: Transport, reason: str, line: str | None
) -> None:
    key = None if line is None else "[network] allow"
    assert explain_endpoint(POLICY, host, port, transport) == Explanation(False, reason, line=line, key=key)
    if line is not None:
        more = read(f"network.allow = [{line}]")
        assert explain_endpoint(more, host, port, transport).allowed


def test_with_a_proxy_no_line_would_help() -> None:
    policy = read('network.proxy = "http://10.0.0.1:3128"')
    assert explain_endpoint(policy, "10.0.0.1", 3128).allowed
    rule = 'policy.toml: network.proxy = "http://10.0.0.1:3128"'
    assert explain_endpoint(policy, "pypi.org", 443) == Explanation(
        False, f"the proxy is the only reachable endpoint: {rule}"
    )


@pytest.mark.parametrize("host", ["", "a b", "127.1", "*", "*.example.org", 'x"', "fe80::1%eth0"])
def test_what_is_no_host_is_an_error(host: str) -> None:
    with pytest.raises(PolicyError, match="is neither a name nor an address"):
        explain_endpoint(POLICY, host, 443)
    assert allow_line(host, 443) is None


def test_of_a_name_no_port_is_advised_that_nobody_knows() -> None:
    line = allow_name_line("API.Example.org.")
    assert line == '"api.example.org:80,443"'
    policy = read(f"network.allow = [{line}]")
    for port, allowed in ((443, True), (80, True), (5432, False)):
        assert explain_endpoint(policy, "api.example.org", port).allowed is allowed
    assert [allow_name_line(name) for name in ("a b", 'x"', "*.example.org", "127.1")] == [None] * 4


@pytest.mark.parametrize(
    ("path", "access", "allowed", "rule", "line"),
    [
        ("/home/u/data", "read", True, 'policy.toml: filesystem.read[0] = "~/data"', None),
        ("/home/u/data/x/y", "read", True, 'policy.toml: filesystem.read[0] = "~/data"', None),
        ("/home/u/data/x", "write", False, None, '"/home/u/data/x"'),
        ("/home/u/data/out/x", "write", True, 'policy.toml: filesystem.write[0] = "~/data/out"', None),
        ("/home/u/database", "read", False, None, '"/home/u/database"'),
        ("/home/u", "read", False, None, '"/home/u"'),
        ("/home/u/book/x", "write", True, 'every sandbox = "/home/u/book"', None),
        ("/etc/a\nb", "read", False, None, None),
        ('/etc/a"', "read", False, None, None),
    ],
)
def test_a_path(path: str, access: str, allowed: bool, rule: str | None, line: str | None) -> None:
    explanation = explain_path(POLICY, path, "write" if access == "write" else "read", baseline=HERE)
    assert (explanation.allowed, explanation.rule, explanation.line) == (allowed, rule, line)
    assert explanation.key == (None if allowed else f"[filesystem] {access}")


def test_a_readable_path_that_is_to_be_written_says_so() -> None:
    assert explain_path(POLICY, "/srv/x", "write").reason == "/srv/x may be read only"
    assert explain_path(POLICY, "/opt/x", "write").reason == "no line lets /opt/x be written"


def test_what_is_implied_is_named_with_its_reason() -> None:
    plain = read("")
    implied = implied_grants(plain, "/home/u/book", ["/opt/python"])
    for path in ("/home/u/book/x", "/dev/null"):
        assert explain_path(plain, path, "write", baseline=implied).allowed
    for path in ("/opt/python/bin/python", "/usr/lib/x.so", "/etc/hosts"):
        assert explain_path(plain, path, "read", baseline=implied).allowed
        assert not explain_path(plain, path, "write", baseline=implied).allowed
    for path in ("/etc/shadow", "/home/u/.ssh/id", "/home/u", "/tmp/x", "/dev/pts/0"):
        assert not explain_path(plain, path, "read", baseline=implied).allowed
    rule = explain_path(plain, "/etc/hosts", "read", baseline=implied).rule
    assert rule == 'every sandbox (name resolution: libc reads these before it asks a server) = "/etc/hosts"'


def test_the_notebooks_folder_is_not_writable_if_the_policy_says_what_is() -> None:
    policy = read('filesystem.write = ["out"]')
    implied = implied_grants(policy, "/home/u/book", [])
    assert explain_path(policy, "/home/u/book/x", "read", baseline=implied).allowed
    assert not explain_path(policy, "/home/u/book/x", "write", baseline=implied).allowed
    assert explain_path(policy, "/home/u/book/out/x", "write", baseline=implied).allowed


def test_the_root_holds_every_path() -> None:
    assert explain_path(read('filesystem.read = ["/"]'), "/x", "read").allowed


# --- the line to paste -----------------------------------------------------------------------------------------------


def test_a_private_name_needs_the_table() -> None:
    assert allow_line("db.corp", 5432, private=True) == '{ host = "db.corp", port = 5432, private = true }'
    udp = '{ host = "db.corp", port = 5432, protocol = "udp", private = true }'
    assert allow_line("db.corp", 5432, "udp", private=True) == udp
    assert allow_line("localhost", 5432, private=True) == '"localhost:5432"'
    assert allow_line("10.0.0.1", 5432, private=True) == '"10.0.0.1:5432"'


@pytest.mark.parametrize("port", [-1, 0, 53, 65536])
def test_no_line_allows_such_a_port(port: int) -> None:
    assert allow_line("a.example", port) is None


@given(
    st.one_of(st.text(max_size=30), st.ip_addresses().map(str), st.from_regex(r"[a-z*.\[\]:/\"@,-]{1,20}")),
    st.integers(-1, 70000),
    st.sampled_from(["tcp", "udp"]),
    st.booleans(),
)
@example('evil.example:443", "*.bank.example', 443, "tcp", False)
@example("10.0.0.0/8", 443, "tcp", False)
@example("a.example:*", 443, "tcp", False)
@example("bücher.example", 443, "tcp", True)
def test_a_line_to_paste_allows_this_endpoint_and_nothing_more(
    host: str, port: int, transport: Transport, private: bool
) -> None:
    line = allow_line(host, port, transport, private=private)
    if line is None:
        return
    assert len(tomllib.loads(f"network.allow = [{line}]")["network"]["allow"]) == 1
    [rule] = read(f"network.allow = [{line}]").allow
    assert explain_endpoint(read(f"network.allow = [{line}]"), host, port, transport).allowed
    assert not rule.wildcard
    assert rule.network is None or rule.network.num_addresses == 1
    assert [(ports.first, ports.last) for ports in rule.ports] == [(port, port)]
    assert line.isascii()


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("pypi.org:443", ("pypi.org", 443, "tcp")),
        ("PyPI.org.:443", ("pypi.org", 443, "tcp")),
        ("udp://10.0.0.1:8125", ("10.0.0.1", 8125, "udp")),
        ("[::1]:80", ("::1", 80, "tcp")),
        ("169.254.169.254:80", ("169.254.169.254", 80, "tcp")),
        ("8.8.8.8:53", ("8.8.8.8", 53, "tcp")),
    ],
)
def test_an_endpoint_is_spelled_like_an_entry(text: str, meaning: tuple[str, int, str]) -> None:
    assert endpoint(text, "the command line") == meaning


@pytest.mark.parametrize("text", ["", "pypi.org", "a:0", "a:99999", "a:1,2", "a:*", "*.a.b:1", "10.0.0.0/8:1", "[a]:1"])
def test_more_or_less_than_one_endpoint_is_an_error(text: str) -> None:
    with pytest.raises(PolicyError, match=r"^the command line: "):
        endpoint(text, "the command line")


def test_a_card_is_explained_by_its_line() -> None:
    policy = read('accelerators.allow = ["nvidia"]')
    implied = implied_grants(policy, "/home/u/book", [])
    card = explain_path(policy, "/dev/nvidia0", "write", baseline=implied)
    assert card.allowed
    assert card.rule is not None
    assert card.rule.startswith("[accelerators] nvidia: the cards")
    assert not explain_path(policy, "/dev/kfd", "read", baseline=implied).allowed
    assert not explain_path(policy, "/sys/devices", "write", baseline=implied).allowed


@pytest.mark.parametrize(
    ("path", "key", "line"),
    [
        ("/dev/nvidia0", "[accelerators] allow", '"nvidia"'),
        ("/dev/nvidia-caps/nvidia-cap1", "[accelerators] allow", '"nvidia"'),
        ("/dev/dri/renderD128", "[accelerators] allow", '"amd"'),
        ("/sys/devices", "[filesystem] read", '"/sys/devices"'),
        ("/dev/kvm", "[filesystem] read", '"/dev/kvm"'),
    ],
)
def test_a_card_is_advised_by_its_maker(path: str, key: str, line: str) -> None:
    refused = explain_path(read(""), path, "read", baseline=implied_grants(read(""), "/home/u/book", []))
    assert (refused.allowed, refused.key, refused.line) == (False, key, line)


@pytest.mark.parametrize(
    ("text", "said"),
    [('accelerators.allow = "nvidia"', r'Write \["nvidia"\]'), ('accelerators.allow = ["nvidea"]', 'Write "nvidia"')],
)
def test_a_card_that_is_none_is_an_error(text: str, said: str) -> None:
    with pytest.raises(PolicyError, match=said):
        read(text)


def test_a_line_for_what_does_not_exist_opens_nothing_yet() -> None:
    data = PathGrant("/home/u/data", False, "~/data", "policy.toml: filesystem.read[0]")
    answer = explain_path(Policy(), "/home/u/data/a.csv", "read", absent=[data])
    assert not answer.allowed
    assert answer.line is None
    assert answer.reason.startswith('policy.toml: filesystem.read[0] = "~/data" names what does not exist')
    assert explain_path(Policy(), "/home/u/data/a.csv", "write", absent=[data]).line == '"/home/u/data/a.csv"'
    assert explain_path(Policy(), "/home/u/other", "read", absent=[data]).line == '"/home/u/other"'


def test_what_is_closed_in_the_notebooks_folder_is_refused_unless_a_line_names_it() -> None:
    path = "/home/u/book/.env"
    secret, obeyed = Closed(path, "none", "it holds passwords"), Closed("/home/u/book/.venv", "read", "programs run it")
    closed = explain_path(POLICY, path, "read", baseline=HERE, closed=secret)
    assert not closed.allowed
    assert closed.reason == f"{path} is closed in the notebook's folder: it holds passwords"
    assert explain_path(POLICY, "/home/u/book/.venv/x", "read", baseline=HERE, closed=obeyed).allowed
    assert not explain_path(POLICY, "/home/u/book/.venv/x", "write", baseline=HERE, closed=obeyed).allowed
    named = read(f'[filesystem]\nread = ["{path}"]')
    assert explain_path(named, path, "read", baseline=HERE, closed=secret).allowed
    assert not explain_path(named, path, "write", baseline=HERE, closed=secret).allowed
