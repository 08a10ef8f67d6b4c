"""The filter answers every call number and boundary argument as the table says, and the table says what we promise."""

from __future__ import annotations

import errno
import platform
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pyseccomp
import pytest

from sandboxed_kernel.confinement.compile_filter import compile_filter, return_value
from sandboxed_kernel.confinement.filters import load_program
from sandboxed_kernel.confinement.numbers import AUDIT_ARCH, NUMBERS, X32_BIT
from sandboxed_kernel.confinement.syscalls import (
    ALL64,
    ALLOW,
    DEFAULT,
    KILL,
    NOTIFIED,
    NOTIFY,
    ROWS,
    TABLE,
    Condition,
    decide,
)
from sandboxed_kernel.errors import HostError
from tests.support.bpf import Machine

MACHINES = sorted(NUMBERS)
PROGRAMS = {machine: Machine(compile_filter(machine)) for machine in MACHINES}
HIGH = 1 << 32
NO_ARGS = (0,) * 6

# Written out once more, independently of return_value().
RET_ALLOW, RET_NOTIFY, RET_KILL = 0x7FFF0000, 0x7FC00000, 0x80000000


def words(text: str) -> list[str]:
    return text.split()


def error(number: int) -> int:
    return 0x50000 | number


def answer(name: str, *args: int, machine: str = "x86_64") -> int:
    padded = (*args, *NO_ARGS)[:6]
    return PROGRAMS[machine].run(NUMBERS[machine][name], AUDIT_ARCH[machine], padded)[0]


# --- the program is the table ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("machine", MACHINES)
def test_the_kept_program_is_the_compiled_table(machine: str) -> None:
    assert load_program(machine) == compile_filter(machine), (
        "run: python -m sandboxed_kernel.confinement.compile_filter"
    )


@pytest.mark.parametrize("machine", MACHINES)
def test_every_number_without_arguments(machine: str) -> None:
    beyond = (1024, 4095, X32_BIT - 1, 1 << 31, 0xFFFFFFFE, 0xFFFFFFFF)
    for nr in (*range(1024), *beyond):
        for args in (NO_ARGS, (ALL64,) * 6):
            expected = return_value(decide(machine, AUDIT_ARCH[machine], nr, args))
            assert PROGRAMS[machine].run(nr, AUDIT_ARCH[machine], args)[0] == expected, (nr, args)


def test_x32_numbers_kill() -> None:
    for nr in (*range(X32_BIT, X32_BIT + 1024), X32_BIT | 1 << 31, 0x7FFFFFFF, 0xFFFFFFFE):
        assert PROGRAMS["x86_64"].run(nr, AUDIT_ARCH["x86_64"], NO_ARGS)[0] == RET_KILL, nr


@pytest.mark.parametrize("machine", MACHINES)
def test_foreign_architectures_kill(machine: str) -> None:
    i386, arm, x32_like, odd = 0x40000003, 0x40000028, 0x4000003E, 0
    others = {i386, arm, x32_like, odd, *AUDIT_ARCH.values()} - {AUDIT_ARCH[machine]}
    for arch, nr in product(others, range(512)):
        assert PROGRAMS[machine].run(nr, arch, NO_ARGS)[0] == RET_KILL, (arch, nr)
        assert decide(machine, arch, nr, NO_ARGS) == KILL


def boundary_values(conditions: list[Condition]) -> list[int]:
    """For one argument: each value compared with, its neighbours, with high bits, each single bit of small masks."""
    values = {0, 1, 2, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, HIGH, 1 << 63, ALL64}
    for condition in conditions:
        for value in condition.values:
            values |= {value, value + 1, (value - 1) & ALL64, value | HIGH, value | 1 << 63, value | 0x80000000}
        if condition.mask not in (0xFFFFFFFF, ALL64):
            values |= {1 << bit for bit in range(64) if condition.mask >> bit & 1 and condition.mask < HIGH >> 1}
            values |= {condition.mask, ~condition.mask & ALL64}
    return sorted(values)


