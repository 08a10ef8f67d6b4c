"""Does: `make lock`. requirements.lock from pyproject.toml (extra ``dev``) and the build back end, with hashes; and
requirements-NAME.lock for those tests that need more, which add to it.

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
MORE_HEAD = """\
# What `make test-{name}` installs beside requirements.lock, with the hash of every file that may serve.
# Written by `make lock` from {source}; do not edit by hand.
"""
MORE = {
    "workloads": "tests/workloads/heavy/requirements.in",
    "browser": "tests/browser/requirements.in",
    "peers": "tests/peers/requirements.in",
    "gallery": "tests/gallery/requirements.in",
}
# What `pip install --no-build-isolation -e .` needs: hatchling, and what it asks for to make an editable install.
BUILD = "hatchling>=1.25,<2\neditables>=0.5,<1\n"
# Nothing of the machine that writes the lock belongs into it: no index, no folder of wheels.
OPTIONS = ["--quiet", "--generate-hashes", "--allow-unsafe", "--strip-extras", "--no-header"]
OPTIONS += ["--no-annotate", "--no-emit-index-url", "--no-emit-find-links", "--no-emit-trusted-host"]


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        build = Path(folder, "build.in")
        build.write_text(BUILD)
        pinned = resolve(folder, "--extra=dev", str(ROOT / "pyproject.toml"), str(build))
        (ROOT / "requirements.lock").write_text(HEAD + keep(pinned, without=set()))
        for name, source in MORE.items():
            more = resolve(folder, str(ROOT / source), "-c", str(ROOT / "requirements.lock"))
            head = MORE_HEAD.format(name=name, source=source)
            (ROOT / f"requirements-{name}.lock").write_text(head + keep(more, without=names(pinned)))
    return 0


def resolve(folder: str, *sources: str) -> str:
    """Every package that ``sources`` need, pinned."""
    out = Path(folder, "out")
    out.unlink(missing_ok=True)
    subprocess.run([sys.executable, "-m", "piptools", "compile", *OPTIONS, "-o", str(out), *sources], check=True)
    return out.read_text()


def names(pinned: str) -> set[str]:
    return {line.partition("==")[0] for line in pinned.splitlines() if line[:1].isalnum()}


def keep(pinned: str, *, without: set[str]) -> str:
    """The pins without comments, pip, this package itself (which pip-tools names by its folder), and ``without``."""
    kept, keeping = [], False
    for line in pinned.splitlines():
        if line and not line[0].isspace():
            keeping = not line.startswith(("#", "pip==", "sandboxed-kernel")) and not names(line) & without
        if keeping and line.strip() and not line.lstrip().startswith("#"):
            kept.append(line)
    return "\n".join(kept) + "\n"


if __name__ == "__main__":
    sys.exit(main())
