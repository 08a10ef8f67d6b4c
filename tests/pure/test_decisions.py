"""What the broker decides about sockets, connects, datagrams, binds and links, for every combination that matters.

The rules of a policy are ``hostnames.pins.Pins`` itself; which socket listens where is the broker's to ask of Linux.
"""

from __future__ import annotations

import errno
from ipaddress import IPv6Address, ip_address
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxed_kernel.broker import decisions
from sandboxed_kernel.broker.calls import (
    AF_INET,
    AF_INET6,
    AF_NETLINK,
    AF_UNIX,
    IPPROTO_IP,
    IPPROTO_TCP,
    IPPROTO_UDP,
    SOCK_CLOEXEC,
    SOCK_DGRAM,
    SOCK_NONBLOCK,
    SOCK_RAW,
    SOCK_SEQPACKET,
    SOCK_STREAM,
    InetAddress,
)
from sandboxed_kernel.broker.decisions import (
    AnswerNames,
    BindTo,
    ConnectTo,
    ConnectToOwn,
    ConnectVerdict,
    CreatePair,
    CreateSocket,
    DatagramVerdict,
    IpAddress,
    PortsOfOthers,
    Refuse,
    RelayTo,
)
from sandboxed_kernel.hostnames.addresses import Kind, classify, plain
from sandboxed_kernel.hostnames.pins import Pins, Resolution
from tests.support.rules import rule

FLAGS = (0, SOCK_NONBLOCK, SOCK_CLOEXEC, SOCK_NONBLOCK | SOCK_CLOEXEC)

# family, type, protocol: what socket(2) gives inside. Nothing else.
TCP = {(family, SOCK_STREAM, protocol) for family in (AF_INET, AF_INET6) for protocol in (IPPROTO_IP, IPPROTO_TCP)}
CREATED = TCP | {(AF_UNIX, SOCK_STREAM, 0), (AF_UNIX, SOCK_SEQPACKET, 0)}
CREATED |= {(AF_NETLINK, SOCK_RAW, 0), (AF_NETLINK, SOCK_DGRAM, 0)}
PAIRED = {(family, SOCK_DGRAM, protocol) for family in (AF_INET, AF_INET6) for protocol in (IPPROTO_IP, IPPROTO_UDP)}
PAIRED |= {(AF_UNIX, SOCK_DGRAM, 0)}
PROBED = {AF_NETLINK, 17, 38, 40, 43, 44}


def test_every_socket_is_one_of_the_table_or_refused() -> None:
    protocols = [*range(20), 58, 132, 136, 255, 256, 262, 2**31 - 1, -1, -(2**31)]
    for family, base, protocol, flags in product(range(-2, 50), range(12), protocols, FLAGS):
        verdict = decisions.decide_socket(family, base | flags, protocol)
        non_blocking, close_on_exec = bool(flags & SOCK_NONBLOCK), bool(flags & SOCK_CLOEXEC)
        said = (family, base, protocol)
        if said in CREATED:
            assert verdict == CreateSocket(family, base, protocol, non_blocking, close_on_exec)
        elif said in PAIRED:
            assert verdict == CreatePair(family, non_blocking, close_on_exec)
        else:
            assert isinstance(verdict, Refuse), said
            assert verdict.error == (errno.EAFNOSUPPORT if family in PROBED else errno.EACCES), said
            assert verdict.reason, said


@pytest.mark.parametrize("bit", [bit for bit in range(32) if not (1 << bit) & (SOCK_NONBLOCK | SOCK_CLOEXEC | 0xF)])
def test_no_bit_of_a_type_is_overlooked(bit: int) -> None:
    high = (1 << bit) - (1 << 32 if bit == 31 else 0)
    for family, base, protocol in CREATED | PAIRED:
        assert isinstance(decisions.decide_socket(family, base | high, protocol), Refuse)


# --- addresses -------------------------------------------------------------------------------------------------------

# As they are written in a call; what decides is where Linux really goes.
ADDRESSES = [
    *("8.8.8.8", "198.51.100.7", "10.0.0.5", "192.168.1.9", "169.254.169.254", "169.254.1.1", "224.0.0.1"),
    *("255.255.255.255", "127.0.0.1", "127.0.0.2", "0.0.0.0", "192.0.2.1"),
    *("2001:db8::7", "2606:4700::1111", "fd12::1", "fe80::1", "ff02::1", "::1", "::", "::2", "64:ff9b::8.8.8.8"),
    *("::ffff:8.8.8.8", "::ffff:127.0.0.1", "::ffff:0.0.0.0", "::ffff:10.0.0.5", "::ffff:169.254.169.254"),
]
PORTS = (0, 22, 53, 80, 443, 8888, 65535)