def boundary_arguments(name: str) -> Iterator[tuple[int, ...]]:
    conditions: dict[int, list[Condition]] = {}
    for row in ROWS[name]:
        for condition in row.conditions:
            conditions.setdefault(condition.arg, []).append(condition)
    arguments = sorted(conditions)
    for values in product(*(boundary_values(conditions[arg]) for arg in arguments)):
        args = [0x1234567812345678] * 6  # the arguments that no row names
        for arg, value in zip(arguments, values, strict=True):
            args[arg] = value
        yield tuple(args)


def conditional_names() -> list[str]:
    return sorted(name for name, rows in ROWS.items() if len(rows) > 1)


@pytest.mark.parametrize("name", conditional_names())
def test_every_conditional_call_at_its_boundaries(name: str) -> None:
    machine = "x86_64" if name in NUMBERS["x86_64"] else "aarch64"
    run, nr, arch = PROGRAMS[machine].run, NUMBERS[machine][name], AUDIT_ARCH[machine]
    rows = ROWS[name]
    checked = 0
    for args in boundary_arguments(name):
        expected = next(row.action for row in rows if all(condition.holds(args) for condition in row.conditions))
        assert run(nr, arch, args)[0] == return_value(expected), (name, [hex(arg) for arg in args])
        checked += 1
    assert checked > 8


# --- the table is whole ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("machine", MACHINES)
def test_every_number_up_to_470_has_a_row(machine: str) -> None:
    assert set(NUMBERS[machine]) <= set(ROWS)
    assert max(NUMBERS[machine].values()) >= 470
    assert len(set(NUMBERS[machine].values())) == len(NUMBERS[machine])


def test_every_row_names_a_call_and_a_reason() -> None:
    known = set().union(*NUMBERS.values())
    for row in TABLE:
        assert row.name in known
        assert row.reason
    for name, rows in ROWS.items():
        assert not rows[-1].conditions, f"{name}: the last row must answer what no other did"
        assert all(row.conditions for row in rows[:-1]), f"{name}: a row is never reached"


@pytest.mark.parametrize("machine", MACHINES)
def test_the_numbers_are_libseccomps(machine: str) -> None:
    """A second opinion, as far as this libseccomp knows the names."""
    arch = {"x86_64": pyseccomp.Arch.X86_64, "aarch64": pyseccomp.Arch.AARCH64}[machine]
    known = 0
    for name, number in NUMBERS[machine].items():
        theirs = pyseccomp.resolve_syscall(arch, name)
        assert theirs in (number, -1), name
        known += theirs == number
    assert known > 300
    names = {number: name for name, number in NUMBERS[machine].items()}
    for number in set(range(471)) - set(names):
        with pytest.raises(ValueError, match="Unknown syscall"):
            pyseccomp.resolve_syscall(arch, number)


def test_the_numbers_are_this_machines_headers() -> None:
    machine = platform.machine()
    headers = {
        "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
        "aarch64": Path("/usr/include/asm-generic/unistd.h"),
    }
    if machine not in headers or not headers[machine].exists():
        pytest.skip("no Linux headers here")
    found = re.findall(r"^#define __NR_(\w+) (\d+)$", headers[machine].read_text(), re.MULTILINE)
    theirs = {name: int(number) for name, number in found if name not in ("syscalls", "arch_specific_syscall")}
    assert len(theirs) > 250
    assert {name: NUMBERS[machine].get(name) for name in theirs if theirs[name] <= 470} == {
        name: number for name, number in theirs.items() if number <= 470
    }


def test_numbers_from_424_on_are_the_same_everywhere() -> None:
    new = [{name: number for name, number in numbers.items() if number >= 424} for numbers in NUMBERS.values()]
    assert new[0] == new[1]


@pytest.mark.parametrize("machine", ["riscv64", "i686", "", "../x86_64", "x86_64\0"])
def test_a_machine_without_a_table_is_the_hosts_fault(machine: str) -> None:
    with pytest.raises(HostError):
        load_program(machine)


# --- speed -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", ["read", "write", "recvmsg", "futex", "mmap", "epoll_pwait", "newfstatat", "accept4"])
def test_linux_answers_the_hot_calls_without_running_the_filter(machine: str, name: str) -> None:
    """seccomp's action cache, Linux 5.11: calls whose answer depends on the number alone, and is ALLOW."""
    nr, arch = NUMBERS[machine][name], AUDIT_ARCH[machine]
    assert not PROGRAMS[machine].reads_arguments(nr, arch)
    value, steps = PROGRAMS[machine].run(nr, arch, NO_ARGS)
    assert (value, steps <= 13) == (RET_ALLOW, True)


