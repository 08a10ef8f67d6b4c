"""Does: says what this machine lacks for the tests beside it, before some gigabytes are installed for them.

    python tests/workloads/heavy/machine.py

Exit code 1 and the Debian packages where something is missing: a failure, never a skip. It runs in any Python.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

JAVA = 17  # the oldest that Spark 4 runs on: https://spark.apache.org/docs/4.0.0/


class Need(NamedTuple):
    what: str
    package: str  # Debian's and Ubuntu's
    is_there: Callable[[], bool]


def postgres_programs() -> Path | None:
    """Debian's folder of the newest PostgreSQL server, or where ``initdb`` is on PATH, as elsewhere."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_version)
    found = shutil.which("initdb")
    usable = [folder for folder in folders if os.access(folder / "initdb", os.X_OK)]
    return usable[-1] if usable else Path(found).resolve().parent if found else None


def _version(programs: Path) -> list[int]:
    return [int(part) for part in programs.parent.name.split(".")]  # "9.6", "15": numbers, not texts


def _on_path(program: str) -> Callable[[], bool]:
    return lambda: shutil.which(program) is not None


def _has_java() -> bool:
    if shutil.which("java") is None:
        return False
    told = subprocess.run(["java", "-version"], capture_output=True, text=True).stderr
    version = re.search(r'version "(\d+)', told)
    return version is not None and int(version[1]) >= JAVA


NEEDS = (
    Need("PostgreSQL's server (initdb, postgres)", "postgresql", lambda: postgres_programs() is not None),
    Need("redis-server", "redis-server", _on_path("redis-server")),
    Need(f"Java {JAVA} or newer, for Spark", "default-jre-headless", _has_java),
    Need("gcc, for cffi", "gcc", _on_path("gcc")),
    Need("Python.h, for cffi", "python3-dev", lambda: Path(sysconfig.get_path("include"), "Python.h").exists()),
)


def lacks() -> str:
    """Empty, or what is missing and what to write."""
    missing = [need for need in NEEDS if not need.is_there()]
    if not missing:
        return ""
    packages = " ".join(sorted({need.package for need in missing}))
    return (
        f"these tests need what this machine does not have: {'; '.join(need.what for need in missing)}. "
        f"Debian, Ubuntu: apt-get install {packages}"
    )


if __name__ == "__main__":
    sys.exit(lacks() or 0)
