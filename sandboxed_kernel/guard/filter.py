"""Pure: the system calls that the guard can make once it is confined: a table with a reason per row.

It gets connected sockets and can make none: no socket(2), connect(2), bind(2), accept(2), no open(2), no exec or fork.
What is not in the table fails with EPERM. Landlock stands behind it, with nothing allowed.
"""

from __future__ import annotations

import errno
import struct

from sandboxed_kernel.confinement.numbers import (
    ARCH_OFFSET,
    ARGS_OFFSET,
    AUDIT_ARCH,
    IF_ANY_BIT,
    IF_EQUAL,
    LOAD,
    NR_OFFSET,
    NUMBERS,
    RET_ALLOW,
    RET_ERRNO,
    RET_KILL_PROCESS,
    RETURN,
    X32_BIT,
)
from sandboxed_kernel.errors import HostError
from sandboxed_kernel.records import Record

_REFUSE = RET_ERRNO | errno.EPERM

SOL_SOCKET, SO_LINGER = 1, 13  # asm-generic/socket.h
SIOCOUTQ = 0x5411  # linux/sockios.h, the number of TIOCOUTQ
MSG_FASTOPEN = 0x20000000  # linux/socket.h: sendto(2) with it connects


class Call(Record):
    """Allowed where each argument (index, value) is as said: the low 32 bits, since these are ints to Linux; and where
    of another (index, bits) none is set.
    """

    name: str
    reason: str
    equal: tuple[tuple[int, int], ...] = ()
    none_of: tuple[tuple[int, int], ...] = ()
    null: tuple[int, ...] = ()  # pointers that are NULL, all 64 bits


CALLS = (
    Call("recvmsg", "connections from the broker"),
    Call("recvfrom", "bytes"),
    # To where the socket is connected, and never by TCP Fast Open, which would connect it anew once it is closed.
    Call("sendto", "bytes", none_of=((3, MSG_FASTOPEN),), null=(4,)),
    Call("shutdown", "the end of one direction"),
    Call("close", "the end of both"),
    Call("setsockopt", "a reset, where the other side has reset", equal=((1, SOL_SOCKET), (2, SO_LINGER))),
    Call("getsockopt", "what went wrong with a socket"),
    Call("getsockname", "Python asks when it takes a descriptor"),
    Call("ioctl", "whether all that was sent has arrived", equal=((1, SIOCOUTQ),)),
    Call("epoll_wait", "waiting"),
    Call("epoll_pwait", "waiting, on aarch64"),
    Call("epoll_ctl", "what is waited for"),
    Call("clock_gettime", "time, where the vDSO has none"),
    Call("mmap", "memory"),
    Call("munmap", "memory"),
    Call("mremap", "memory"),
    Call("madvise", "memory"),
    Call("brk", "memory"),
    Call("futex", "the interpreter's lock"),
    Call("getrandom", "Python's hashes"),
    Call("rt_sigreturn", "a signal's end"),
    Call("rt_sigaction", "Python's end"),
    Call("rt_sigprocmask", "Python's end"),
    Call("sigaltstack", "Python's end"),
    Call("restart_syscall", "a wait that was stopped, signal(7)"),
    Call("write", "last words", equal=((0, 2),)),
    Call("exit", "the end"),
    Call("exit_group", "the end"),
)


def compile_filter(machine: str) -> bytes:
    """The program for ``machine`` as an array of struct sock_filter, seccomp(2). Raises HostError."""
    if machine not in NUMBERS:
        raise HostError(f'no system call table for machine "{machine}"')
    numbers = NUMBERS[machine]
    code = [
        (LOAD, 0, 0, ARCH_OFFSET),
        (IF_EQUAL, 1, 0, AUDIT_ARCH[machine]),
        (RETURN, 0, 0, RET_KILL_PROCESS),
        (LOAD, 0, 0, NR_OFFSET),
    ]
    if machine == "x86_64":
        code += [(IF_ANY_BIT, 0, 1, X32_BIT), (RETURN, 0, 0, RET_KILL_PROCESS)]
    for call in CALLS:
        if call.name in numbers:
            block = _block(call)
            code += [(IF_EQUAL, 0, len(block), numbers[call.name]), *block]
    code.append((RETURN, 0, 0, _REFUSE))
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in code)


def _block(call: Call) -> list[tuple[int, int, int, int]]:
    """What is answered to one call; it ends in an answer in any case."""
    tests: list[tuple[int, int, int, int, int]] = []  # word, code, value, and the jumps where it holds and does not
    tests += [(ARGS_OFFSET + 8 * index, IF_EQUAL, value, 1, 0) for index, value in call.equal]
    tests += [(ARGS_OFFSET + 8 * index, IF_ANY_BIT, bits, 0, 1) for index, bits in call.none_of]
    tests += [(ARGS_OFFSET + 8 * index + half, IF_EQUAL, 0, 1, 0) for index in call.null for half in (0, 4)]
    block: list[tuple[int, int, int, int]] = []
    for word, code, value, if_true, if_false in tests:
        block += [(LOAD, 0, 0, word), (code, if_true, if_false, value), (RETURN, 0, 0, _REFUSE)]
    return [*block, (RETURN, 0, 0, RET_ALLOW)]