@pytest.mark.parametrize(
    ("name", "args", "most"),
    [
        ("openat", (0, 0, 0o2000000, 0), 18),
        ("ioctl", (0, 0x5401), 24),
        ("ioctl", (0, 0x5421), 24),
        ("sendto", (3, 1, 1, 0, 0, 0), 22),
        ("sendmsg", (3, 1, 0), 18),
        ("fcntl", (3, 4), 18),
        ("socket", (2, 1, 0), 13),
        ("setsockopt", (3, 6, 1), 50),
    ],
)
def test_frequent_conditional_calls_take_few_instructions(name: str, args: tuple[int, ...], most: int) -> None:
    for machine in MACHINES:
        _, steps = PROGRAMS[machine].run(NUMBERS[machine][name], AUDIT_ARCH[machine], (*args, *NO_ARGS)[:6])
        assert steps <= most, machine


# --- what we promise, by hand --------------------------------------------------------------------------------------

NEVER: list[tuple[str, int]] = [
    *((name, errno.ENOSYS) for name in words("""
        io_uring_setup io_uring_enter io_uring_register clone3 openat2 shmget shmat shmctl shmdt semget semop semctl
        semtimedop msgget msgsnd msgrcv msgctl mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr
        add_key request_key keyctl memfd_secret process_madvise process_mrelease statmount listmount listns file_setattr
        """)),
    *((name, errno.EPERM) for name in words("""
        ptrace process_vm_readv process_vm_writev pidfd_getfd kcmp bpf perf_event_open userfaultfd mount umount2
        pivot_root chroot open_tree open_tree_attr move_mount fsopen fsconfig fsmount fspick mount_setattr setns
        open_by_handle_at fanotify_init init_module finit_module delete_module kexec_load kexec_file_load reboot swapon
        swapoff settimeofday clock_settime adjtimex clock_adjtime acct quotactl quotactl_fd syslog vhangup sethostname
        setdomainname iopl ioperm""")),
]  # fmt: skip


@pytest.mark.parametrize(("name", "number"), NEVER)
def test_never(name: str, number: int) -> None:
    for machine in MACHINES:
        if name in NUMBERS[machine]:
            for args in (NO_ARGS, (1,) * 6, (ALL64,) * 6):
                assert answer(name, *args, machine=machine) == error(number), (machine, args)


ASKED = words("""
    socket connect bind listen chmod fchmod fchmodat fchmodat2 chown lchown fchown fchownat utime utimes utimensat
    futimesat setxattr lsetxattr fsetxattr setxattrat removexattr lremovexattr fremovexattr removexattrat symlink
    symlinkat""")


@pytest.mark.parametrize("name", ASKED)
def test_always_asked(name: str) -> None:
    for machine in MACHINES:
        if name in NUMBERS[machine]:
            for args in (NO_ARGS, (2, 1, 0, 0, 0, 0), (0x100000002, 1, 0, 0, 0, 0), (ALL64,) * 6):
                assert answer(name, *args, machine=machine) == RET_NOTIFY, (machine, args)


def test_what_the_broker_must_answer() -> None:
    sometimes = {
        "sendto", "ioctl", "prlimit64", "setpriority", "ioprio_set", "sched_setaffinity", "sched_setscheduler",
        "sched_setparam", "sched_setattr", "open", "openat",
    }  # fmt: skip
    assert sometimes | set(ASKED) == NOTIFIED


FASTOPEN, SUID, SGID, O_CREAT, O_TMPFILE, O_EXCL = 0x20000000, 0o4000, 0o2000, 0o100, 0o20200000, 0o200
CLONE_NEWUSER, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWTIME, CLONE_PARENT = 0x10000000, 0x40000000, 0x20000, 0x80, 0x8000
THREAD_FLAGS = 0x3D0F00  # what glibc's pthread_create passes
CLOEXEC, NONBLOCK = 0o2000000, 0o4000

