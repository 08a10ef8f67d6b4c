"""Does: finds who can be measured on this machine, and how each starts a kernel and a command.

What the peers allow is set as near to ours as their options come: the whole file system readable, the workspace
writable. bubblewrap shares the network, since without it neither Jupyter's ports nor the listeners can be reached.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.model import Contender
from sandboxed_kernel import __version__

_IPYKERNEL = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
_OURS = [sys.executable, "-I", "-m", "sandboxed_kernel"]


@dataclass(frozen=True, slots=True)
class Plain:
    """No sandbox at all."""

    name: str = "plain"
    version: str = importlib.metadata.version("ipykernel")

    def kernel(self, workspace: Path) -> list[str]:
        return _IPYKERNEL

    def command(self, workspace: Path, allow: tuple[str, ...], resolv_conf: str | None) -> list[str]:
        return []


@dataclass(frozen=True, slots=True)
class Ours:
    """This package, as its kernelspec and ``run`` start it. Policy and log lie beside the workspace."""

    name: str = "ours"
    version: str = __version__

    def kernel(self, workspace: Path) -> list[str]:
        return [*_OURS, "-f", "{connection_file}"]

    def command(self, workspace: Path, allow: tuple[str, ...], resolv_conf: str | None) -> list[str]:
        policy = workspace.with_name("policy.toml")
        entries = (entry if entry.startswith("{") else json.dumps(entry) for entry in allow)
        policy.write_text(f"[network]\nallow = [{', '.join(entries)}]\n")
        options = ["--policy", str(policy), "--workspace", str(workspace)]
        options += ["--audit", str(workspace.with_name("audit.jsonl"))]
        if resolv_conf is not None:
            options += ["--resolv-conf", resolv_conf]
        return [*_OURS, "run", *options, "--"]


@dataclass(frozen=True, slots=True)
class Bubblewrap:
    """bwrap(1) with every namespace but the network's."""

    program: str
    version: str
    name: str = "bwrap"

    def kernel(self, workspace: Path) -> list[str]:
        # In a process namespace the parent's number means nothing, and ipykernel would take its parent for dead.
        return [*self.command(workspace, (), None), "--unsetenv", "JPY_PARENT_PID", *_IPYKERNEL]

    def command(self, workspace: Path, allow: tuple[str, ...], resolv_conf: str | None) -> list[str]:
        folder = str(workspace.parent)  # with the connection file and IPython's folder
        namespaces = ["--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--die-with-parent"]
        mounts = ["--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp"]
        mounts += ["--ro-bind", sys.prefix, sys.prefix]  # a checkout may lie in /tmp
        return [self.program, *namespaces, *mounts, "--bind", folder, folder, "--chdir", str(workspace)]


@dataclass(frozen=True, slots=True)
class Sandlock:
    """sandlock's Python package, through a runner of a few lines; it has no command of its own on PyPI."""

    version: str
    name: str = "sandlock"

    def kernel(self, workspace: Path) -> None:
        """Its port rules would have to name Jupyter's five ports beforehand."""

    def command(self, workspace: Path, allow: tuple[str, ...], resolv_conf: str | None) -> list[str]:
        runner = Path(__file__).with_name("in_sandlock.py")
        return [sys.executable, "-I", str(runner), str(workspace.parent), ",".join(allow), "--"]


def find() -> dict[str, Contender]:
    """Name -> contender: plain and ours, and the peers that are installed and start."""
    found: list[Contender] = [Plain(), Ours()]
    program = shutil.which("bwrap")
    if program is not None and _runs([program, "--unshare-user", "--ro-bind", "/", "/", "true"]):
        version = subprocess.run([program, "--version"], capture_output=True, text=True).stdout.split()[-1]
        found.append(Bubblewrap(program, version))
    if importlib.util.find_spec("sandlock") is not None:
        sandlock = Sandlock(importlib.metadata.version("sandlock"))
        if _runs([*sandlock.command(Path("/tmp/workspace"), (), None), "true"]):
            found.append(sandlock)
    return {contender.name: contender for contender in found}


def _runs(command: list[str]) -> bool:
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True).returncode == 0
