"""Does: the flat list of irrevocable steps. Runs in the process that is to be confined, before its command replaces it.

Every step raises OSError where Linux refuses it, and then nothing untrusted is started.
"""

from __future__ import annotations

import os
import resource
import signal
import stat
from collections.abc import Callable, Iterable
from typing import NoReturn

from sandboxed_kernel.confinement.filesystem import PathRule, restrict_flags, rights_for
from sandboxed_kernel.confinement.plan import Plan
from sandboxed_kernel.linux import landlock, processes, seccomp
from sandboxed_kernel.linux.descriptor import Descriptor
from sandboxed_kernel.records import Record


class Confined(Record):
    """Only ``confine`` makes one: the calling process is under every rule of ``plan``, for good."""

    plan: Plan


def confine(
    plan: Plan, program: bytes, *, parent: int, inherited: Iterable[int], hand_over: Callable[[int], None]
) -> Confined:
    """Confine the calling process; of its descriptors only 0-2 and ``inherited`` survive the exec that follows.

    ``hand_over`` gives the listener to the broker. Raises OSError.
    """
    processes.signal_at_parents_end(signal.SIGKILL, parent)
    os.umask(plan.umask)
    os.chdir(plan.cwd)
    _set_limits(plan)
    processes.set_no_new_privs()
    processes.drop_capabilities()
    processes.close_on_exec_from(3)
    for descriptor in inherited:
        os.set_inheritable(descriptor, True)
    restrict_thread(plan, files_only=False)
    listener = seccomp.install(program)
    hand_over(listener)
    return Confined(plan)


def exec_confined(confined: Confined) -> NoReturn:
    """Replace the calling process by the plan's command; there is no way here without ``confine``. Raises OSError."""
    plan = confined.plan
    os.execvpe(plan.argv[0], plan.argv, plan.environment)  # noqa: S606  # no shell is wanted


def restrict_thread(plan: Plan, *, files_only: bool) -> None:
    """Put the calling thread under the plan's Landlock rules: the confined process, and (``files_only``) the broker's
    thread that makes unix sockets for it.

    A path that is missing on this host needs no rule, if the plan says that it may be missing. Raises OSError.
    """
    net, scoped = (0, 0) if files_only else (plan.handled_net, plan.scoped)
    ruleset = landlock.create_ruleset(plan.handled_fs, net, scoped)
    try:
        for rule in plan.path_rules:
            _add(ruleset, rule, plan.abi)
        landlock.restrict_self(ruleset, restrict_flags(plan.abi))
    finally:
        os.close(ruleset)


def _add(ruleset: int, rule: PathRule, abi: int) -> None:
    if rule.optional:
        try:
            if rule.follow:
                found = Descriptor(os.open(rule.path, os.O_PATH | os.O_CLOEXEC))
            else:
                found = processes.open_real(rule.path)
        except OSError:
            return  # missing, or in a folder that this user may not enter: then there is nothing to allow
    else:
        # What the policy names was resolved and judged before; a link put there since (by another sandbox that may
        # write to the same folder) must not lead elsewhere.
        found = processes.open_real(rule.path)
    with found:
        is_folder = stat.S_ISDIR(os.fstat(found.fileno()).st_mode)
        rights = rights_for(rule, abi=abi, is_folder=is_folder)
        if rights:
            landlock.add_path(ruleset, found.fileno(), rights)


def _set_limits(plan: Plan) -> None:
    for which, soft, hard in plan.rlimits:
        _soft, most = resource.getrlimit(which)
        if most == resource.RLIM_INFINITY:
            most = hard
        resource.setrlimit(which, (min(soft, most), min(hard, most)))
