"""Does: `make lock`. requirements.lock from pyproject.toml (extra ``dev``) and the build back end, with hashes.

It is run by an interpreter that has pip-tools; the lock itself does not contain pip or pip-tools.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HEAD = """\
# Everything `make test`, `make demo` and `make lint` install, with the hash of every file that may serve.
# Written by `make lock` from pyproject.toml (extra "dev") and the build back end; do not edit by hand.
"""
# What `pip install --no-build-isolation -e .` needs: hatchling, and what it asks for to make an editable install.
BUILD = "hatchling>=1.25,<2\neditables>=0.5,<1\n"
# Nothing of the machine that writes the lock belongs into it: no index, no folder of wheels.
OPTIONS = ["--quiet", "--extra=dev", "--generate-hashes", "--allow-unsafe", "--strip-extras", "--no-header"]
OPTIONS += ["--no-annotate", "--no-emit-index-url", "--no-emit-find-links", "--no-emit-trusted-host"]


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        build, out = Path(folder, "build.in"), Path(folder, "out")
        build.write_text(BUILD)
        sources = [str(ROOT / "pyproject.toml"), str(build)]
        command = [sys.executable, "-m", "piptools", "compile", *OPTIONS, "-o", str(out), *sources]
        subprocess.run(command, check=True)
        pinned = out.read_text()
    (ROOT / "requirements.lock").write_text(HEAD + keep(pinned))
    return 0


def keep(pinned: str) -> str:
    """The pins without comments, pip, and this package itself (which pip-tools names by its folder)."""
    kept, keeping = [], False
    for line in pinned.splitlines():
        if line and not line[0].isspace():
            keeping = not line.startswith(("#", "pip==", "sandboxed-kernel"))
        if keeping and line.strip() and not line.lstrip().startswith("#"):
            kept.append(line)
    return "\n".join(kept) + "\n"


if __name__ == "__main__":
    sys.exit(main())
