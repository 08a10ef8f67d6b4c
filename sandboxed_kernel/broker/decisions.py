"""Pure: what the broker answers to one call. Everything that is not named here is refused.

There is no verdict "let the call continue": its arguments lie in memory that the sandbox may rewrite meanwhile, so
that what Linux would read is not what was judged. A verdict is either something the broker does itself on its own
copies, or a refusal.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Container, Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import Protocol

from sandboxed_kernel.broker.calls import (
    AF_INET,
    AF_INET6,
    AF_NETLINK,
    AF_UNIX,
    IPPROTO_IP,
    IPPROTO_TCP,
    IPPROTO_UDP,
    NETLINK_ROUTE,
    SOCK_CLOEXEC,
    SOCK_DGRAM,
    SOCK_NONBLOCK,
    SOCK_RAW,
    SOCK_SEQPACKET,
    SOCK_STREAM,
    InetAddress,
)
from sandboxed_kernel.hostnames.addresses import Kind, classify, plain
from sandboxed_kernel.policy.model import Destination, Transport
from sandboxed_kernel.records import Record

IpAddress = IPv4Address | IPv6Address
DNS_PORT = 53
_ENOUGH, _BELOW = 1024, 4096  # ports for the sandbox's own choice: at least, and at most where others have theirs
ANY4, ANY6 = IPv4Address(0), IPv6Address(0)
LOOPBACK4 = IPv4Address("127.0.0.1")
LOOPBACK6 = IPv6Address("::1")
MAPPED_LOOPBACK = IPv6Address("::ffff:127.0.0.1")


class Rules(Protocol):
    """The part of ``hostnames.pins.Pins`` that decisions ask."""

    def rule_for(
        self, address: IpAddress, port: int, transport: Transport, *, own_interface: bool
    ) -> Destination | None: ...

    def is_pinned(self, address: IpAddress) -> bool: ...


class Refuse(Record):
    """The errno for the caller; with a ``reason`` the user is told, without one the refusal is an everyday answer."""

    error: int
    reason: str | None = None


# --- socket(2) ----------------------------------------------------------------------------------------------------


class CreateSocket(Record):
    """Create this socket in the broker, keep a reference, hand in a copy."""

    family: int
    type: int
    protocol: int
    non_blocking: bool
    close_on_exec: bool


class CreatePair(Record):
    """Hand in one end of a SOCK_SEQPACKET pair in place of a datagram socket of ``family``."""

    family: int
    non_blocking: bool
    close_on_exec: bool


# Programs probe for these at start and go on without; a notice would only puzzle.
_PROBED_FAMILIES = {
    17: "packet sockets, packet(7)",
    38: "the crypto interface, AF_ALG",
    40: "vsock(7)",
    43: "SMC",
    44: "XDP",
}

_CREATED = {
    (AF_INET, SOCK_STREAM, IPPROTO_IP),
    (AF_INET, SOCK_STREAM, IPPROTO_TCP),
    (AF_INET6, SOCK_STREAM, IPPROTO_IP),
    (AF_INET6, SOCK_STREAM, IPPROTO_TCP),
    (AF_UNIX, SOCK_STREAM, 0),
    (AF_UNIX, SOCK_SEQPACKET, 0),
    (AF_NETLINK, SOCK_RAW, NETLINK_ROUTE),
    (AF_NETLINK, SOCK_DGRAM, NETLINK_ROUTE),
}

_PAIRED = {
    (AF_INET, SOCK_DGRAM, IPPROTO_IP),
    (AF_INET, SOCK_DGRAM, IPPROTO_UDP),
    (AF_INET6, SOCK_DGRAM, IPPROTO_IP),
    (AF_INET6, SOCK_DGRAM, IPPROTO_UDP),
    (AF_UNIX, SOCK_DGRAM, 0),  # glibc's if_nametoindex, syslog
}


@lru_cache(maxsize=256)
def decide_socket(family: int, kind: int, protocol: int) -> CreateSocket | CreatePair | Refuse:
    """For the three ints of socket(2), already cut to 32 bits."""
    flags = kind & (SOCK_NONBLOCK | SOCK_CLOEXEC)
    base = kind & ~flags
    non_blocking, close_on_exec = bool(flags & SOCK_NONBLOCK), bool(flags & SOCK_CLOEXEC)
    if (family, base, protocol) in _CREATED:
        return CreateSocket(family, base, protocol, non_blocking, close_on_exec)
    if (family, base, protocol) in _PAIRED:
        return CreatePair(family, non_blocking, close_on_exec)
    if family in _PROBED_FAMILIES or family == AF_NETLINK:
        what = _PROBED_FAMILIES.get(family, "this netlink family")
        return Refuse(errno.EAFNOSUPPORT, f"{what} does not exist inside")
    what = f"a socket of family {family}, type {base}, protocol {protocol}"
    return Refuse(errno.EACCES, f"{what} does not exist inside; TCP and UDP do")


# --- connect(2) of a stream ----------------------------------------------------------------------------------------


class ConnectTo(Record):
    """Connect the broker's own reference here. ``rule`` says which line of the policy allows it."""

    address: IpAddress
    rule: Destination