ALLOWED = rule("allowed.example", 443)
INTERNAL = rule("internal.example", 8888, private=True)
TIME = rule("time.example", 80, transport="udp")


@pytest.fixture
def pins() -> Pins:
    made = Pins((ALLOWED, INTERNAL, TIME))
    for one, address in ((ALLOWED, "198.51.100.7"), (INTERNAL, "10.0.0.5"), (TIME, "2001:db8::7")):
        assert one.name is not None
        made.record(one.name, Resolution((ip_address(address),), ttl=None), 0)
    return made


# Where each rule leads, and nothing else does.
STREAMS = {("198.51.100.7", 443): ALLOWED, ("10.0.0.5", 8888): INTERNAL}
DATAGRAMS = {("2001:db8::7", 80): TIME}


def real(text: str) -> IpAddress:
    """Linux's own reading: a mapped address is an IPv4 one, and the unspecified one is this machine (ip(7))."""
    address = ip_address(text)
    inner = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    meant = inner or address
    return {"0.0.0.0": ip_address("127.0.0.1"), "::": ip_address("::1")}.get(str(meant), meant)


@pytest.mark.parametrize("text", ADDRESSES)
def test_where_linux_really_goes(text: str) -> None:
    assert decisions.normalise(ip_address(text)) == real(text)
    assert decisions.is_loopback(ip_address(text)) == (classify(plain(ip_address(text))) is Kind.LOOPBACK)


def judged(text: str, port: int, pins: Pins, *, own: bool = False) -> ConnectVerdict:
    return decisions.decide_connect(InetAddress(ip_address(text), port), pins, own_interface=own)


def test_a_stream_goes_where_a_rule_leads_to_its_own_servers_or_nowhere(pins: Pins) -> None:
    for text, port in product(ADDRESSES, PORTS):
        address, verdict = real(text), judged(text, port, pins)
        allowed = STREAMS.get((str(address), port))
        if port == 53:
            assert verdict == AnswerNames(), text
        elif allowed is not None:
            assert verdict == ConnectTo(address, allowed), text
        elif address.is_loopback:
            assert verdict == ConnectToOwn(address), text
        else:
            assert isinstance(verdict, Refuse), (text, port)
            assert verdict.error == errno.EACCES
            assert verdict.reason


def test_an_address_of_this_machine_means_its_own_loopback(pins: Pins) -> None:
    """No name speaks for it without ``private = true``: services of the machine listen there."""
    for text, port in product(ADDRESSES, set(PORTS) - {53}):
        address, verdict = real(text), judged(text, port, pins, own=True)
        if (str(address), port) == ("10.0.0.5", 8888):
            assert verdict == ConnectTo(address, INTERNAL)
        elif address.is_loopback:
            assert verdict == ConnectToOwn(address)
        else:
            assert verdict == ConnectToOwn(ip_address("127.0.0.1" if address.version == 4 else "::1"))


@pytest.mark.parametrize("own", [False, True])
def test_datagrams_go_where_a_rule_leads_or_nowhere(pins: Pins, own: bool) -> None:
    verdict: DatagramVerdict
    for text, port in product(ADDRESSES, PORTS):
        address = real(text)
        verdict = decisions.decide_datagram(InetAddress(ip_address(text), port), pins, own_interface=own)
        allowed = None if own else DATAGRAMS.get((str(address), port))
        if port == 53:
            assert verdict == AnswerNames()
        elif allowed is not None:
            assert verdict == RelayTo(address, allowed)
        else:
            assert isinstance(verdict, Refuse), (text, port)
            assert verdict.error == errno.ENETUNREACH
            everyday = address.is_loopback or port == 0 or str(address) in ("198.51.100.7", "10.0.0.5", "2001:db8::7")
            assert (verdict.reason is None) == everyday, (text, port)


def test_no_rule_of_tcp_is_one_of_udp(pins: Pins) -> None:
    to = InetAddress(ip_address("198.51.100.7"), 443)
    assert isinstance(decisions.decide_datagram(to, pins, own_interface=False), Refuse)
    assert isinstance(judged("2001:db8::7", 80, pins), Refuse)