BY_HAND: list[tuple[str, tuple[int, ...], int]] = [
    # an address pointer is 64 bits wide
    ("sendto", (3, 1, 1, 0, 0, 0), RET_ALLOW),
    ("sendto", (3, 1, 1, 0x4000, 0, 16), RET_ALLOW),  # MSG_NOSIGNAL
    ("sendto", (3, 1, 1, 0, 1, 16), RET_NOTIFY),
    ("sendto", (3, 1, 1, 0, HIGH, 16), RET_NOTIFY),
    ("sendto", (3, 1, 1, 0, 1 << 63, 16), RET_NOTIFY),
    # MSG_FASTOPEN among any other flags
    ("sendto", (3, 1, 1, FASTOPEN, 1, 16), error(errno.EOPNOTSUPP)),
    ("sendto", (3, 1, 1, FASTOPEN | 0x4040 | HIGH, 0, 0), error(errno.EOPNOTSUPP)),
    ("sendmsg", (3, 1, FASTOPEN | 0x4000), error(errno.EOPNOTSUPP)),
    ("sendmmsg", (3, 1, 1, FASTOPEN | 0x40), error(errno.EOPNOTSUPP)),
    ("sendmsg", (3, 1, 0x4040), RET_ALLOW),
    ("sendmmsg", (3, 1, FASTOPEN, 0), RET_ALLOW),  # vlen, not flags
    # socketpair
    ("socketpair", (1, 1, 0), RET_ALLOW),
    ("socketpair", (1, 5 | CLOEXEC | NONBLOCK, 0), RET_ALLOW),
    ("socketpair", (1 | HIGH, 1 | HIGH, HIGH), RET_ALLOW),  # the same to Linux
    ("socketpair", (1, 2, 0), error(errno.EPROTONOSUPPORT)),
    ("socketpair", (1, 3, 0), error(errno.EPROTONOSUPPORT)),  # SOCK_RAW is SOCK_DGRAM here
    ("socketpair", (1, 3 | CLOEXEC, 0), error(errno.EPROTONOSUPPORT)),
    ("socketpair", (1, 0x11, 0), error(errno.EPROTONOSUPPORT)),
    ("socketpair", (1, 1, 1), error(errno.EPROTONOSUPPORT)),
    ("socketpair", (2, 1, 0), error(errno.EPROTONOSUPPORT)),
    ("socketpair", (16 | HIGH, 1, 0), error(errno.EPROTONOSUPPORT)),
    # creating files
    ("openat", (0, 0, O_CREAT, 0o644), RET_ALLOW),
    ("openat", (0, 0, O_CREAT | O_EXCL, SUID | 0o755), error(errno.EPERM)),
    ("openat", (0, 0, O_CREAT, SGID | HIGH), error(errno.EPERM)),
    ("openat", (0, 0, O_TMPFILE, SUID), error(errno.EPERM)),
    ("openat", (0, 0, 0, SUID), RET_ALLOW),  # no mode without O_CREAT: the register holds what it held before
    ("openat", (0, 0, CLOEXEC, ALL64), RET_ALLOW),
    # what may be the name of an own thread: to be written as it is
    ("openat", (0, 0, 2, 0), RET_NOTIFY),
    ("openat", (0, 0, 1 | CLOEXEC, ALL64), RET_NOTIFY),
    ("openat", (0, 0, 1 | CLOEXEC | 0o100000 | HIGH, 0), RET_NOTIFY),  # as musl opens it
    ("open", (0, 2 | CLOEXEC, 0), RET_NOTIFY),
    ("openat", (0, 0, CLOEXEC, 0), RET_ALLOW),
    ("openat", (0, 0, 1 | O_CREAT | 0o1000 | CLOEXEC, 0o644), RET_ALLOW),  # the everyday way to write a file
    ("openat", (0, 0, 1 | 0o2000, 0), RET_ALLOW),  # O_APPEND
    ("openat", (0, 0, 3, 0), RET_ALLOW),  # Linux' own third mode gives no right to read or write
    ("open", (0, O_CREAT, SUID), error(errno.EPERM)),
    ("open", (0, O_CREAT, 0o777), RET_ALLOW),
    ("creat", (0, SUID | 0o700), error(errno.EPERM)),
    ("creat", (0, 0o700), RET_ALLOW),
    ("mknod", (0, 0o100644, 0), RET_ALLOW),
    ("mknod", (0, 0o010644, 0), RET_ALLOW),
    ("mknod", (0, 0o644, 0), RET_ALLOW),
    ("mknod", (0, 0o020644, 0x103), error(errno.EPERM)),
    ("mknod", (0, 0o060644, 0x800), error(errno.EPERM)),
    ("mknod", (0, 0o140644, 0), error(errno.EPERM)),
    ("mknodat", (0, 0, 0o104755, 0), error(errno.EPERM)),
    ("mknodat", (0, 0, 0o020644 | HIGH, 0x103), error(errno.EPERM)),
    # processes
    ("clone", (0x11,), RET_ALLOW),
    ("clone", (THREAD_FLAGS,), RET_ALLOW),
    ("clone", (0x11 | CLONE_NEWUSER,), error(errno.EPERM)),
    ("clone", (THREAD_FLAGS | CLONE_NEWNET | HIGH,), error(errno.EPERM)),
    ("clone", (0x11 | CLONE_NEWNS,), error(errno.EPERM)),
    ("clone", (0x11 | CLONE_PARENT,), error(errno.EPERM)),
    ("unshare", (CLONE_NEWTIME,), error(errno.EPERM)),
    ("unshare", (CLONE_NEWUSER | 0x400,), error(errno.EPERM)),
    ("unshare", (0x400,), RET_ALLOW),  # CLONE_FILES
    ("prlimit64", (0, 7, 1, 1), RET_ALLOW),
    ("prlimit64", (HIGH, 7, 1, 1), RET_ALLOW),  # pid 0 to Linux
    ("prlimit64", (1, 7, 0, 1), RET_ALLOW),
    ("prlimit64", (1, 0, 1, 0), RET_NOTIFY),
    ("prlimit64", (1, 0, HIGH, 0), RET_NOTIFY),
    ("sched_setaffinity", (0, 8, 1), RET_ALLOW),
    ("sched_setaffinity", (1, 8, 1), RET_NOTIFY),
    ("sched_setattr", (0xFFFFFFFF, 1, 0), RET_NOTIFY),
    ("setpriority", (0, 0, 5), RET_ALLOW),
    ("setpriority", (0, 42, 5), RET_NOTIFY),
    ("setpriority", (1, 0, 5), RET_NOTIFY),  # a group reaches further than the caller
    ("setpriority", (1, 42, 5), RET_NOTIFY),
    ("setpriority", (2, 0, 5), error(errno.EPERM)),  # PRIO_USER 0: every process of the user
    ("setpriority", (2 | HIGH, 0, 5), error(errno.EPERM)),
    ("ioprio_set", (1, 0, 0), RET_ALLOW),
    ("ioprio_set", (1, 42, 0), RET_NOTIFY),
    ("ioprio_set", (2, 0, 0), RET_NOTIFY),
    ("ioprio_set", (3, 0, 0), error(errno.EPERM)),
    ("move_pages", (0, 0, 0), RET_ALLOW),
    ("migrate_pages", (42, 0, 0), error(errno.EPERM)),
    ("seccomp", (1, 0, 1), RET_ALLOW),
    ("seccomp", (1, 8, 1), error(errno.EPERM)),
    ("seccomp", (1, 8 | 1 | 16 | HIGH, 1), error(errno.EPERM)),
    ("personality", (0xFFFFFFFF,), RET_ALLOW),
    ("personality", (0x0400000,), error(errno.EPERM)),
    ("fcntl", (3, 1024, 1), error(errno.EINVAL)),
    ("fcntl", (3, 2, 1), RET_ALLOW),
    # prctl
    ("prctl", (1, 9), RET_ALLOW),
    ("prctl", (1, 0), error(0)),
    ("prctl", (1, 9 | HIGH), error(0)),
    ("prctl", (1 | HIGH, 0), error(0)),
    ("prctl", (4, 0), error(0)),
    ("prctl", (4 | HIGH, 0), error(0)),
    ("prctl", (4, 1), RET_ALLOW),
    ("prctl", (15, 1), RET_ALLOW),
    ("prctl", (35, 1), error(errno.EINVAL)),  # PR_SET_MM
    ("prctl", (0x59616D61, ALL64), error(errno.EINVAL)),  # PR_SET_PTRACER
    ("prctl", (59, 1), error(errno.EINVAL)),
    # ioctl
    ("ioctl", (3, 0x5441), RET_NOTIFY),
    ("ioctl", (3, 0x5441 | HIGH), RET_NOTIFY),
    ("ioctl", (3, 0x5412), error(errno.EPERM)),
    ("ioctl", (3, 0x100005412), error(errno.EPERM)),
    ("ioctl", (3, 0xFFFFFFFF00005412), error(errno.EPERM)),
    ("ioctl", (3, 0x541C), error(errno.EPERM)),
    ("ioctl", (3, 0x4B47), error(errno.EPERM)),
    ("ioctl", (3, 0x5606), error(errno.EPERM)),
    ("ioctl", (3, 0x40086602), error(errno.ENOTTY)),  # FS_IOC_SETFLAGS
    ("ioctl", (3, 0x80086601), RET_ALLOW),  # FS_IOC_GETFLAGS
    ("ioctl", (3, 0x401C5820), error(errno.ENOTTY)),  # FS_IOC_FSSETXATTR
    ("ioctl", (3, 0x40806685), error(errno.ENOTTY)),  # FS_IOC_ENABLE_VERITY
    ("ioctl", (3, 0x50009401), error(errno.ENOTTY)),  # BTRFS_IOC_SNAP_CREATE
    ("ioctl", (3, 0x40049409), RET_ALLOW),  # FICLONE
    ("ioctl", (3, 0x40047211), error(errno.ENOTTY)),
    ("ioctl", (3, 0x8914), error(errno.EPERM)),  # SIOCSIFFLAGS
    ("ioctl", (3, 0x890B), error(errno.EPERM)),  # SIOCADDRT
    ("ioctl", (3, 0x8912), RET_ALLOW),
    ("ioctl", (3, 0x4C00), error(errno.EPERM)),
    ("ioctl", (3, 0x5401), RET_ALLOW),
    ("ioctl", (3, 0x5414), RET_ALLOW),  # TIOCSWINSZ
    # nobody's number
    ("lookup_dcookie", (), error(errno.ENOSYS)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "args", "expected"), BY_HAND)
