"""A classic BPF machine for seccomp programs: what Linux would return for one struct seccomp_data.

Knows only the instructions that seccomp(2) accepts and our compiler writes; anything else is an error, so that a
program with it fails its test. Checks what Linux checks on loading: known instructions, jumps inside the program, an
answer at the end.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

_LOAD, _AND, _RETURN, _JUMP, _EQUAL, _AT_LEAST, _ANY_BIT = 0x20, 0x54, 0x06, 0x05, 0x15, 0x35, 0x45
_CONDITIONAL = {_EQUAL, _AT_LEAST, _ANY_BIT}
_DATA = struct.Struct("<iIQ6Q")  # struct seccomp_data: nr, arch, instruction pointer, args


class Machine:
    """One loaded program."""

    def __init__(self, program: bytes) -> None:
        self.code = [struct.unpack_from("<HBBI", program, at) for at in range(0, len(program), 8)]
        self._check()

    def _check(self) -> None:
        """net/core/filter.c, bpf_check_classic()."""
        length = len(self.code)
        assert 0 < length <= 4096
        for here, (code, if_true, if_false, k) in enumerate(self.code):
            assert code in _CONDITIONAL | {_LOAD, _AND, _RETURN, _JUMP}, f"instruction {here}: unknown code {code:#x}"
            if code in _CONDITIONAL:
                assert here + 1 + max(if_true, if_false) < length, f"instruction {here} jumps out"
            if code == _JUMP:
                assert here + 1 + k < length, f"instruction {here} jumps out"
            if code == _LOAD:
                assert k % 4 == 0
                assert k < _DATA.size
        assert self.code[-1][0] == _RETURN

    def run(self, nr: int, arch: int, args: Sequence[int]) -> tuple[int, int]:
        """The value returned and the number of instructions executed."""
        words = struct.unpack("<16I", _DATA.pack(nr - (1 << 32) if nr >> 31 else nr, arch, 0, *args))
        accumulator = at = steps = 0
        while True:
            code, if_true, if_false, k = self.code[at]
            at, steps = at + 1, steps + 1
            if code == _RETURN:
                return k, steps
            if code == _LOAD:
                accumulator = words[k // 4]
            elif code == _AND:
                accumulator &= k
            elif code == _JUMP:
                at += k
            else:
                at += if_true if _holds(code, accumulator, k) else if_false

    def reads_arguments(self, nr: int, arch: int) -> bool:
        """Whether the answer for ``nr`` takes more than its number; if not, Linux answers without the program.

        kernel/seccomp.c, seccomp_is_const_allow().
        """
        accumulator = at = 0
        while True:
            code, if_true, if_false, k = self.code[at]
            at += 1
            if code == _RETURN:
                return False
            if code == _LOAD and k > 4:
                return True
            if code == _LOAD:
                accumulator = arch if k else nr
            elif code == _AND:
                accumulator &= k
            elif code == _JUMP:
                at += k
            else:
                at += if_true if _holds(code, accumulator, k) else if_false


def _holds(code: int, accumulator: int, k: int) -> bool:
    if code == _EQUAL:
        return accumulator == k
    if code == _AT_LEAST:
        return accumulator >= k
    return accumulator & k != 0
