"""Does: shows what holds on other Linuxes, for docs/platforms.md: each is started in an emulated machine.

    python tests/vm/platforms.py [SUITE ...]        (make platforms)

Of each Debian suite the Linux for virtual machines is fetched (newest_linux.sh). In it, as an ordinary user,
`sandboxed-kernel check` is run, what `install` would say, and, where something lacks, the same with less
(`--best-effort`): a connection that is allowed, one that is refused, and a file that is refused.
Prints rows of a table.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

TREE = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(TREE)]  # called by path: the tree is not on the path yet

from tests.vm import init, run  # noqa: E402 - see the line above
from tests.vm.cpio import Archive  # noqa: E402

SUITES = ("bullseye", "bookworm", "bookworm-backports", "trixie", "trixie-backports", "unstable")
TIMEOUT = 900  # seconds for one machine


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("suites", nargs="*", default=SUITES)
    parser.add_argument("--qemu", default="qemu-system-x86_64", help="the emulator")
    options = parser.parse_args(arguments)
    print("| Debian suite | Linux | Landlock | as it comes | with `install --best-effort` |\n|---|---|---|---|---|")
    for suite in options.suites:
        print(row(suite, boot(suite, options.qemu)), flush=True)
    return 0


def boot(suite: str, qemu: str) -> str:
    """What the machine's console says."""
    folder = TREE / ".build" / f"vm-{suite}"
    script = TREE / "tests" / "vm" / "newest_linux.sh"
    fetched = subprocess.run(["bash", script, folder, suite], stdout=subprocess.PIPE, text=True, check=True)
    linux = Path(fetched.stdout.split()[-1])
    with tempfile.TemporaryDirectory(prefix="sbk-vm-") as place:
        image = Path(place, "initramfs")
        with image.open("wb") as file:
            run.write_image(Archive(file), folder / "root", [init.CHECK])
        command = run.machine(qemu, linux, image)
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=TIMEOUT
        )
    if init.ENDED not in done.stdout:
        raise RuntimeError(f"{suite}: the machine did not come to its end\n{done.stdout}")
    return done.stdout


def row(suite: str, console: str) -> str:
    parts = dict(re.findall(rf"{init.STEP}(\w+)\r?\n(.*?)(?={init.STEP}|\Z)", console, re.DOTALL))
    version = re.search(r"Linux +(\S+) on", parts["check"])
    landlock = re.search(r"Landlock  +(ABI \d+)", parts["check"])
    cells = (
        suite.replace("unstable", "unstable (sid)"),
        version[1] if version else "?",
        landlock[1] if landlock else "none",
        said(parts["default"]),
        said(parts["less"]),
    )
    return f"| {' | '.join(cells)} |"


def said(text: str) -> str:
    """What of the three was seen, or why nothing ran."""
    if re.search(r"^ended with 0\r?$", text, re.MULTILINE):
        found = [word for word in ("allowed: reached", "refused: refused", "file: refused") if word in text]
        return "works" if len(found) == 3 else f"WRONG: {found}"
    lines = [line.strip() for line in text.splitlines() if line.startswith("sandboxed-kernel: ")]
    reason = lines[-1].removeprefix("sandboxed-kernel: ") if lines else "no reason was said"
    if "install --best-effort" in reason:
        return "does not start; says what lacks, and this command"
    return f"does not start: {reason}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
