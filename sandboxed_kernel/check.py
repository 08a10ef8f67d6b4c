"""Does: ``sandboxed-kernel check``: attempts what is claimed, in a real sandbox, and believes the receiver."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import time

from sandboxed_kernel.confinement.group import make_group
from sandboxed_kernel.confinement.host import find_features
from sandboxed_kernel.confinement.plan import WITH_LESS, describe_missing, missing_features, second_fences
from sandboxed_kernel.errors import HostError
from sandboxed_kernel.linux.diag import MODULES, missing_modules
from sandboxed_kernel.linux.sockets import DEFAULT_TTL, HIGHEST_TTL, default_ttl
from sandboxed_kernel.policy.baseline import ACCELERATORS, card_nodes
from sandboxed_kernel.policy.model import Limits
from sandboxed_kernel.records import Record

_PROBE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "inside", "probe.py")
_TIMEOUT = 60  # seconds
_BEST_EFFORT = f"To go on with what this Linux can enforce: {WITH_LESS}"
_LOAD_MODULES = (
    f"An administrator of this machine (for a container: of its host) can load what is missing: modprobe -a"
    f" {' '.join(MODULES)}; and at every start: the names, a line each, in /etc/modules-load.d/sandboxed-kernel.conf."
)


class CheckResult(Record):
    name: str
    holds: bool
    detail: str
    remedy: str = ""  # where it does not hold: a sentence about who can do what


def check() -> list[CheckResult]:
    """What this host offers, and what came of each attempt. Raises HostError where no sandbox can be started at all."""
    return [*_features(), *_attempts()]


def _features() -> list[CheckResult]:
    found = find_features()
    abi = found.landlock_abi
    missing = missing_features(abi) if abi else ()
    words = " ".join(describe_missing(name, abi) for name in missing)
    return [
        CheckResult("Linux", True, f"{found.kernel_release} on {found.machine}"),
        CheckResult("Landlock", bool(abi), f"ABI {abi}" if abi else "missing or switched off"),
        CheckResult(
            "Landlock, every right", bool(abi) and not missing, words or "files, TCP, devices, scopes", _BEST_EFFORT
        ),
        CheckResult("Landlock, second fences", True, second_fences(abi)),
        CheckResult("seccomp user notification", found.seccomp_notify, "a filter with a listener can be loaded"),
        CheckResult("sockets handed in", found.addfd, "SECCOMP_IOCTL_NOTIF_ADDFD with SECCOMP_ADDFD_FLAG_SEND"),
        _questions_about_sockets(),
        _token_of_own_listeners(),
        CheckResult("limits", True, _how_limits_are_kept()),
        CheckResult("graphics cards", True, _cards()),
    ]


def _questions_about_sockets() -> CheckResult:
    """Without the answers own servers work as everything else that nobody can know to be ours: not at all."""
    name = "questions about sockets"
    try:
        missing = " and ".join(missing_modules())
    except HostError as error:
        return CheckResult(name, False, str(error))
    if missing:
        detail = f"Linux's {missing} cannot be loaded: nothing inside reaches own servers or unix sockets that need it"
        return CheckResult(name, False, detail, _LOAD_MODULES)
    return CheckResult(name, True, f"sock_diag answers ({', '.join(MODULES)})")


def _token_of_own_listeners() -> CheckResult:
    """Without it a connect to an own server is only checked before and after, by a broker that may be made to wait."""
    name = "own servers by TTL"
    without = [settings for settings in DEFAULT_TTL.values() if (default_ttl(settings) or 0) >= HIGHEST_TTL]
    if without:
        detail = f"{' and '.join(without)}: {HIGHEST_TTL}, as own servers send, so Linux cannot tell others from them"
        return CheckResult(name, False, detail, "An administrator can set it to 64, Linux's own default: sysctl(8).")
    return CheckResult(name, True, f"packets of other servers of this machine start with less than {HIGHEST_TTL}")


def _how_limits_are_kept() -> str:
    """They hold either way; by the broker's look, a fast program has more for a moment."""
    group = make_group(Limits(memory=1 << 30, processes=100))
    if group is None:
        return "memory and processes by a look four times a second: no control group can be made here (docs/policy.md)"
    by_look = "" if "memory" in group.controllers else "; memory by a look four times a second"
    group.remove(time.monotonic() + 1)
    return f"by a control group beneath {os.path.dirname(group.path)}: {', '.join(sorted(group.controllers))}{by_look}"


