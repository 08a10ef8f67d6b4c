"""Does: reads the kept filter programs beside this file. They are written by ``compile_filter.py``.

Apart from it because a launch needs only this: the table and its compiler cost 10 ms to import.
"""

from __future__ import annotations

import os


def load_program(machine: str) -> bytes:
    """The filter for ``machine`` (as from platform.machine()), an array of struct sock_filter: linux/filter.h.

    Compiled now where no file is kept. Raises HostError for a machine without a table.
    """
    if machine.isidentifier():  # it becomes part of a path
        try:
            with open(os.path.join(os.path.dirname(__file__), f"{machine}.bpf"), "rb") as file:
                return file.read()
        except FileNotFoundError:
            pass
    from sandboxed_kernel.confinement.compile_filter import compile_filter

    return compile_filter(machine)