class ConnectToOwn(Record):
    """Connect, if and only if a socket of this sandbox listens there, before and after connecting."""

    address: IpAddress


class AnswerNames(Record):
    """Connect to the broker's own answers to DNS questions, wherever the caller believes the server to be."""


ConnectVerdict = ConnectTo | ConnectToOwn | AnswerNames | Refuse


@lru_cache(maxsize=1024)  # on the path of every connect, where address arithmetic is most of the time
def normalise(address: IpAddress) -> IpAddress:
    """Where Linux really goes: the IPv4 address inside a mapped one; loopback for the unspecified address (ip(7))."""
    inner = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    plain: IpAddress = inner if inner is not None else address
    if plain.is_unspecified:
        return LOOPBACK4 if plain.version == 4 else LOOPBACK6
    return plain


@lru_cache(maxsize=1024)
def is_loopback(address: IpAddress) -> bool:
    return classify(plain(address)) is Kind.LOOPBACK


def wrong_family(family: int, address: InetAddress) -> int | None:
    """The errno that Linux gives for an address of another family than the socket's, or None where they fit."""
    if family == AF_INET and address.address.version == 6:
        return errno.EAFNOSUPPORT
    if family == AF_INET6 and address.address.version == 4:
        return errno.EINVAL  # tcp_v6_connect: struct sockaddr_in is too short to be looked at
    return None


def decide_connect(to: InetAddress, rules: Rules, *, own_interface: bool) -> ConnectVerdict:
    """For a TCP socket. ``own_interface``: the (normalised) address is one of this host's own."""
    address = normalise(to.address)
    if to.port == DNS_PORT:
        return AnswerNames()
    rule = rules.rule_for(address, to.port, "tcp", own_interface=own_interface)
    if rule is not None:
        return ConnectTo(address, rule)
    if is_loopback(address):
        return ConnectToOwn(address)
    if own_interface:
        return ConnectToOwn(LOOPBACK4 if address.version == 4 else LOOPBACK6)
    return Refuse(errno.EACCES, "no line under [network] allow admits this address and port")


NOT_OURS = Refuse(errno.EACCES, "something outside the sandbox listens on this port of the machine itself")


def unknowable(error: int, module: str) -> Refuse:
    """Where Linux cannot say whose a socket is, not even an own one is connected to."""
    what = f"this Linux cannot say whose the socket is, not even your own: its module {module} is missing"
    return Refuse(error, f"{what}. An administrator can load it: modprobe {module}")


# --- datagrams -----------------------------------------------------------------------------------------------------


class RelayTo(Record):
    """Pass datagrams on to here from a socket of the broker's."""

    address: IpAddress
    rule: Destination


DatagramVerdict = RelayTo | AnswerNames | Refuse


