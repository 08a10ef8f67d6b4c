"""Where a control group can be made: told from the files, without moving anybody.

The files are made up here, as they lie on hosts that the documentation names; tests/vm shows the real ones at work.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sandboxed_kernel.confinement.group import make_group
from sandboxed_kernel.linux import cgroups
from sandboxed_kernel.linux.cgroups import Group, Place
from sandboxed_kernel.policy.model import Limits
from tests.support.sandbox import IN_CONTAINER

WANTED = frozenset({"memory", "pids"})
EVERYTHING = "cpuset cpu io memory hugetlb pids"


@dataclass
class Host:
    """A made-up /sys/fs/cgroup and the two files of /proc that lead there."""

    root: Path
    path: str = "/"
    mount: str = "/"  # the root of the mount, proc_pid_mountinfo(5)

    def group(
        self, path: str, *, hands_on: str = "", has: str = EVERYTHING, kind: str = "domain", busy: str = ""
    ) -> Path:
        folder = self.root / "mount point" / path.strip("/")
        folder.mkdir(parents=True, exist_ok=True)
        files = {"procs": busy, "subtree_control": f"{hands_on}\n", "controllers": f"{has}\n", "type": f"{kind}\n"}
        for name, text in files.items():
            (folder / f"cgroup.{name}").write_text(text)
        return folder

    def place(self, wanted: frozenset[str] = WANTED) -> tuple[str, set[str]] | None:
        """What is found, beneath the mount point."""
        proc = self.root / "proc"
        proc.mkdir(exist_ok=True)
        (proc / "cgroup").write_text(f"4:memory:/elsewhere\n0::{self.path}\n")
        point = str(self.root / "mount point").replace(" ", "\\040")
        (proc / "mountinfo").write_text(
            "22 1 0:5 / /proc rw,nosuid shared:5 - proc proc rw\n"
            f"30 1 0:26 {self.mount} {point} rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
        )
        found = cgroups.find_place(wanted, str(proc))
        if found is None:
            return None
        return found.path.removeprefix(str(self.root / "mount point")), set(found.controllers)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_the_group_above_takes_it(host: Host) -> None:
    """systemd's: a terminal in a scope of its own beneath app.slice, which belongs to the user."""
    host.path = "/user.slice/user-1000.slice/user@1000.service/app.slice/run-1.scope"
    host.group(os.path.dirname(host.path), hands_on="cpu memory pids")
    host.group(host.path, busy="1\n")
    assert host.place() == (os.path.dirname(host.path), {"memory", "pids"})


def test_the_root_of_all_takes_it_itself(host: Host) -> None:
    """The only group that may hold processes and hand on memory; it has no type, and nothing lies above."""
    (host.group("/", hands_on="memory pids", busy="1\n") / "cgroup.type").unlink()
    assert host.place() == ("", {"memory", "pids"})


def test_a_group_of_a_container_is_found_beneath_its_mount(host: Host) -> None:
    """Without a cgroup namespace of its own: paths are the host's, the mount shows a part of them."""
    host.mount, host.path = "/docker/1234", "/docker/1234/init"
    host.group("/", hands_on="memory pids")
    host.group("/init", busy="1\n")
    assert host.place() == ("", {"memory", "pids"})


def test_what_is_not_handed_on_is_not_promised(host: Host) -> None:
    host.path = "/a/b"
    host.group("/a", hands_on="pids", has="pids")
    host.group("/a/b")
    assert host.place() == ("/a", {"pids"})
    assert host.place(frozenset({"memory"})) is None


@pytest.mark.parametrize(
    ("path", "mount"),
    [
        ("/", "/"),  # the root of a namespace: what is above is not ours
        ("/../outside", "/"),  # moved out of its cgroup namespace
        ("/other/b", "/a"),  # not in what is mounted
    ],
)
def test_where_our_own_group_is_not_seen_there_is_no_place(host: Host, path: str, mount: str) -> None:
    host.path, host.mount = path, mount
    host.group("/", busy="1\n")
    host.group("/a", hands_on="memory pids")
    host.group("/a/b")
    host.group("/b")
    assert host.place() is None


def test_a_group_of_threads_has_no_memory_to_give(host: Host) -> None:
    host.path = "/a/b"
    host.group("/a", hands_on="memory pids", kind="domain threaded")
    host.group("/a/b")
    assert host.place() is None


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is closed to root; the ordinary stage runs it")
def test_what_this_user_may_not_write_is_no_place(host: Host) -> None:
    host.path = "/a/b"
    folder = host.group("/a", hands_on="memory pids")
    host.group("/a/b")
    (folder / "cgroup.procs").chmod(0o444)
    assert host.place() is None
    (folder / "cgroup.procs").chmod(0o644)
    folder.chmod(0o555)
    assert host.place() is None
    folder.chmod(0o755)
    assert host.place() is not None


