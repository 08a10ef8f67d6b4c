"""What Python's socket module cannot say: disconnect, a connect that never waits, the way of a packet."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import signal
import socket
import struct

from sandboxed_kernel.linux import libc
from sandboxed_kernel.linux.descriptor import is_ready

_CONNECT = {"x86_64": 42, "aarch64": 203}
_LINGER = struct.Struct("=ii")  # struct linger
_NO_LINGER = _LINGER.pack(0, 0)
INTERRUPT = signal.SIGALRM
_INTERRUPTS = libc.SignalMask(INTERRUPT)


def disconnect(sock: socket.socket) -> int:
    """connect(2) with AF_UNSPEC: dissolve the association; an errno, 0 for done."""
    nothing = libc.buffer_from(bytes(16))
    try:
        libc.syscall(_CONNECT[libc.MACHINE], sock.fileno(), nothing, 16)
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def dissolve(sock: socket.socket) -> int:
    """End a connect that failed or is to fail, so that the socket can be connected again; its error, 0 for none."""
    error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)  # at SOL_SOCKET getsockopt waits for no lock
    disconnect(sock)
    sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)  # ECONNRESET, where the connect was still under way
    return error


def cut_off(sock: socket.socket) -> None:
    """Let nothing more pass over a connection that should not be; a unix socket cannot be disconnected, unix(7)."""
    if disconnect(sock):
        try:
            sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


def stop_lingering(sock: socket.socket) -> None:
    """Let close(2) of a TCP socket return at once; SO_LINGER of more than 0 seconds makes the last close(2) wait for
    what was not sent yet, socket(7). Of 0 seconds it waits for nothing, and stays: it asks for a reset.
    """
    on, seconds = _LINGER.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER.size))
    if on and seconds:
        libc.set_option(sock.fileno(), socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)


# --- the token of own listeners ------------------------------------------------------------------------------------

# A packet that comes from an own listener starts with the highest TTL there is, anybody else's with the default of this
# machine; a socket that connects to an own listener takes nothing lower (RFC 5082; ip(7) has IP_TTL, and linux/in.h
# IP_MINTTL). So Linux itself drops the answer of a listener that has taken the port meanwhile, whenever it comes.
HIGHEST_TTL = 255
_HIGHEST, _ANY = struct.pack("=i", HIGHEST_TTL), struct.pack("=i", 0)
_OWN_TTL = {4: (socket.IPPROTO_IP, socket.IP_TTL), 6: (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS)}
_LOWEST_TTL = {4: (socket.IPPROTO_IP, 21), 6: (socket.IPPROTO_IPV6, 73)}  # IP_MINTTL, IPV6_MINHOPCOUNT: linux/in6.h
DEFAULT_TTL = {4: "/proc/sys/net/ipv4/ip_default_ttl", 6: "/proc/sys/net/ipv6/conf/lo/hop_limit"}


def show_token(sock: socket.socket, version: int) -> None:
    """Before listen(2): what this listener sends over IPv4 or IPv6 (``version`` 4 or 6) bears the token."""
    libc.set_option(sock.fileno(), *_OWN_TTL[version], _HIGHEST)


def demand_token(sock: socket.socket, version: int) -> None:
    """Before connect(2): this socket takes only packets that bear the token."""
    libc.set_option(sock.fileno(), *_LOWEST_TTL[version], _HIGHEST)


def demand_no_token(sock: socket.socket, version: int) -> None:
    """Once connected, for the reset of a peer that is gone: Linux sends it with the default."""
    libc.set_option(sock.fileno(), *_LOWEST_TTL[version], _ANY)


def default_ttl(setting: str) -> int | None:
    """What is said in a file of DEFAULT_TTL, or None where this Linux does not speak that IP. At HIGHEST_TTL the token
    says nothing.
    """
    try:
        with open(setting, encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None


def is_v6_only(sock: socket.socket) -> bool:
    """IPV6_V6ONLY of an IPv6 socket, ipv6(7)."""
    value = libc.option(sock.fileno(), socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 4)
    return bool(int.from_bytes(value, "little"))


def peer_process(sock: socket.socket) -> int:
    """Who called listen(2) for the unix socket that this one is connected to (SO_PEERCRED, unix(7)); 0 for nobody."""
    try:
        pid, _uid, _gid = struct.unpack("=iii", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    except OSError:
        return 0
    return int(pid)


def is_non_blocking(sock: socket.socket) -> bool:
    """Whether O_NONBLOCK is set. The flag belongs to the open file, which the sandbox shares."""
    return bool(fcntl.fcntl(sock.fileno(), fcntl.F_GETFL) & os.O_NONBLOCK)


def expect_interrupts() -> None:
    """Once, in the main thread: INTERRUPT ends a ``connect_now`` that waits, and does nothing else."""
    signal.signal(INTERRUPT, lambda _number, _frame: None)  # without SA_RESTART


def connect_now(sock: socket.socket, target: tuple[str | int, ...] | str) -> tuple[int, bool]:
    """connect(2) without waiting for the other side: an errno, 0 for done; and whether O_NONBLOCK was set already.

    It is set for the connect alone. The sandbox can take it away meanwhile: then this waits until the calling thread is
    sent INTERRUPT, which it holds back otherwise.
    """
    polls = is_non_blocking(sock)
    sock.setblocking(False)
    _INTERRUPTS.unblock()
    try:
        error = sock.connect_ex(target)
        if error == errno.EINPROGRESS and not polls:
            error = sock.connect_ex(target)  # a listener on this machine: done already
            if error == errno.EALREADY:
                error = errno.EINPROGRESS
    finally:
        _INTERRUPTS.block()
        if not polls:
            sock.setblocking(True)
    if error == errno.EINTR:
        error = errno.EAGAIN if sock.family == socket.AF_UNIX else errno.EINPROGRESS
    return error, polls


def is_connected(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


def is_settled(sock: socket.socket, within: int = 0) -> bool:
    """Whether a connect that was under way has succeeded or failed, now or ``within`` this many milliseconds."""
    return is_ready(sock.fileno(), select.POLLOUT, within)


def has_hung_up(sock: socket.socket) -> bool:
    """Whether it is not connected and not about to be, or has ended; poll(2) waits for no lock."""
    return is_ready(sock.fileno(), 0)


def failure_of(sock: socket.socket) -> int:
    """SO_ERROR, which is taken back by that: of sockets of our own."""
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def send_timeout(sock: socket.socket) -> float | None:
    """SO_SNDTIMEO in seconds, None for no limit; it also bounds a blocking connect, socket(7)."""
    seconds, microseconds = struct.unpack("=qq", sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, 16))
    return seconds + microseconds / 1e6 if seconds or microseconds else None


# rtnetlink(7), linux/rtnetlink.h: struct nlmsghdr, struct rtmsg, one attribute RTA_DST.
_RTM_GETROUTE, _NLM_F_REQUEST, _NLMSG_ERROR, _RTA_DST, _RTN_LOCAL = 26, 1, 2, 1, 2
_MESSAGE, _ROUTE, _ATTRIBUTE = struct.Struct("=IHHII"), struct.Struct("=BBBBBBBBI"), struct.Struct("=HH")


def is_own_interface(address: str, family: int) -> bool:
    """Whether packets to this numeric address stay on this machine: whether Linux's route to it is a local one.

    (The source address of a connected probe does not say it: for a second address of an interface that is the first.)
    """
    where = socket.inet_pton(family, address)
    route = _ROUTE.pack(family, 8 * len(where), 0, 0, 0, 0, 0, 0, 0) + _ATTRIBUTE.pack(4 + len(where), _RTA_DST) + where
    header = _MESSAGE.pack(_MESSAGE.size + len(route), _RTM_GETROUTE, _NLM_F_REQUEST, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as asking:
        asking.settimeout(1.0)
        asking.sendto(header + route, (0, 0))
        reply = asking.recv(4096)
    _length, kind, *_ = _MESSAGE.unpack_from(reply)
    return bool(kind != _NLMSG_ERROR and _ROUTE.unpack_from(reply, _MESSAGE.size)[7] == _RTN_LOCAL)