def decide_datagram(to: InetAddress, rules: Rules, *, own_interface: bool) -> DatagramVerdict:
    """For connect(2) and sendto(2) of what the caller believes to be a UDP socket; ``own_interface`` as above."""
    address = normalise(to.address)
    if to.port == DNS_PORT:
        return AnswerNames()
    rule = rules.rule_for(address, to.port, "udp", own_interface=own_interface)
    if rule is not None:
        return RelayTo(address, rule)
    if is_loopback(address) or rules.is_pinned(address) or to.port == 0:
        # glibc sorts the addresses of a name by connecting datagram sockets to them: no notice for that.
        return Refuse(errno.ENETUNREACH)
    return Refuse(errno.ENETUNREACH, "no udp:// line under [network] allow admits this address and port")


def may_sort(wanted: CreatePair) -> bool:
    """Whether it was made as glibc's getaddrinfo makes the sockets by which it sorts addresses: it connects each to an
    address and asks from where it would send (getaddrinfo.c, try_connect). Python and Rust make theirs so, too.
    """
    return wanted.close_on_exec and not wanted.non_blocking and wanted.family != AF_UNIX


def connected(*, may_sort: bool, again: bool) -> int:
    """The errno for a datagram connect that is done, which is not always 0.

    A pair has no inet address, and glibc ends the whole program by an assertion where a socket that sorts has connected
    and says another one (getaddrinfo.c, rfc3484_sort, rule 9). EINTR, to it, is an address that cannot be used, and
    there it stands as it does with every other port; Python then waits until the socket can be written, which it can
    (PEP 475), Rust calls again, as a C program has to, and is answered 0.
    """
    return errno.EINTR if may_sort and not again else 0


def gave_up(*, polls: bool, connected: bool, asked: bool) -> bool:
    """Whether a socket that is closed was a resolver's own, which asks it for its address after the connect and goes no
    further where that is none of inet (c-ares, ares_conn_set_self_ip). ``polls``: it was non-blocking as it connected,
    as a resolver's is; others only want to know their own address (getaddrinfo, Ray), every day.
    """
    return connected and not asked and polls


def asks_again(question: bytes, answered: bytes) -> bool:
    """Whether an unconnected socket sends the very question that it has the answer to: it compares from where an answer
    came, and an answer inside comes from nowhere (musl, __res_msend_rc).
    """
    return bool(question) and question == answered


def is_any4(to: InetAddress) -> bool:
    return to.address == ANY4


# --- bind(2) -------------------------------------------------------------------------------------------------------


class BindTo(Record):
    """Bind the broker's own reference here: always an address that only this machine reaches."""

    address: IpAddress
    port: int


def decide_bind(
    family: int, to: InetAddress, *, v6_only: bool, own_interface: bool, given: Container[int], taken: PortsOfOthers
) -> BindTo | Refuse:
    """For a TCP socket. ``given``: the ports for bind(2) to port 0."""
    address = normalise(to.address)
    mapped = isinstance(to.address, IPv6Address) and to.address.ipv4_mapped is not None
    if family == AF_INET6 and address.version == 4 and v6_only:
        return Refuse(errno.EINVAL)
    if not is_loopback(address) and not own_interface:
        return Refuse(errno.EADDRNOTAVAIL)
    if to.port in taken.ephemeral and to.port not in given:
        first, last = taken.ephemeral[0], taken.ephemeral[-1]
        return Refuse(
            errno.EACCES,
            f"Linux hands out the ports {first} to {last} to all programs of this machine, so that none of them can be"
            " bound by its number. Bind another, or port 0",
        )
    refusal = decide_port(address, to.port, taken)
    if refusal is not None:
        return refusal
    if family == AF_INET:
        return BindTo(address if is_loopback(address) else LOOPBACK4, to.port)
    if to.address.is_unspecified:
        return BindTo(any_loopback(family, v6_only=v6_only), to.port)
    if mapped:
        return BindTo(_mapped(address) if is_loopback(address) else MAPPED_LOOPBACK, to.port)
    return BindTo(LOOPBACK6, to.port)


class PortsOfOthers(Record):
    """``ephemeral``: ip_local_port_range; ``reserved``: the Jupyter server's and the Hub's; ``listening``: at which
    addresses somebody outside the sandbox listens on the port in question.
    """

    ephemeral: range
    reserved: Container[int]
    listening: Sequence[IpAddress] = ()