@pytest.mark.parametrize(
    ("family", "text", "error"),
    [
        (AF_INET, "192.0.2.1", None),
        (AF_INET, "::1", errno.EAFNOSUPPORT),
        (AF_INET, "::ffff:127.0.0.1", errno.EAFNOSUPPORT),
        (AF_INET6, "::1", None),
        (AF_INET6, "::ffff:127.0.0.1", None),
        (AF_INET6, "192.0.2.1", errno.EINVAL),
    ],
)
def test_an_address_of_the_other_family(family: int, text: str, error: int | None) -> None:
    assert decisions.wrong_family(family, InetAddress(ip_address(text), 1)) == error


def test_what_is_not_ours_is_refused_with_a_reason() -> None:
    assert decisions.NOT_OURS.error == errno.EACCES
    assert decisions.NOT_OURS.reason is not None
    assert "outside the sandbox" in decisions.NOT_OURS.reason
    assert (str(decisions.ANY4), str(decisions.ANY6)) == ("0.0.0.0", "::")


# --- bind(2) ---------------------------------------------------------------------------------------------------------

NOBODY = PortsOfOthers(range(32768, 61000), ())


def bound(text: str, *, own: bool = False, v6_only: bool = False) -> BindTo | Refuse:
    address = ip_address(text)
    family = AF_INET if address.version == 4 else AF_INET6
    to = InetAddress(address, 8080)
    return decisions.decide_bind(family, to, v6_only=v6_only, own_interface=own, given=range(0), taken=NOBODY)


@pytest.mark.parametrize(("own", "v6_only"), list(product([False, True], [False, True])))
def test_a_server_is_reached_by_this_machine_only(own: bool, v6_only: bool) -> None:
    for text in ADDRESSES:
        address, verdict = real(text), bound(text, own=own, v6_only=v6_only)
        mapped = text.startswith("::ffff:")
        if mapped and v6_only:
            assert verdict == Refuse(errno.EINVAL), text
        elif not own and not address.is_loopback:
            assert verdict == Refuse(errno.EADDRNOTAVAIL), text
        else:
            assert isinstance(verdict, BindTo), text
            assert verdict.port == 8080
            assert real(str(verdict.address)).is_loopback
            assert verdict.address.version == ip_address(text).version


@pytest.mark.parametrize(
    ("text", "own", "v6_only", "where"),
    [
        ("127.0.0.2", False, False, "127.0.0.2"),
        ("0.0.0.0", False, False, "127.0.0.1"),
        ("192.0.2.1", True, False, "127.0.0.1"),
        ("::1", False, False, "::1"),
        ("::", False, True, "::1"),
        ("::", False, False, "::ffff:127.0.0.1"),
        ("fd12::1", True, False, "::1"),
        ("::ffff:127.0.0.2", False, False, "::ffff:127.0.0.2"),
        ("::ffff:0.0.0.0", False, False, "::ffff:127.0.0.1"),
        ("::ffff:10.0.0.5", True, False, "::ffff:127.0.0.1"),
    ],
)
def test_where_a_server_is_bound(text: str, own: bool, v6_only: bool, where: str) -> None:
    assert bound(text, own=own, v6_only=v6_only) == BindTo(ip_address(where), 8080)


def test_what_stands_for_every_address() -> None:
    assert str(decisions.any_loopback(AF_INET, v6_only=False)) == "127.0.0.1"
    assert str(decisions.any_loopback(AF_INET6, v6_only=True)) == "::1"
    assert decisions.any_loopback(AF_INET6, v6_only=False) == ip_address("::ffff:127.0.0.1")


@pytest.mark.parametrize("module", ["tcp_diag", "unix_diag"])
def test_what_linux_cannot_say_names_the_module_and_who_can_load_it(module: str) -> None:
    verdict = decisions.unknowable(errno.EACCES, module)
    assert verdict.error == errno.EACCES
    assert verdict.reason is not None
    assert f"modprobe {module}" in verdict.reason
    assert "administrator" in verdict.reason


