"""Removing trees that hostile code goes on writing to, and private folders that many launchers make and remove."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sandboxed_kernel import private_folder
from sandboxed_kernel.linux.folders import OPEN_FOLDER, remove_tree
from sandboxed_kernel.private_folder import PrivateFolder


def remove(tree: Path, deadline: float = float("inf")) -> None:
    root = os.open(tree, OPEN_FOLDER)
    try:
        remove_tree(str(tree), root, last="last", deadline=deadline)
    finally:
        os.close(root)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """With folders that are closed to their owner."""
    top = tmp_path / "tree"
    for name in ("a", "b"):
        (top / name / "inner" / "deep").mkdir(parents=True)
        (top / name / "inner" / "file").touch()
        (top / name / "inner").chmod(0)
        (top / name).chmod(0)
    (top / "last").touch()
    return top


def test_closed_folders_are_removed(tree: Path) -> None:
    remove(tree)
    assert not tree.exists()


@pytest.mark.parametrize("level", ["a", "a/inner"])
def test_a_link_put_in_a_folders_place_is_not_followed(
    level: str, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at a name and its use: what chmod(2) and open(2) would follow."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    outside.chmod(0o500)
    before = outside.stat()
    victim = tree / level
    for folder in (tree / "a", tree / "a" / "inner"):
        folder.chmod(0o700)
    name, inode = victim.name, victim.lstat().st_ino
    original = os.lstat
    exchanged: list[str] = []

    def lstat(path: str, *, dir_fd: int) -> os.stat_result:
        found = original(path, dir_fd=dir_fd)
        if path == name and found.st_ino == inode and not exchanged:
            exchanged.append(path)
            victim.rename(tmp_path / "away")
            victim.symlink_to(outside)
        return found

    with monkeypatch.context() as patched:
        patched.setattr(os, "lstat", lstat)
        remove(tree)
    assert exchanged
    after = outside.stat()
    assert (stat.S_IMODE(after.st_mode), after.st_ctime_ns) == (stat.S_IMODE(before.st_mode), before.st_ctime_ns)
    assert os.listdir(outside) == ["kept"]
    if tree.exists():
        remove(tree)
    assert not tree.exists()


def test_an_interrupted_removal_keeps_the_last_file_and_is_taken_up_again(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove(tree, deadline=time.monotonic() - 1)
    assert sorted(os.listdir(tree)) == ["a", "b", "last"]
    done = 0
    original = os.rename

    def rename(old: str, new: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        nonlocal done
        original(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
        done += 1
        raise InterruptedError  # an OSError, as good as any

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", rename)
        remove(tree)
        remove(tree)
    assert done == 2
    assert (tree / "last").exists()
    assert any(name.startswith(".removed-") for name in os.listdir(tree))
    remove(tree)
    assert not tree.exists()


def in_children(number: int, action: Callable[[], object]) -> None:
    """``action`` in this many processes at once; each ends without cleaning up after itself."""
    pids = []
    for _ in range(number):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                action()
                code = 0
            finally:
                os._exit(code)
        pids.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * number


def make_and_leave() -> None:
    folder = PrivateFolder()
    os.mkdir(f"{folder.path}/h")
    Path(folder.path, "h", "file").touch()


def test_launchers_that_end_at_once_remove_what_is_abandoned_and_nothing_else(own_tmpdir: Path) -> None:
    living = PrivateFolder()
    in_children(8, make_and_leave)
    assert len(os.listdir(own_tmpdir)) == 9

    def live() -> None:
        for _ in range(50):
            folder = PrivateFolder()
            os.mkdir(f"{folder.path}/h")
            time.sleep(0)
            assert os.path.isdir(f"{folder.path}/h")
            folder.end()
            assert not os.path.exists(folder.path)

    in_children(4, live)
    assert os.listdir(own_tmpdir) == [os.path.basename(living.path)]
    living.end()
    assert os.listdir(own_tmpdir) == []


def test_the_exit_code_does_not_wait_for_a_large_one(own_tmpdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left then is for those who end later."""
    monkeypatch.setattr(private_folder, "_FOR_OTHERS", 0.0)
    in_children(1, make_and_leave)
    PrivateFolder().end()
    (left,) = own_tmpdir.iterdir()
    assert (left / "h" / "file").exists()
    monkeypatch.undo()
    monkeypatch.setenv("TMPDIR", str(own_tmpdir))
    PrivateFolder().end()
    assert os.listdir(own_tmpdir) == []


def test_without_locks_or_a_name_of_this_boot_a_folder_is_its_makers_alone(
    own_tmpdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(_descriptor: int, _how: int) -> None:
        raise OSError(95, "Operation not supported")

    def leave_unmarked() -> None:
        assert os.listdir(PrivateFolder().path) == []

    with monkeypatch.context() as patched:
        patched.setattr(private_folder, "flock", no_locks)
        in_children(1, leave_unmarked)
        PrivateFolder().end()
    with monkeypatch.context() as patched:
        patched.setattr(private_folder, "_marker", lambda: "")
        in_children(1, leave_unmarked)
        PrivateFolder().end()
    PrivateFolder().end()
    assert len(os.listdir(own_tmpdir)) == 2
