"""The guard's filter, simulated over every call number: it allows its table and nothing else."""

from __future__ import annotations

import pytest

from sandboxed_kernel.confinement.numbers import AUDIT_ARCH, NUMBERS, X32_BIT
from sandboxed_kernel.guard.filter import CALLS, MSG_FASTOPEN, SIOCOUTQ, SO_LINGER, SOL_SOCKET, compile_filter
from tests.support.bpf import Machine

ALLOW, KILL, REFUSE = 0x7FFF0000, 0x80000000, 0x00050001
HIGH = 1 << 32  # a bit that Linux does not look at in an int
BAD: dict[str, tuple[tuple[int, ...], ...]] = {  # arguments with which a call of the table is refused
    "sendto": (
        (3, 0, 1, MSG_FASTOPEN, 0, 0),
        (3, 0, 1, 0, 1, 16),
        (3, 0, 1, 0, HIGH, 16),
        (3, 0, 1, -1 & 0xFFFFFFFF, 0),
    ),
    "setsockopt": ((3, SOL_SOCKET, 2, 0, 0, 0), (3, 6, SO_LINGER, 0, 0, 0), (3, 0, 21, 0, 0, 0)),
    "ioctl": ((3, 0x5421, 0, 0, 0, 0), (3, 0x5412, 0, 0, 0, 0)),
    "write": ((3, 0, 1, 0, 0, 0), (1, 0, 1, 0, 0, 0)),
}
GOOD: dict[str, tuple[tuple[int, ...], ...]] = {
    "sendto": ((3, 0x7FFF00000000, 9, 0x4000, 0, 0), (3 + HIGH, 1, 9, HIGH, 0, 16)),
    "setsockopt": ((3, SOL_SOCKET, SO_LINGER, 1, 8, 0),),
    "ioctl": ((3, SIOCOUTQ, 5, 0, 0, 0),),
    "write": ((2, 5, 5, 0, 0, 0),),
}


@pytest.mark.parametrize("machine", NUMBERS)
def test_it_allows_its_table_and_nothing_else(machine: str) -> None:
    program, arch = Machine(compile_filter(machine)), AUDIT_ARCH[machine]
    table = {NUMBERS[machine][call.name]: call for call in CALLS if call.name in NUMBERS[machine]}
    for number in range(600):
        found = program.run(number, arch, (0,) * 6)[0]
        call = table.get(number)
        simple = call is not None and not (call.equal or call.none_of or call.null)
        conditional = call is not None and call.name in BAD
        assert simple or conditional or found == REFUSE, number
        assert not simple or found == ALLOW, number
    for name, cases in BAD.items():
        for arguments in cases:
            given = (*arguments, 0, 0, 0, 0, 0, 0)[:6]
            assert program.run(NUMBERS[machine][name], arch, given)[0] == REFUSE, (name, arguments)
    for name, cases in GOOD.items():
        for arguments in cases:
            assert program.run(NUMBERS[machine][name], arch, arguments)[0] == ALLOW, (name, arguments)


def test_other_machines_and_numbers_end_it() -> None:
    program = Machine(compile_filter("x86_64"))
    assert program.run(NUMBERS["x86_64"]["close"] | X32_BIT, AUDIT_ARCH["x86_64"], (0,) * 6)[0] == KILL
    assert program.run(6, 0x40000003, (0,) * 6)[0] == KILL  # i386


def test_no_call_that_makes_or_opens_is_in_the_table() -> None:
    makes = "socket socketpair connect bind listen accept accept4 open openat openat2 execve execveat fork vfork clone"
    makes += " clone3 ptrace sendmsg sendmmsg kill tgkill pidfd_getfd io_uring_setup process_vm_readv dup pipe2 bpf"
    assert {call.name for call in CALLS}.isdisjoint(makes.split())
    assert all(call.reason for call in CALLS)