# --- symbolic links --------------------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from([b"..", b".", b"a", b"...", b"..a", b""]), min_size=1, max_size=6).map(b"/".join))
def test_a_link_says_what_was_written_or_where_it_leads_now(target: bytes) -> None:
    for inside, writable_outside in product([False, True], [False, True]):
        said = decisions.decide_link(target, b"/real", inside=inside, writable_outside=writable_outside)
        if writable_outside and not inside:
            assert isinstance(said, Refuse)
            assert said.error == errno.EPERM
            assert said.reason is not None
        else:
            assert said == (b"/real" if b".." in target.split(b"/") else target)


# --- unix sockets ----------------------------------------------------------------------------------------------------


def test_a_path_is_connected_where_it_is_named_or_a_living_socket_of_ours_is_bound_to_it() -> None:
    for named, here, still in product([False, True], repeat=3):
        verdict = decisions.decide_unix(named=named, bound_here=here, still_bound=still)
        if named or (here and still):
            assert verdict is None
        else:
            assert verdict is not None
            assert (verdict.error, verdict.reason is None) == (errno.ECONNREFUSED if here else errno.EACCES, here)


@given(st.integers(0, 2**64 - 1), st.integers(0, 4095), st.integers(0, 2**20 - 1))
def test_a_file_is_the_same_where_inode_and_device_are(inode: int, major: int, minor: int) -> None:
    shown, device = inode % 2**32, major * 2**20 + minor
    assert decisions.is_same_file(inode, (major, minor), shown, device)
    others = [(shown ^ 1, device), (shown, device ^ 1), (shown, device ^ 2**20), (None, device), (shown, None)]
    for one, other in others:
        assert not decisions.is_same_file(inode, (major, minor), one, other)


# --- metadata ---------------------------------------------------------------------------------------------------------

ROOTS = (b"/data", b"/home/me/data/")


@pytest.mark.parametrize(
    ("path", "inside"),
    [
        (b"/data", True),
        (b"/data/a/b", True),
        (b"/data/", True),
        (b"/database", False),
        (b"/", False),
        (b"/home/me/data", False),
        (b"/home/me/data/x", True),
        (b"/home/me/database", False),
        (b"/etc/passwd", False),
        (b"/data (deleted)", False),
        (b"", False),
    ],
)
def test_metadata_changes_beneath_a_writable_grant_and_nowhere_else(path: bytes, inside: bool) -> None:
    assert decisions.covers(ROOTS, path) is inside
    assert not decisions.covers((), path)
    for anothers in (False, True):
        verdict = decisions.decide_metadata(inside=decisions.covers(ROOTS, path), anothers=anothers)
        if inside:
            assert verdict is None
        else:
            assert verdict is not None
            assert (verdict.error, verdict.reason is None) == (errno.EPERM, anothers)


def test_no_mode_gives_somebody_elses_rights() -> None:
    for mode in range(0o200000):
        assert decisions.mode_to_set(mode) == mode % 0o10000 & 0o1777


def test_flags_that_linux_does_not_know_are_refused() -> None:
    known = {0, 0x100, 0x1000, 0x1100}
    for bit in range(64):
        for flags in (1 << bit, 1 << bit | 0x1100):
            verdict = decisions.decide_flags(flags)
            assert (verdict is None) is (flags & 0xFFFFFFFF in known)
            assert verdict is None or verdict == Refuse(errno.EINVAL)


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        (b"user.a", True),
        (b"user.", True),
        (b"user", False),
        (b"system.posix_acl_access", True),
        (b"system.posix_acl_default", True),
        (b"system.posix_acl_accessx", False),
        (b"security.capability", False),
        (b"trusted.user.a", False),
        (b"", False),
    ],
)
def test_only_a_users_attributes_are_set(name: bytes, allowed: bool) -> None:
    assert decisions.decide_attribute(name) == (None if allowed else Refuse(errno.EPERM))


@pytest.mark.parametrize(
    ("values", "valid"), [((0, 999_999), True), ((0, 1_000_000), False), ((-1, 0), False), ((0, -1), False), ((), True)]
)
def test_microseconds_are_of_one_second(values: tuple[int, ...], valid: bool) -> None:
    assert decisions.are_microseconds(*values) is valid


# --- other processes, terminals --------------------------------------------------------------------------------------


def test_only_one_process_that_is_inside_is_changed() -> None:
    for pid, one, inside, exists in product([-1, 0, 1, 4242], [False, True], [False, True], [False, True]):
        verdict = decisions.decide_process(pid, one=one, inside=inside, exists=exists)
        if one and pid > 0 and inside:
            assert verdict is None
        elif one and pid > 0 and not exists:
            assert verdict == Refuse(errno.ESRCH)
        else:
            assert verdict is not None
            assert verdict.error == errno.EPERM
            assert verdict.reason is not None


