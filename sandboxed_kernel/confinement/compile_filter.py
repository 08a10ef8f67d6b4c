"""Does: turns the table of system calls into the program that seccomp(2) loads, and keeps the results in ``filters/``.

Classic BPF as in linux/Documentation/networking/filter.rst, restricted as seccomp(2) says. Written out here because
libseccomp cannot say what the table says: it knows no order among rows of one call, no answer for "none of these" and
no masked inequality. Its shape is what Linux likes: one search over numbers that touches no argument, so that Linux
finds every unconditionally allowed call when it loads the filter and never runs it for them (seccomp's action cache,
Linux 5.11); then, per call with conditions, its rows in their order.

``python -m sandboxed_kernel.confinement.compile_filter`` rewrites the files; a test says when that is due.
"""

from __future__ import annotations

import itertools
import os
import struct

from sandboxed_kernel.confinement.numbers import (
    AND,
    ARCH_OFFSET,
    ARGS_OFFSET,
    AUDIT_ARCH,
    IF_ANY_BIT,
    IF_AT_LEAST,
    IF_EQUAL,
    JUMP,
    LOAD,
    NR_OFFSET,
    NUMBERS,
    RET_ALLOW,
    RET_ERRNO,
    RET_KILL_PROCESS,
    RET_NOTIFY,
    RETURN,
    X32_BIT,
    file_name,
)
from sandboxed_kernel.confinement.syscalls import ALLOW, DEFAULT, KILL, LOW32, NOTIFY, Action, Condition, Row, rows_of
from sandboxed_kernel.errors import HostError

_MAX_INSTRUCTIONS = 4096  # BPF_MAXINSNS
_MAX_OFFSET = 255  # of a conditional jump: 8 bits


def return_value(action: Action) -> int:
    """What the filter returns for ``action``: seccomp(2), "return value"."""
    if action.kind == "errno":
        return RET_ERRNO | action.errno
    return {ALLOW: RET_ALLOW, NOTIFY: RET_NOTIFY, KILL: RET_KILL_PROCESS}[action]


class _Program:
    """Instructions written from the last to the first, so that every jump's target is known when it is written.

    A label is a position counted from the end. BPF only jumps forward.
    """

    def __init__(self) -> None:
        self._backwards: list[tuple[int, int, int, int]] = []
        self._returns: dict[int, int] = {}

    def _put(self, code: int, if_true: int, if_false: int, k: int) -> int:
        self._backwards.append((code, if_true, if_false, k))
        return len(self._backwards) - 1

    def answer(self, action: Action) -> int:
        value = return_value(action)
        if value not in self._returns:
            self._returns[value] = self._put(RETURN, 0, 0, value)
        return self._returns[value]

    def _within_reach(self, label: int, margin: int) -> int:
        """``label``, or the new label of an instruction that leads to it, at most ``margin`` short of the limit."""
        if len(self._backwards) - 1 - label + margin <= _MAX_OFFSET:
            return label
        code, _, _, k = self._backwards[label]
        if code == RETURN:
            return self._put(RETURN, 0, 0, k)
        return self._put(JUMP, 0, 0, len(self._backwards) - 1 - label)

    def test(self, code: int, k: int, then: int, otherwise: int) -> int:
        then = self._within_reach(then, margin=1)  # the other one may need an instruction in between
        otherwise = self._within_reach(otherwise, margin=0)
        here = len(self._backwards)
        return self._put(code, here - 1 - then, here - 1 - otherwise, k)

    def before(self, code: int, k: int, label: int) -> int:
        """LOAD or AND, which go on at ``label``."""
        if label != len(self._backwards) - 1:
            self._put(JUMP, 0, 0, len(self._backwards) - 1 - label)
        return self._put(code, 0, 0, k)

    def to_bytes(self) -> bytes:
        if len(self._backwards) > _MAX_INSTRUCTIONS:
            raise ValueError(f"{len(self._backwards)} instructions; Linux takes {_MAX_INSTRUCTIONS}")
        return b"".join(struct.pack("<HBBI", *instruction) for instruction in reversed(self._backwards))


def _word(program: _Program, offset: int, mask: int, values: tuple[int, ...], then: int, otherwise: int) -> int:
    """Code that goes to ``then`` if the 32-bit word at ``offset``, masked, is one of ``values``, else ``otherwise``."""
    if values == (0,):
        return program.before(LOAD, offset, program.test(IF_ANY_BIT, mask, otherwise, then))
    label = otherwise
    for value in reversed(values):
        label = program.test(IF_EQUAL, value, then, label)
    if mask != LOW32:
        label = program.before(AND, mask, label)
    return program.before(LOAD, offset, label)


def _condition(program: _Program, condition: Condition, then: int, otherwise: int) -> int:
    if condition.negated:
        then, otherwise = otherwise, then
    low_offset = ARGS_OFFSET + 8 * condition.arg  # both machines are little-endian
    low_values = tuple(value & LOW32 for value in condition.values)
    label = _word(program, low_offset, condition.mask & LOW32, low_values, then, otherwise)
    if high_mask := condition.mask >> 32:
        (value,) = condition.values
        label = _word(program, low_offset + 4, high_mask, (value >> 32,), label, otherwise)
    return label


def _rows(program: _Program, rows: tuple[Row, ...]) -> int:
    """Code that answers one call: its rows in order."""
    label = program.answer(DEFAULT)
    for row in reversed(rows):
        otherwise, label = label, program.answer(row.action)
        for condition in reversed(row.conditions):
            label = _condition(program, condition, label, otherwise)
    return label


def _search(program: _Program, ranges: list[tuple[int, int]]) -> int:
    """Code that finds the label of the range (first number, label) in which the loaded number lies."""
    if len(ranges) == 1:
        return ranges[0][1]
    middle = len(ranges) // 2
    right, left = _search(program, ranges[middle:]), _search(program, ranges[:middle])
    return program.test(IF_AT_LEAST, ranges[middle][0], right, left)


def compile_filter(machine: str, *, guarded: bool = False) -> bytes:
    """The program for ``machine`` ("x86_64", "aarch64") as an array of struct sock_filter; ``guarded``: see
    ``syscalls.rows_of``. Raises HostError.
    """
    if machine not in NUMBERS:
        raise HostError(f'no system call table for machine "{machine}"; there is one for {", ".join(sorted(NUMBERS))}.')
    program = _Program()
    for action in (DEFAULT, KILL, ALLOW):
        program.answer(action)
    label_of = {number: _rows(program, rows_of(name, guarded=guarded)) for name, number in NUMBERS[machine].items()}
    ranges: list[tuple[int, int]] = []
    for number in range(max(label_of) + 2):
        label = label_of.get(number, program.answer(DEFAULT))
        if not ranges or ranges[-1][1] != label:
            ranges.append((number, label))
    label = _search(program, ranges)
    if machine == "x86_64":
        x32 = program.test(IF_EQUAL, LOW32, program.answer(DEFAULT), program.answer(KILL))
        label = program.test(IF_ANY_BIT, X32_BIT, x32, label)
    label = program.before(LOAD, NR_OFFSET, label)
    label = program.test(IF_EQUAL, AUDIT_ARCH[machine], label, program.answer(KILL))
    program.before(LOAD, ARCH_OFFSET, label)
    return program.to_bytes()


def main() -> None:
    folder = os.path.join(os.path.dirname(__file__), "filters")
    for machine, guarded in itertools.product(NUMBERS, (False, True)):
        with open(os.path.join(folder, file_name(machine, guarded=guarded)), "wb") as file:
            file.write(compile_filter(machine, guarded=guarded))


if __name__ == "__main__":
    main()