def _cards() -> str:
    """Which there are, and what opens them."""
    found = {maker: [node for node in card_nodes(maker) if os.path.exists(node)] for maker in ACCELERATORS}
    told = [f'{" ".join(nodes)} with [accelerators] allow = ["{maker}"]' for maker, nodes in found.items() if nodes]
    return f"closed; open {', '.join(told)} (docs/policy.md)" if told else "none here whose device nodes are known"


def _attempts() -> list[CheckResult]:
    abstract = f"sandboxed-kernel-check-{os.urandom(4).hex()}"
    with (
        tempfile.TemporaryDirectory(prefix="sbk-check-") as folder,
        socket.create_server(("127.0.0.1", 0)) as allowed,
        socket.create_server(("127.0.0.1", 0)) as forbidden,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
        socket.socket(socket.AF_UNIX) as unix,
    ):
        port = forbidden.getsockname()[1]
        datagrams.bind(("127.0.0.1", port))
        unix.bind("\0" + abstract)
        unix.listen()
        secret = os.path.join(folder, "secret")
        with open(secret, "w", encoding="utf-8") as file:
            file.write("secret")
        os.chmod(secret, 0o600)
        answers = _run_probe(folder, allowed.getsockname()[1], port, abstract, secret)
        with open(secret, encoding="utf-8") as file:
            unchanged = file.read() == "secret" and os.stat(secret).st_mode & 0o777 == 0o600
        reached = [server for server in (forbidden, datagrams, unix) if _got_something(server)]
        quiet = {server: server not in reached for server in (forbidden, datagrams, unix)}

    def refused(name: str, text: str, evidence: bool, key: str) -> CheckResult:
        if key not in answers:
            return CheckResult(name, False, f"{text}: the attempt itself could not be made")
        outcome = answers[key]
        return CheckResult(name, bool(outcome) and evidence, f"{text}: {outcome or 'it was possible'}")

    def possible(name: str, text: str, key: str) -> CheckResult:
        outcome = answers.get(key, "the attempt itself could not be made")
        return CheckResult(name, not outcome, f"{text}: {outcome or 'yes'}")

    return [
        possible("an allowed connection", "to a port that the policy names", "allowed"),
        refused("other TCP", "to a listener of this machine, which saw nothing", quiet[forbidden], "tcp"),
        refused("UDP", "to a listener of this machine, which saw nothing", quiet[datagrams], "udp"),
        refused("abstract unix sockets", "to a listener outside, which saw nothing", quiet[unix], "abstract"),
        refused("names", "a name that the policy does not name", True, "name"),
        possible("own servers", "reached from inside", "own"),
        refused("reading", "a file outside", True, "read"),
        refused("writing", "a file outside, which is unchanged", unchanged, "write"),
        refused("metadata", "chmod of a file outside, which is unchanged", unchanged, "chmod"),
        possible("the workspace", "written", "workspace"),
        refused("signals", "to a process outside", True, "signal"),
    ]


def _got_something(sock: socket.socket) -> bool:
    return bool(select.select([sock], [], [], 0)[0])


def _run_probe(folder: str, allowed: int, port: int, abstract: str, secret: str) -> dict[str, str]:
    """The probe's answers; empty, with its errors on standard error, where it could not run."""
    workspace = os.path.join(folder, "workspace")
    os.mkdir(workspace)
    policy = os.path.join(folder, "policy.toml")
    missing = missing_features(find_features().landlock_abi)
    with open(policy, "w", encoding="utf-8") as file:
        file.write(f'best_effort = {json.dumps(missing)}\n[network]\nallow = ["127.0.0.1:{allowed}"]\n')
    order = {"port": port, "allowed": allowed, "abstract": abstract, "secret": secret, "pid": os.getpid()}
    command = [sys.executable, "-I", "-m", "sandboxed_kernel", "run", "--policy", policy, "--workspace", workspace]
    command += ["--audit", os.path.join(folder, "audit.jsonl"), "--", sys.executable, _PROBE, json.dumps(order)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
    try:
        answers = json.loads(done.stdout)
    except ValueError:
        sys.stderr.write(done.stderr)
        return {}
    return {str(key): str(value) for key, value in answers.items()} if isinstance(answers, dict) else {}