def test_only_the_master_of_a_terminal_of_ours_says_its_number() -> None:
    for character, device, number, mount in product(
        [False, True], [(5, 2), (5, 1), (4, 2), (136, 0)], [None, 0, 7], [None, 21, 22, 23]
    ):
        said = decisions.decide_terminal(
            character_device=character, device=device, number=number, mount=mount, mounts={21, 23}
        )
        if not character or device != (5, 2):
            assert said == Refuse(errno.ENOTTY)
        elif number is None or mount not in (21, 23):
            assert said == Refuse(errno.EIO)
        else:
            assert said == number


# --- names of threads ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "thread"),
    [
        (b"/proc/self/comm", 40),
        (b"/proc/thread-self/comm", 42),
        (b"/proc/self/task/43/comm", 43),
        (b"/proc/40/comm", 40),
        (b"/proc/40/task/43/comm", 43),
        (b"/proc/42/comm", 42),  # opened as a thread of the caller's process: another's number is none
    ],
)
def test_the_name_of_an_own_thread(path: bytes, thread: int) -> None:
    assert decisions.thread_to_name(path, tid=42, process=40) == thread


@pytest.mark.parametrize(
    "path",
    b"""/proc/41/task/41/comm /proc/41/task/40/comm /proc/self/mem /proc/self/task/43/mem /proc/self/comm/
    /proc/self/commx /proc/self//comm /proc/./self/comm /proc/self/task/../comm /proc/self/task/043/comm /proc/0/comm
    /proc/self/task/-1/comm /proc/self/task/43/../44/comm /proc/thread-self/task/43/comm proc/self/comm /tmp/comm
    /proc/self/task/12345678901/comm /x/proc/self/comm /proc/self/root/proc/self/comm""".split(),
)
def test_no_other_path_is_one(path: bytes) -> None:
    assert decisions.thread_to_name(path, tid=42, process=40) is None
    assert decisions.thread_to_name(path + b"\n", tid=42, process=40) is None


@given(st.binary(max_size=40))
def test_nothing_but_a_number_is_taken_from_a_path(tail: bytes) -> None:
    found = decisions.thread_to_name(b"/proc/self/" + tail, tid=42, process=40)
    assert found is None or tail in (b"comm", f"task/{found}/comm".encode())


# --- how libraries sort addresses ------------------------------------------------------------------------------------


def test_what_may_be_a_socket_by_which_a_library_sorts_addresses() -> None:
    for family, non_blocking, close_on_exec in product((AF_INET, AF_INET6, AF_UNIX), (False, True), (False, True)):
        made = CreatePair(family, non_blocking, close_on_exec)
        assert decisions.may_sort(made) == (family != AF_UNIX and close_on_exec and not non_blocking)


def test_only_a_socket_that_may_sort_has_to_call_again() -> None:
    answers = {
        (sorts, again): decisions.connected(may_sort=sorts, again=again)
        for sorts, again in product((False, True), repeat=2)
    }
    assert answers == {(True, False): errno.EINTR, (True, True): 0, (False, False): 0, (False, True): 0}


@pytest.mark.parametrize(
    ("address", "is_it"), [("0.0.0.0", True), ("::", False), ("::ffff:0.0.0.0", False), ("127.0.0.1", False)]
)
def test_the_unspecified_address_of_ipv4(address: str, *, is_it: bool) -> None:
    assert decisions.is_any4(InetAddress(ip_address(address), 80)) == is_it


# --- resolvers that programs bring along -----------------------------------------------------------------------------


def test_a_resolver_gave_up_where_it_connected_and_asked_nothing() -> None:
    for polls, connected, asked in product((False, True), repeat=3):
        gave_up = decisions.gave_up(polls=polls, connected=connected, asked=asked)
        assert gave_up == (connected and not asked and polls)


def test_a_resolver_asks_again_where_it_took_no_answer() -> None:
    assert decisions.asks_again(b"question", b"question")
    assert not decisions.asks_again(b"question", b"another")  # the IPv6 half, or another name
    assert not decisions.asks_again(b"question", b"")  # no answer yet: it may be slow
    assert not decisions.asks_again(b"", b"")