def test_by_hand(name: str, args: tuple[int, ...], expected: int) -> None:
    for machine in MACHINES:
        if name in NUMBERS[machine]:
            assert hex(answer(name, *args, machine=machine)) == hex(expected), machine


SOCKET, IP, TCP, IPV6 = 1, 0, 6, 41
# (level, options): asm-generic/socket.h, linux/in.h, linux/in6.h, linux/tcp.h
NEVER_SET: list[tuple[int, dict[str, int]]] = [
    (SOCKET, {
        "SO_BINDTODEVICE": 25, "SO_BINDTOIFINDEX": 62, "SO_ATTACH_FILTER": 26, "SO_DETACH_FILTER": 27, "SO_MARK": 36,
        "SO_RCVMARK": 75, "SO_ATTACH_BPF": 50, "SO_ATTACH_REUSEPORT_CBPF": 51, "SO_ATTACH_REUSEPORT_EBPF": 52,
        "SO_DETACH_REUSEPORT_BPF": 68, "SO_LOCK_FILTER": 44, "SO_DONTROUTE": 5, "SO_SNDBUFFORCE": 32,
    }),
    (IP, {
        "IP_OPTIONS": 4, "IP_HDRINCL": 3, "IP_FREEBIND": 15, "IP_TRANSPARENT": 19, "IP_UNICAST_IF": 50,
        "IP_MULTICAST_IF": 32, "IP_ADD_MEMBERSHIP": 35, "IP_LOCAL_PORT_RANGE": 51, "IP_RETOPTS": 7,
    }),
    (IPV6, {
        "IPV6_ADDRFORM": 1, "IPV6_2292PKTINFO": 2, "IPV6_2292HOPOPTS": 3, "IPV6_2292DSTOPTS": 4, "IPV6_2292RTHDR": 5,
        "IPV6_2292PKTOPTIONS": 6, "IPV6_FLOWINFO_SEND": 33, "IPV6_FLOWLABEL_MGR": 32, "IPV6_PKTINFO": 50,
        "IPV6_HOPOPTS": 54, "IPV6_RTHDRDSTOPTS": 55, "IPV6_RTHDR": 57, "IPV6_DSTOPTS": 59, "IPV6_TRANSPARENT": 75,
        "IPV6_UNICAST_IF": 76, "IPV6_FREEBIND": 78, "IPV6_NEXTHOP": 9,
    }),
    (TCP, {
        "TCP_REPAIR": 19, "TCP_REPAIR_QUEUE": 20, "TCP_QUEUE_SEQ": 21, "TCP_REPAIR_OPTIONS": 22,
        "TCP_REPAIR_WINDOW": 29, "TCP_FASTOPEN": 23, "TCP_FASTOPEN_CONNECT": 30, "TCP_ULP": 31, "TCP_FASTOPEN_KEY": 33,
        "TCP_FASTOPEN_NO_COOKIE": 34, "TCP_MD5SIG": 14,
    }),
    (255, {"SOL_RAW": 1}), (284, {"SOL_MPTCP": 1}), (263, {"SOL_PACKET": 1}), (279, {"SOL_ALG": 1}),
    (282, {"SOL_TLS": 1}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("level", "number"), [(level, number) for level, options in NEVER_SET for number in options.values()]
)
def test_a_socket_option_that_is_never_set(level: int, number: int) -> None:
    for level_bits, number_bits in product((0, HIGH, 1 << 63), repeat=2):
        for machine in MACHINES:
            got = answer("setsockopt", 3, level | level_bits, number | number_bits, 1, 4, machine=machine)
            assert got == error(errno.ENOPROTOOPT)


@pytest.mark.parametrize(
    ("level", "number", "expected"),
    [
        (SOCKET, 2, RET_ALLOW),  # SO_REUSEADDR
        (SOCKET, 15, error(0)),  # SO_REUSEPORT: success that takes no effect
        (SOCKET, 15 | HIGH, error(0)),
        (SOCKET | HIGH, 15, error(0)),
        (TCP, 1, RET_ALLOW),
        (IP, 11, error(0)),  # IP_RECVERR: glibc's resolver asks for it
        (IPV6, 25, error(0)),
        (IPV6, 26, RET_ALLOW),  # IPV6_V6ONLY
        (IPV6, 2, error(errno.ENOPROTOOPT)),  # not SO_REUSEADDR at this level
        (2, 1, error(errno.ENOPROTOOPT)),
    ],
)
def test_socket_options_by_hand(level: int, number: int, expected: int) -> None:
    assert answer("setsockopt", 3, level, number, 1, 4) == expected


EVERYDAY = words("""
    read write openat close mmap munmap mprotect brk rt_sigaction rt_sigprocmask rt_sigreturn restart_syscall
    set_robust_list rseq getrandom memfd_create copy_file_range io_submit signalfd4 timerfd_create inotify_init1 splice
    tee sync_file_range pkey_mprotect clock_gettime clock_nanosleep times sched_yield sched_getaffinity futex execve
    execveat wait4 waitid kill tgkill pidfd_open pidfd_send_signal statx getdents64 renameat2 linkat unlinkat
    faccessat2 close_range membarrier landlock_create_ruleset accept4 recvmsg recvmmsg getsockopt shutdown prlimit64
    arch_prctl epoll_pwait2 futex_waitv mseal uretprobe""")


@pytest.mark.parametrize("name", EVERYDAY)
def test_everyday_calls_are_allowed(name: str) -> None:
    for machine in MACHINES:
        if name in NUMBERS[machine]:
            assert answer(name, machine=machine) == RET_ALLOW, machine


def test_what_is_not_in_the_table_does_not_exist() -> None:
    for machine in MACHINES:
        used = set(NUMBERS[machine].values())
        for nr in sorted(set(range(1024)) - used):
            assert PROGRAMS[machine].run(nr, AUDIT_ARCH[machine], NO_ARGS)[0] == error(errno.ENOSYS)
    assert return_value(DEFAULT) == error(errno.ENOSYS)
    assert (return_value(ALLOW), return_value(NOTIFY), return_value(KILL)) == (RET_ALLOW, RET_NOTIFY, RET_KILL)
