"""Does: the first milliseconds of the broker: it becomes one, and starts the confined process before anything else.

Apart from ``serve`` because of what is imported: the rest of the broker waits until the confined process runs, so that
its imports are not on the way to the first cell.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
from typing import TYPE_CHECKING

from sandboxed_kernel.broker.orders import Child, Orders
from sandboxed_kernel.linux import processes

if TYPE_CHECKING:
    from sandboxed_kernel.linux.cgroups import Group


def live(orders: Orders, relay: socket.socket, group: Group | None) -> None:
    """The broker's whole life, in the process that was forked for it. ``relay`` is this end of the channel. The
    confined process lives in ``group``.
    """
    fenced = _become_broker()
    born: Child | Exception
    try:
        born = orders.spawn()
    except Exception as error:  # noqa: BLE001  # told to the relay by ``serve``, which is not imported yet
        born = error
    from sandboxed_kernel.broker.serve import serve

    serve(orders, relay, born, group, fenced=fenced)


def _become_broker() -> bool:
    """Whether our signals reach nothing but what we fork from now on."""
    os.setsid()
    processes.become_subreaper()
    processes.set_no_new_privs()
    processes.drop_capabilities()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return processes.fence_signals()