def decide_port(address: IpAddress, port: int, taken: PortsOfOthers) -> Refuse | None:
    """Whether a server at ``address`` would answer in the place of somebody else's, for clients that look for a name
    with several addresses; None for no. The error is that of a port that is in use, on which programs try another.
    """
    if port in taken.reserved:
        return Refuse(errno.EADDRINUSE, "this port is of the Jupyter server or Hub that started this kernel")
    others = [other for other in taken.listening if not _excludes(other, address)]
    if others:
        return Refuse(
            errno.EADDRINUSE,
            f"another program of this machine listens on this port, at {others[0]}, and clients that ask for localhost"
            " would be answered by the code inside in its place. Use another port",
        )
    return Refuse(errno.EADDRINUSE) if taken.listening else None


def _excludes(other: IpAddress, address: IpAddress) -> bool:
    """Whether Linux itself says that ``address`` is in use, where ``other`` is: then there is nothing to explain."""
    return other == address or (other.version == address.version and (other.is_unspecified or address.is_unspecified))


def ports_to_give(ephemeral: range, lot: int) -> range:
    """For bind(2) to port 0: ports that Linux hands out to nobody, above ``ephemeral`` (ip_local_port_range) or below.

    Whoever inside binds port 0 again and again so gets none that another program may have been promised. Where
    ``ephemeral`` leaves no room it is a small part of it, which ``lot`` chooses once for each sandbox.
    """
    above, below = range(ephemeral.stop, 65536), range(max(1024, ephemeral.start - _BELOW), ephemeral.start)
    for ports in (above, below):
        if len(ports) >= _ENOUGH:
            return ports
    first = ephemeral.start + lot % max(1, len(ephemeral) - _ENOUGH)
    return range(first, min(first + _ENOUGH, 65536))


def any_loopback(family: int, *, v6_only: bool) -> IpAddress:
    """What stands for every address of the machine, for a socket of ``family``."""
    if family == AF_INET:
        return LOOPBACK4
    return LOOPBACK6 if v6_only else MAPPED_LOOPBACK  # reached by IPv4 too, and works where IPv6 is switched off


def _mapped(address: IpAddress) -> IPv6Address:
    return IPv6Address(b"\0" * 10 + b"\xff\xff" + address.packed)


# --- symbolic links ------------------------------------------------------------------------------------------------


# --- unix sockets ---------------------------------------------------------------------------------------------------


def decide_unix(*, named: bool, bound_here: bool, still_bound: bool) -> Refuse | None:
    """Of a connect to the socket at a path, None for yes. ``named``: the policy names this very path. ``bound_here``: a
    socket of this sandbox was bound to this very inode; ``still_bound``: it lives, and is bound to it.

    While it lives the inode cannot be another's. Once it is gone the answer is Linux's own for a stale socket file,
    also where the inode was used again since.
    """
    if named or (bound_here and still_bound):
        return None
    if bound_here:
        return Refuse(errno.ECONNREFUSED)
    return Refuse(errno.EACCES, "this socket was not bound inside the sandbox")


def is_same_file(inode: int, device: tuple[int, int], shown_inode: int | None, shown_device: int | None) -> bool:
    """Whether a file is what unix_diag says that a socket is bound to: 32 bits of the inode, and the device's (major,
    minor) in one number (linux/unix_diag.h, struct unix_diag_vfs).
    """
    return shown_inode == inode & 0xFFFFFFFF and shown_device == device[0] << 20 | device[1]


# --- files: metadata, links -----------------------------------------------------------------------------------------

_SPECIAL_BITS = 0o6000  # set-user-id, set-group-id
_ACLS = (b"system.posix_acl_access", b"system.posix_acl_default")
AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH = 0x100, 0x1000


def covers(roots: Iterable[bytes], path: bytes) -> bool:
    """Whether a real path is one of ``roots`` or lies beneath one. A root that ends with a slash means what lies
    beneath the folder, without the folder itself.
    """
    return any(path == root or path.startswith(root.rstrip(b"/") + b"/") for root in roots)


def decide_metadata(*, inside: bool, anothers: bool) -> Refuse | None:
    """Of a change to a file's metadata, None for yes. ``inside``: the sandbox may write there. ``anothers``: this user
    could not change it outside either; then a notice would only puzzle (fc-list on its cache).
    """
    if inside:
        return None
    reason = "mode, owner, times and attributes can only be changed beneath a writable grant"
    return Refuse(errno.EPERM, None if anothers else reason)