def test_controllers_are_switched_on_only_where_that_was_given_to_this_user(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """systemd's Delegate= with DelegateSubgroup=: an empty group of one's own, with nothing switched on."""
    host.path = "/unit/main"
    control = host.group("/unit") / "cgroup.subtree_control"
    host.group("/unit/main")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert host.place() is None  # everything belongs to root
    monkeypatch.setattr(os, "geteuid", lambda: (control.stat().st_uid or 7) + 1)
    assert host.place() is None  # somebody else's
    assert control.read_text() == "\n"
    if control.stat().st_uid == 0:
        os.chown(control.parent, 4321, -1)
    monkeypatch.setattr(os, "geteuid", lambda: control.parent.stat().st_uid)
    (control.parent / "cgroup.procs").write_text("17\n")
    assert host.place() is None  # somebody lives in it: Linux would refuse memory, and make pids a group of threads
    (control.parent / "cgroup.procs").write_text("")
    host.place()
    assert control.read_text() == "+memory +pids"


def test_without_version_2_there_is_no_place(tmp_path: Path) -> None:
    (tmp_path / "mountinfo").write_text("")
    (tmp_path / "cgroup").write_text("4:memory:/\n")
    assert cgroups.find_place(WANTED, str(tmp_path)) is None
    assert cgroups.find_place(WANTED, str(tmp_path / "missing")) is None


@pytest.mark.container
@pytest.mark.skipif(not IN_CONTAINER, reason="only in the container")
def test_a_container_as_docker_makes_it_has_no_place() -> None:
    """Its /sys is read-only and shows no cgroup; the promises are kept there by the broker's watch."""
    assert make_group(Limits(memory=1 << 30, processes=10)) is None


def test_what_cannot_be_removed_is_said(tmp_path: Path) -> None:
    group = cgroups.make(Place(str(tmp_path), WANTED))
    (Path(group.path) / "below").mkdir()
    assert not group.remove(time.monotonic() + 0.01)
    (Path(group.path) / "below").rmdir()
    assert not (Path(group.path) / "cgroup.kill").exists()  # so this was only a folder
    assert group.remove(time.monotonic())
    assert group.remove(time.monotonic())  # twice: launcher and broker both do


@pytest.mark.parametrize("missing", ["memory.oom.group", "memory.max", "pids.max", "cgroup.procs"])
def test_a_group_that_cannot_be_set_up_or_entered_is_none_and_leaves_nothing(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the broker's watch keeps the limits; a group that keeps half of them would be believed."""
    above = tmp_path / "above"
    above.mkdir()
    made: list[Path] = []

    def make(place: Place) -> Group:
        found = real(place)
        made.append(Path(found.path))
        for name in {"memory.max", "memory.oom.group", "pids.max", "cgroup.procs"} - {missing}:
            Path(found.path, name).touch()
        return found

    def rmdir(path: str, **options: Any) -> None:  # as Linux: a group goes with its files
        for file in os.listdir(path):
            os.unlink(os.path.join(path, file))
        really(path, **options)

    really = os.rmdir
    real = cgroups.make
    monkeypatch.setattr(cgroups, "make", make)
    monkeypatch.setattr(os, "rmdir", rmdir)
    monkeypatch.setattr(cgroups, "find_place", lambda _wanted: Place(str(above), WANTED))
    assert make_group(Limits(memory=1 << 30, processes=10)) is None
    assert len(made) == 1
    assert list(above.iterdir()) == []


def test_two_launchers_do_not_take_each_others_groups(tmp_path: Path) -> None:
    place = Place(str(tmp_path), WANTED)
    first = cgroups.make(place)
    second = cgroups.make(place)
    assert Path(first.path).exists()
    assert first.remove(time.monotonic() + 1)
    forsaken = tmp_path / "sandboxed-kernel-0123456789abcdef"
    forsaken.mkdir()
    somebody_elses = tmp_path / "another.scope"
    somebody_elses.mkdir()
    third = cgroups.make(place)
    assert {path.name for path in tmp_path.iterdir()} == {
        os.path.basename(second.path),
        os.path.basename(third.path),
        somebody_elses.name,
    }
    for group in (second, third):
        assert group.remove(time.monotonic() + 1)
