"""Does: makes the control group that keeps the limits on memory and processes, where this user may make one.

Only the confined process and what it starts live in it. Launcher and broker stay where they are: a sandbox that uses
too much must not be able to have them killed.
"""

from __future__ import annotations

import os
import time

from sandboxed_kernel.confinement.group_files import GroupFile, group_files
from sandboxed_kernel.confinement.host import in_child
from sandboxed_kernel.linux import cgroups
from sandboxed_kernel.linux.cgroups import Group
from sandboxed_kernel.policy.model import Limits

_PATIENCE = 1.0  # seconds for the removal of a group in which nothing has run
_OOM_SCORE = "/proc/self/oom_score_adj"  # proc_pid_oom_score_adj(5)


def make_group(limits: Limits) -> Group | None:
    """A group with these limits, which was entered once to see that it can be. None where there is none to be had: then
    the broker's watch keeps them, and for a controller that is not in ``Group.controllers`` too.
    """
    files = group_files(limits)
    place = cgroups.find_place(frozenset(file.controller for file in files)) if files else None
    if place is None:
        return None
    try:
        group = cgroups.make(place)
    except OSError:
        return None
    try:
        for file in files:
            if file.controller in group.controllers:
                _set(group, file)
        if in_child(lambda: _enter_and_succeed(group)) == 0:
            return group
    except OSError:
        pass
    group.remove(time.monotonic() + _PATIENCE)
    return None


def enter(group: Group) -> None:
    """In the process that is to be confined, before its first step. Raises OSError."""
    group.enter()
    # With -1000, which a service's settings may have given to the launcher, Linux would find nobody to kill at the
    # limit, and the allocation would be tried again for ever. Everybody may raise it.
    with open(_OOM_SCORE, "rb+", buffering=0) as file:
        if int(file.read()) < 0:
            file.write(b"0")


def _set(group: Group, file: GroupFile) -> None:
    if file.optional and not os.path.exists(f"{group.path}/{file.name}"):
        return
    group.set(file.name, file.value)


def _enter_and_succeed(group: Group) -> int:
    group.enter()
    return 0
