"""Does: downloads the peers' sdists, which hold their tests, into the environment that runs it. By requirements.lock,
which has the hash of every file of a version: the tests are those of the peers that are installed.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]  # called by path: the tree is not on the path yet

from tests.peers.suites import SUITES  # noqa: E402 - see the line above
from tests.write_lock import keep, names  # noqa: E402

SDISTS = Path(sys.prefix, "sdists")


def main() -> int:
    lock = (ROOT / "requirements.lock").read_text()
    peers = {suite.project.replace("_", "-") for suite in SUITES}
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(keep(lock, without=names(lock) - peers))
        file.flush()
        # pip asks each for its dependencies, with the build back end that requirements.lock has installed here.
        options = ["--no-deps", "--no-binary", ":all:", "--no-build-isolation", "--require-hashes"]
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", *options]
        return subprocess.run([*command, "--dest", str(SDISTS), "-r", file.name]).returncode


if __name__ == "__main__":
    sys.exit(main())
