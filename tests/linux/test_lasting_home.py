"""Homes that last: found again, made anew, set aside, measured and removed, whatever lies in them."""

from __future__ import annotations

import os
import shutil
import stat
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from sandboxed_kernel import lasting_home
from sandboxed_kernel.home_commands import home
from sandboxed_kernel.lasting_home import Homes, InUseError, LastingHome, NothingLasts, open_lasting
from sandboxed_kernel.policy.lasting import FOLDERS, Owner

pytestmark = pytest.mark.usefixtures("open_descriptors")
LIMIT = 10 << 30


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A notebook's."""
    made = tmp_path / "proj"
    made.mkdir(mode=0o755)
    made.chmod(0o755)
    return made


@pytest.fixture
def homes(tmp_path: Path) -> str:
    return str(tmp_path / "data" / "homes")


def opened(homes: str, folder: Path, kernel: str = "k", *, more: bool = False) -> LastingHome:
    found = open_lasting(homes, Owner(str(folder), kernel, more))
    assert isinstance(found, LastingHome), found
    return found


def left(homes: str, folder: Path) -> str:
    """What a kernel leaves that wrote something; the name of its home."""
    one = opened(homes, folder)
    (Path(one.path) / "cache" / "model").write_text(str(folder))
    one.end()
    return one.name


def test_the_same_folder_and_kernel_find_it_again(homes: str, folder: Path) -> None:
    name = left(homes, folder)
    again = opened(homes, folder)
    assert (again.name, again.meta.runs) == (name, 2)
    assert (Path(again.path) / "cache" / "model").read_text() == str(folder)
    assert [sorted(os.listdir(again.path)), stat.S_IMODE(os.stat(homes).st_mode)] == [sorted(FOLDERS), 0o700]
    (said,) = again.remarks(LIMIT)
    assert "written by 2 runs" in said
    again.end()


