"""Does: asks this Linux, once and by real attempts, what it can enforce."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress

from sandboxed_kernel.confinement.plan import HostFeatures
from sandboxed_kernel.errors import HostError
from sandboxed_kernel.linux import landlock, processes, seccomp

# struct sock_filter: BPF_RET | BPF_K, SECCOMP_RET_ALLOW
_ALLOW_ALL = b"\x06\x00\x00\x00\x00\x00\xff\x7f"
_NO_ADDFD = 200  # an exit code that is no errno


def find_features() -> HostFeatures:
    """What holds here, now. One fork: a filter is irrevocable, and a sandbox around us may hold the only listener."""
    outcome = in_child(_try_listener) if seccomp.supported() else errno.ENOSYS
    return HostFeatures(
        landlock_abi=landlock.abi_version(),
        seccomp_notify=outcome in (0, _NO_ADDFD),
        addfd=outcome == 0,
        machine=os.uname().machine,
        kernel_release=os.uname().release,
    )


def _try_listener() -> int:
    processes.set_no_new_privs()
    listener = seccomp.Listener(seccomp.install(_ALLOW_ALL))
    return 0 if listener.knows_add_descriptor() else _NO_ADDFD


def in_child(attempt: Callable[[], int]) -> int:
    """What ``attempt`` returns in a forked child, or the errno it raised; 255 where it could not say."""
    try:
        pid = os.fork()
    except OSError as error:
        raise HostError(f"no process can be forked to try what this host enforces: {error.strerror}") from None
    if pid == 0:
        code = 255
        with suppress(BaseException):
            try:
                code = attempt()
            except OSError as error:
                code = error.errno or errno.EIO
        os._exit(code)
    _pid, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)
