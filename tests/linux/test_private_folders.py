"""Removing trees that hostile code goes on writing to, and private folders that launchers make and remove."""

from __future__ import annotations

import fcntl
import os
import stat
import time
import tracemalloc
from pathlib import Path

import pytest

from sandboxed_kernel import private_folder
from sandboxed_kernel.linux.folders import OPEN_FOLDER, link_beneath, remove_tree, size_of_tree
from sandboxed_kernel.private_folder import PrivateFolder, remove_left_pools


def remove(tree: Path) -> None:
    root = os.open(tree, OPEN_FOLDER)
    try:
        remove_tree(str(tree), root)
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


def test_an_interrupted_removal_is_taken_up_again(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert any(name.startswith(".removed-") for name in os.listdir(tree))
    remove(tree)
    assert not tree.exists()


def test_a_folder_is_locked_against_tidying_up_until_its_end(own_tmpdir: Path) -> None:
    folder = PrivateFolder()
    (Path(folder.path) / "h").mkdir()
    other = os.open(folder.path, OPEN_FOLDER)
    try:
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(other)
    assert os.listdir(own_tmpdir) == [os.path.basename(folder.path)]
    folder.end()
    assert os.listdir(own_tmpdir) == []


def test_a_file_system_without_locks_has_private_folders_too(own_tmpdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(_descriptor: int, _how: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(private_folder, "flock", no_locks)
    PrivateFolder().end()
    assert os.listdir(own_tmpdir) == []


PLANTED = ("a", "a/b", "datasets")


@pytest.mark.parametrize("kind", ["link", "dangling link", "file", "folder", "fifo"])
@pytest.mark.parametrize("planted", PLANTED)
def test_a_link_is_made_beneath_whatever_was_planted(planted: str, kind: str, tmp_path: Path) -> None:
    home, outside = tmp_path / "h", tmp_path / "outside"
    outside.mkdir()
    place = home / planted
    place.parent.mkdir(parents=True)
    if kind == "link":
        place.symlink_to(outside)
    elif kind == "dangling link":
        place.symlink_to(outside / "made")
    elif kind == "file":
        place.write_text("theirs")
    elif kind == "folder":
        place.mkdir()
    else:
        os.mkfifo(place)
    before = place.lstat()
    root = os.open(home, OPEN_FOLDER)
    try:
        made = [link_beneath(root, path, "/target") for path in ("a/b/c", "datasets")]
    finally:
        os.close(root)
    assert os.listdir(outside) == []  # the receiver
    assert place.lstat().st_ino == before.st_ino  # nothing was replaced
    assert stat.S_IFMT(place.lstat().st_mode) == stat.S_IFMT(before.st_mode)
    in_the_way = [planted in ("a", "a/b") and kind != "folder", planted == "datasets"]
    assert made == [not blocked for blocked in in_the_way]


def test_a_link_that_says_the_same_is_one(tmp_path: Path) -> None:
    root = os.open(tmp_path, OPEN_FOLDER)
    try:
        assert [link_beneath(root, "x/y", target) for target in ("/a", "/a", "/b")] == [True, True, False]
    finally:
        os.close(root)
    assert os.readlink(tmp_path / "x" / "y") == "/a"
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o700


def crowded(folder: Path) -> Path:
    """A folder of more entries than anybody looks at in a moment. They are names of few files, which takes seconds."""
    folder.mkdir()
    for number in range(60_000):
        if number % 30_000 == 0:
            (folder / str(number)).touch()
        else:
            os.link(folder / str(number // 30_000 * 30_000), folder / str(number))
    return folder


def test_a_folder_of_very_many_entries_holds_no_start_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the look at what lasts nor what a killed kernel seems to have left in the notebook's folder."""
    left = crowded(tmp_path / ".pool-of-another")
    (tmp_path / ".pool-small" / "0").mkdir(parents=True)
    monkeypatch.setattr(private_folder, "_LOOK", 0.005)
    descriptor = os.open(left, OPEN_FOLDER)
    tracemalloc.start()
    try:
        assert not size_of_tree(descriptor, time.monotonic() + 0.005)[1]
        remove_left_pools(str(tmp_path), ".pool-of")
        assert tracemalloc.get_traced_memory()[1] < 1 << 20  # a list of the names takes 4 MB
    finally:
        tracemalloc.stop()
        os.close(descriptor)
    assert len(os.listdir(left)) == 60_000
    remove_left_pools(str(tmp_path), ".pool-small")
    assert os.listdir(tmp_path) == [".pool-of-another"]