def test_others_have_others(homes: str, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir(mode=0o755)
    found = [opened(homes, folder), opened(homes, folder, "k2"), opened(homes, folder, more=True),
             opened(homes, tmp_path / "other")]  # fmt: skip
    assert len({one.path for one in found}) == 4
    for one in found:
        one.end()


def test_two_kernels_at_once_share_it_and_neither_loses_it(homes: str, folder: Path) -> None:
    one, two = opened(homes, folder), opened(homes, folder)
    assert one.path == two.path
    one.end()
    assert os.path.isdir(two.path)  # nothing lay in it, and it was in use
    two.end()


@pytest.mark.parametrize(("access", "mask", "lasts"), [(7, 7, False), (5, 5, True), (7, 5, True)])
def test_nothing_lasts_where_an_acl_lets_others_write(
    access: int, mask: int, lasts: bool, homes: str, folder: Path
) -> None:
    """As setfacl(1) writes it for one other user."""
    nobody = 0xFFFFFFFF
    entries = [(1, 7, nobody), (2, access, 4321), (4, 5, nobody), (16, mask, nobody), (32, 5, nobody)]
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    try:
        os.setxattr(folder, "system.posix_acl_access", acl)
    except OSError as error:
        pytest.skip(f"no ACLs on this file system: {error}")
    found = open_lasting(homes, Owner(str(folder), "k", False))
    assert isinstance(found, LastingHome if lasts else NothingLasts)
    if isinstance(found, LastingHome):
        found.end()


def test_one_in_which_nothing_lies_is_removed_at_the_end(homes: str, folder: Path) -> None:
    opened(homes, folder).end()
    assert [name for name in os.listdir(homes) if not name.startswith(".")] == []


def test_a_folder_that_was_made_anew_gets_a_fresh_one(homes: str, folder: Path) -> None:
    name = left(homes, folder)
    folder.rmdir()
    time.sleep(0.01)
    folder.mkdir(mode=0o755)
    fresh = opened(homes, folder)
    assert (fresh.name, os.listdir(f"{fresh.path}/cache")) == (name, ["CACHEDIR.TAG"])
    (said,) = fresh.remarks(LIMIT)
    former = said.split()[-1]
    assert former.startswith(f"{name}.aside-")
    (Path(fresh.path) / "cache" / "model").write_text("fresh")
    with pytest.raises(InUseError), Homes(homes) as every:
        every.adopt(former, Owner(str(folder), "k", False))
    fresh.end()
    with Homes(homes) as every:
        every.adopt(former, Owner(str(folder), "k", False))
    taken = opened(homes, folder)
    assert (Path(taken.path) / "cache" / "model").read_text() == str(folder)
    assert taken.meta.runs == 2
    assert not [said for said in taken.remarks(LIMIT) if "adopt" in said]
    taken.end()


def test_a_folder_that_was_moved_gets_a_fresh_one_and_is_told(homes: str, folder: Path) -> None:
    name = left(homes, folder)
    moved = folder.rename(folder.with_name("moved"))
    fresh = opened(homes, moved)
    assert fresh.name != name
    (said,) = fresh.remarks(LIMIT)
    assert said.endswith(f"sandboxed-kernel home adopt {name}")
    fresh.end()
    copied = Path(shutil.copytree(moved, moved.with_name("copied")))
    copy = opened(homes, copied)
    assert list(copy.remarks(LIMIT)) == []
    copy.end()


@pytest.mark.parametrize("mode", [0o777, 0o757, 0o702])
@pytest.mark.parametrize("which", ["proj", "."])
def test_nothing_lasts_where_others_may_put_another_folder_in_its_place(
    which: str, mode: int, homes: str, folder: Path
) -> None:
    place = folder if which == "proj" else folder.parent
    before = stat.S_IMODE(place.stat().st_mode)
    place.chmod(mode)
    try:
        found = open_lasting(homes, Owner(str(folder), "k", False))
        assert isinstance(found, NothingLasts)
        assert found.describe().endswith(f"other users may write in {place}")
        place.chmod(mode | stat.S_ISVTX)
        opened(homes, folder).end()
    finally:
        place.chmod(before)


@pytest.mark.root
def test_nothing_lasts_in_a_folder_of_another_user(homes: str, folder: Path) -> None:
    os.chown(folder, 12345, 12345)
    found = open_lasting(homes, Owner(str(folder), "k", False))
    assert isinstance(found, NothingLasts)
    assert "another user" in found.reason


@pytest.mark.root
def test_root_touches_no_home_of_another_user(homes: str, folder: Path) -> None:
    name = left(homes, folder)
    os.chown(homes, 12345, 12345)
    with pytest.raises(PermissionError):
        Homes(homes)
    assert isinstance(open_lasting(homes, Owner(str(folder), "k", False)), NothingLasts)
    assert os.path.exists(f"{homes}/{name}/h/cache/model")


def test_without_a_place_nothing_lasts(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found = open_lasting(str(tmp_path / "file" / "homes"), Owner(str(folder), "k", False))
    assert isinstance(found, NothingLasts)
    assert "Not a directory" in found.describe()


def full_disk(patch: pytest.MonkeyPatch, failing: str) -> None:
    mkdir = os.mkdir

    def no_folder(name: str, mode: int, *, dir_fd: int) -> None:
        with suppress(FileNotFoundError):
            os.stat(name, dir_fd=dir_fd)
            mkdir(name, mode, dir_fd=dir_fd)
        raise OSError(28, "No space left on device")

    def no_file(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    if failing == "folder":
        patch.setattr(os, "mkdir", no_folder)
    else:
        patch.setattr(lasting_home, "_make_file", no_file)


@pytest.mark.parametrize("failing", ["folder", "file"])
def test_a_full_disk_leaves_what_was_there(
    failing: str, homes: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.makedirs(homes)
    with monkeypatch.context() as patch:
        full_disk(patch, failing)
        found = open_lasting(homes, Owner(str(folder), "k", False))
        assert isinstance(found, NothingLasts)
        assert "No space left" in found.describe()
    assert os.listdir(homes) == []
    name = left(homes, folder)
    with monkeypatch.context() as patch:
        full_disk(patch, failing)
        opened(homes, folder).end()  # all is there; how often it was used is of no weight
    assert sorted(os.listdir(f"{homes}/{name}")) == ["h", "meta.json"]
    after = opened(homes, folder)
    assert (Path(after.path) / "cache" / "model").exists()
    after.end()


def test_who_waits_for_the_lock_too_long_goes_without(
    homes: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lasting_home, "_PATIENCE", 0.05)
    with Homes(homes, make=True):
        found = open_lasting(homes, Owner(str(folder), "k", False))
    assert isinstance(found, NothingLasts)


def test_a_limit_and_a_full_disk_are_said(homes: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = opened(homes, folder)
    (Path(one.path) / "cache" / "model").write_bytes(b"x" * 2_000_000)
    (said,) = one.remarks(1 << 20)
    assert "[home] limit is 1.05 MB" in said
    monkeypatch.setattr(lasting_home, "_LITTLE", 1 << 62)
    (said,) = one.remarks(LIMIT)
    assert "less than 1 GiB is free" in said
    assert "home clean --cache" in said
    one.end()


# --- what hostile code left ------------------------------------------------------------------------------------------


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """The receiver: nothing in it, or of it, may change."""
    place = tmp_path / "outside"
    (place / "inner").mkdir(parents=True)
    (place / "inner" / "kept").write_text("kept")
    (place / "inner" / "kept").chmod(0o400)
    place.chmod(0o500)
    before = seen(place)
    yield place
    assert seen(place) == before
    place.chmod(0o700)


def seen(place: Path) -> list[object]:
    paths = [place, place / "inner", place / "inner" / "kept"]
    looks = [path.stat() for path in paths]
    listed = [os.listdir(path) for path in paths[:2]]
    return [*listed, *((look.st_mode, look.st_ctime_ns, look.st_nlink, look.st_ino) for look in looks)]


def plant(home: Path, outside: Path) -> None:
    """Twenty links, and what else is in the way."""
    home.mkdir(exist_ok=True)
    targets = [outside, outside / "inner", outside / "inner" / "kept", outside / "missing", Path("/"), Path("..")]
    for number in range(20):
        (home / f"link{number}").symlink_to(targets[number % len(targets)])
    deep = os.open(home, os.O_RDONLY)
    try:
        for level in range(1500):  # no path, and no stack of descriptors, reaches its end
            os.mkdir("d" * 100, dir_fd=deep)
            if level % 500 == 7:
                os.symlink(outside, "link", dir_fd=deep)
            inner = os.open("d" * 100, os.O_RDONLY, dir_fd=deep)
            os.close(deep)
            deep = inner
    finally:
        os.close(deep)
    os.mkfifo(home / "fifo")
    (home / "\x1b]0;name\x07").touch()
    (home / "closed").mkdir()
    (home / "closed" / "link").symlink_to(outside)
    (home / "closed").chmod(0)


def test_what_was_planted_leads_nobody_outside(homes: str, folder: Path, outside: Path) -> None:
    one = opened(homes, folder)
    for name in FOLDERS:
        plant(Path(one.path) / name, outside)
    (Path(one.path) / "cache").chmod(0)
    one.end()
    again = opened(homes, folder)
    assert len(list(again.remarks(LIMIT))) == 1
    again.end()
    with Homes(homes) as every:
        ((name, size, whole),) = every.sizes(every.names(), 60)
        assert not whole
        assert 0 < size < 1 << 30
    with Homes(homes) as every:
        every.empty_cache(name)
    assert os.listdir(f"{again.path}/cache") == ["CACHEDIR.TAG"]
    with Homes(homes) as every:
        every.remove(name)
    assert sorted(os.listdir(homes)) == [".nomedia", ".trackerignore"]


def test_one_in_use_is_not_removed(homes: str, folder: Path) -> None:
    one = opened(homes, folder)
    with Homes(homes) as every:
        for act in (every.remove, every.empty_cache):
            with pytest.raises(InUseError):
                act(one.name)
    assert os.path.isdir(one.path)
    one.end()


def test_what_was_not_removed_to_its_end_is_removed_later(homes: str, folder: Path) -> None:
    left(homes, folder)
    for name in (".new-12345678", ".removed-12345678"):
        (Path(homes) / name / "h").mkdir(parents=True)
    with Homes(homes) as every:
        every.remove_left()
    assert not [name for name in os.listdir(homes) if name.startswith((".new", ".removed"))]


# --- the command -----------------------------------------------------------------------------------------------------


class Options:
    """As argparse gives them."""

    def __init__(self, what: str, *names: str, workspace: Path, **given: bool) -> None:
        self.what, self.names, self.workspace = what, list(names), str(workspace)
        self.gone = self.all = self.cache = False
        self.policy = self.kernel = None
        self.__dict__.update(given)


@pytest.fixture
def command(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., str]:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "d"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "c"))

    def run(what: str, *names: str, **given: bool) -> str:
        home(Options(what, *names, workspace=folder, **given))  # type: ignore[arg-type]
        return capsys.readouterr().out

    return run


def test_the_command_lists_measures_and_removes(command: Callable[..., str], tmp_path: Path, folder: Path) -> None:
    assert "does not exist" in command("list")
    homes = str(tmp_path / "d" / "sandboxed-kernel" / "homes")
    gone = tmp_path / "g\x1b[31mone"
    gone.mkdir(mode=0o755)
    one = open_lasting(homes, Owner(str(folder), "sandboxed-python3", False))
    other = open_lasting(homes, Owner(str(gone), "sandboxed-python3", False))
    assert isinstance(one, LastingHome)
    assert isinstance(other, LastingHome)
    (Path(one.path) / "cache" / "model").write_bytes(b"x" * 1_000_000)
    (Path(other.path) / "store" / "x").touch()
    other.end()
    gone.rmdir()
    listed = command("list")
    assert "\x1b" not in listed
    assert [line.split()[0] for line in listed.splitlines()] == sorted([one.name, other.name])
    assert [
        ("in use" in line, "(gone)" in line) for line in sorted(listed.splitlines(), key=lambda x: "(gone)" in x)
    ] == [
        (True, False),
        (False, True),
    ]
    assert "1.0" in command("size") or "MB" in command("size")
    assert "stays: a kernel uses it" in command("clean")
    one.end()
    assert "removed" in command("clean", gone=True)
    assert "empty caches" in command("clean", cache=True)
    assert os.listdir(f"{one.path}/cache") == ["CACHEDIR.TAG"]
    assert "removed" in command("clean")
    assert command("list") == ""
    assert "Nothing lasts" in command("clean")