def decide_holder(before: int, after: int | None) -> Refuse | None:
    """Of the mode of a folder that holds something closed, None for yes. ``after`` is None where the owner or an ACL is
    to be changed. Only less may be open to others then, and no less to the owner.
    """
    if after is not None and not after & ~before & 0o077 and not before & ~after & 0o700:
        return None
    return Refuse(
        errno.EPERM, "it holds something that is closed, and others would reach that, or the owner not any more"
    )


def mode_to_set(mode: int) -> int:
    """What chmod(2) sets: no set-user-id and set-group-id bits."""
    return mode & 0o7777 & ~_SPECIAL_BITS


def decide_flags(flags: int) -> Refuse | None:
    """Of the flags of fchmodat2(2) and its kin, of which Linux knows two."""
    unknown = flags & 0xFFFFFFFF & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)
    return Refuse(errno.EINVAL) if unknown else None


def decide_attribute(name: bytes) -> Refuse | None:
    """Of an extended attribute, xattr(7): ``security.*`` and ``trusted.*`` are not a notebook's."""
    return None if name.startswith(b"user.") or name in _ACLS else Refuse(errno.EPERM)


def are_microseconds(*values: int) -> bool:
    """Whether they can be the second half of a struct timeval, utimes(2)."""
    return all(0 <= value < 1_000_000 for value in values)


def decide_link(target: bytes, leads_to: bytes, *, inside: bool, writable_outside: bool) -> bytes | Refuse:
    """What a symbolic link to ``target`` may say.

    ``leads_to`` is the real, absolute path that it leads to now; ``inside``: the sandbox may write there;
    ``writable_outside``: a program outside, of the same user, may. A target with ".." is replaced by that path: moved,
    the link would lead elsewhere.
    """
    if not inside and writable_outside:
        reason = "a program outside that writes to the link (Jupyter, when it saves) would write there"
        return Refuse(errno.EPERM, reason)
    return leads_to if b".." in target.split(b"/") else target


# --- other processes, terminals -------------------------------------------------------------------------------------


def decide_process(pid: int, *, one: bool, inside: bool, exists: bool) -> Refuse | None:
    """Of a limit or priority of another process, None for yes. ``one``: the call means this process alone, no group and
    no user, which reach further; ``inside``: it descends from the warden.
    """
    if one and pid > 0 and inside:
        return None
    if one and pid > 0 and not exists:
        return Refuse(errno.ESRCH)
    return Refuse(errno.EPERM, "limits and priorities can only be changed of processes of this sandbox")


_COMM = re.compile(rb"/proc/(self|thread-self|[1-9][0-9]{0,9})(?:/task/([1-9][0-9]{0,9}))?/comm")


def thread_to_name(path: bytes, *, tid: int, process: int) -> int | None:
    """The thread of the caller's own ``process`` that ``path`` names as proc_pid_comm(5) writes it, if it is one; None
    for every other path. ``tid``: the caller's.
    """
    found = _COMM.fullmatch(path)
    if found is None:
        return None
    whose, thread = found.groups()
    if whose == b"thread-self":
        return None if thread else tid
    if thread is None:
        return process if whose == b"self" else int(whose)
    return int(thread) if whose == b"self" or int(whose) == process else None


_PTMX = (5, 2)  # Documentation/admin-guide/devices.txt


def decide_terminal(
    *, character_device: bool, device: tuple[int, int], number: int | None, mount: int | None, mounts: Container[int]
) -> int | Refuse:
    """The number of the terminal whose master has this ``device`` and was opened through this ``mount``; ``mounts`` are
    those where masters are opened here. Each mounted devpts numbers its terminals afresh: a master that was handed in
    from another one (a container of the same user) has the number of somebody else's terminal here.
    """
    if not character_device or device != _PTMX:
        return Refuse(errno.ENOTTY)
    if number is None or mount is None or mount not in mounts:
        return Refuse(errno.EIO)
    return number
