"""A file descriptor with an owner: a plain number is nobody's, and may mean another file by the time it is used."""

from __future__ import annotations

import os
import select
from typing import Self


def is_ready(number: int, events: int = 0, within: int = 0) -> bool:
    """Whether one of poll(2)'s ``events`` holds now, or ``within`` this many milliseconds; an error or a hang-up always
    counts.
    """
    poll = select.poll()
    poll.register(number, events)
    return bool(poll.poll(within))


class Descriptor:
    """An open descriptor, which this object owns: closed by ``close``, at the end of ``with``, or with the object."""

    __slots__ = ("_number",)

    def __init__(self, number: int) -> None:
        self._number = number

    def fileno(self) -> int:
        """Its number, for a system call. Raises ValueError where it is closed."""
        if self._number < 0:
            raise ValueError("this descriptor is closed")
        return self._number

    @property
    def path(self) -> str:
        """A path by which this process reaches exactly what is open here."""
        return f"/proc/self/fd/{self.fileno()}"

    def close(self) -> None:
        number, self._number = self._number, -1
        if number >= 0:
            os.close(number)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Descriptor {'closed' if self._number < 0 else self._number}>"
