"""Does: reads the kept filter programs beside this file. They are written by ``compile_filter.py``.

Apart from it because a launch needs only this: the table and its compiler cost 10 ms to import.
"""

from __future__ import annotations

import os

from sandboxed_kernel.confinement.numbers import file_name


def load_program(machine: str, *, guarded: bool = False) -> bytes:
    """The filter for ``machine`` (as from platform.machine()), an array of struct sock_filter: linux/filter.h.

    ``guarded``: for a sandbox whose notebook's folder holds something that stays closed.

    Compiled now where no file is kept. Raises HostError for a machine without a table.
    """
    if machine.isidentifier():  # it becomes part of a path
        try:
            with open(os.path.join(os.path.dirname(__file__), file_name(machine, guarded=guarded)), "rb") as file:
                return file.read()
        except FileNotFoundError:
            pass
    from sandboxed_kernel.confinement.compile_filter import compile_filter

    return compile_filter(machine, guarded=guarded)
