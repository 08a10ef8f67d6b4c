"""Does: what the guard does to itself before it takes the first connection, and can never undo."""

from __future__ import annotations

import os

from sandboxed_kernel.confinement.filesystem import handled_fs, handled_net, scoped
from sandboxed_kernel.guard.filter import compile_filter
from sandboxed_kernel.linux import landlock, libc, processes, seccomp


def confine() -> None:
    """No file, no new connection, no program, no signal: Landlock with nothing allowed, and a filter of few calls.

    Landlock's part is as much as this Linux has; the filter is complete by itself. Raises OSError, HostError.
    """
    processes.set_no_new_privs()
    processes.drop_capabilities()
    abi = landlock.abi_version()
    if abi:
        ruleset = landlock.create_ruleset(handled_fs(abi), handled_net(abi), scoped(abi))
        landlock.restrict_self(ruleset)
        os.close(ruleset)
    seccomp.install(compile_filter(libc.MACHINE), listener=False)
