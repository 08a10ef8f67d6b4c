"""``[accelerators]`` opens a card's device nodes, here stand-ins for them, and those of no other maker."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# A /dev of its own, in a mount namespace, with stand-ins: /dev/null and /dev/zero under a card's names.
OWN_DEV = """
set -e
mkdir dev
mount -t tmpfs none dev
for name in null zero full random urandom tty; do cp -a /dev/$name dev/; done
cp -a /dev/null dev/nvidia0
cp -a /dev/zero dev/nvidiactl
cp -a /dev/null dev/kfd
mkdir dev/shm dev/pts
mount --rbind /dev/shm dev/shm
mount --rbind /dev/pts dev/pts
ln -s pts/ptmx dev/ptmx
mount --rbind dev /dev
cd book
exec "$@"
"""
USE = """
import errno, os
for path in ("/dev/nvidia0", "/dev/nvidiactl", "/dev/kfd"):
    try:
        card = os.open(path, os.O_RDWR)
        print(os.write(card, b"work"), end=" ")
    except OSError as error:
        print(errno.errorcode[error.errno], end=" ")
try:
    print(len(os.listdir("/sys/devices")) > 0)
except OSError as error:
    print(errno.errorcode[error.errno])
"""


@pytest.mark.root
@pytest.mark.parametrize(
    ("policy", "told"),
    [
        ("", "EACCES EACCES EACCES EACCES"),
        ('accelerators.allow = ["nvidia"]', "4 4 EACCES True"),
        ('accelerators.allow = ["amd"]', "EACCES EACCES 4 True"),
        ('accelerators.allow = ["all"]', "4 4 4 True"),
    ],
)
def test_a_card_s_devices_are_opened_by_its_maker_s_name(tmp_path: Path, policy: str, told: str) -> None:
    (tmp_path / "policy.toml").write_text(policy)
    done = with_cards(tmp_path, "run", "--policy", str(tmp_path / "policy.toml"), "--", sys.executable, "-c", USE)
    assert (done.stdout.strip(), done.returncode) == (told, 0), done.stderr


@pytest.mark.root
def test_check_says_which_cards_there_are_and_what_opens_them(tmp_path: Path) -> None:
    said = with_cards(tmp_path, "check").stdout
    assert '/dev/nvidia0 /dev/nvidiactl with [accelerators] allow = ["nvidia"]' in said
    assert '/dev/kfd with [accelerators] allow = ["amd"]' in said


def with_cards(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The program's own command, where stand-ins for cards are in /dev."""
    (folder / "book").mkdir()
    command = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        OWN_DEV,
        "sh",
        sys.executable,
        "-I",
        "-m",
        "sandboxed_kernel",
        *arguments,
    ]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
