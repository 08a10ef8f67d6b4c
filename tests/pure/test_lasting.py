"""What of a private home lasts, for whom, and for which folder."""

from __future__ import annotations

import pytest

from sandboxed_kernel.policy.file import parse
from sandboxed_kernel.policy.lasting import (
    FOLDERS,
    LASTING,
    Meta,
    Owner,
    former_homes,
    is_same_folder,
    meta_from,
    opens_more,
    size_about,
)
from sandboxed_kernel.records import replace

META = Meta("/h/proj", "sandboxed-python3", False, 7, 1_000, 10, 20, 3)


def test_each_row_has_a_reason_and_a_place_of_its_own() -> None:
    assert all(row.reason for row in LASTING)
    assert len({row.place for row in LASTING}) == len({row.lasts for row in LASTING}) == len(LASTING) == len(FOLDERS)


START_UP = """
    .bashrc .profile .bash_profile .zshrc .config .config/fish/config.fish .config/git/config .gitconfig .inputrc
    .ipython .ipython/profile_default .ipython/profile_default/startup .ipython/profile_default/ipython_config.py
    .ipython/profile_default/ipython_kernel_config.py .ipython/extensions .jupyter .local .local/lib .local/bin
    .local/lib/python3.11/site-packages .local/share .local/share/jupyter .pdbrc .pythonrc.py .pythonstartup .npmrc
    .Rprofile .julia .vimrc .gdbinit .ssh .config/pip/pip.conf .pip/pip.conf .pydistutils.cfg .condarc .cargo bin
    .keras .ipython/profile_default/db .config/matplotlib .netrc .Renviron .sqliterc .psqlrc .octaverc .wgetrc .curlrc
"""


@pytest.mark.parametrize("name", START_UP.split())
def test_what_is_run_or_obeyed_by_itself_does_not_last(name: str) -> None:
    places = [row.place for row in LASTING]
    assert not [place for place in places if place == name or name.startswith(f"{place}/")]


def test_homes_of_different_owners_have_different_names() -> None:
    owners = [Owner(folder, kernel, more) for folder in ("/a", "/a b", "/a/b", "/\udcff")
              for kernel in ("k", "k2", 'k"') for more in (False, True)]  # fmt: skip
    assert len({owner.name for owner in owners}) == len(owners)
    assert all(len(owner.name) == 16 and set(owner.name) <= set("0123456789abcdef") for owner in owners)


@pytest.mark.parametrize(("text", "more"), [
    ("", False),
    ('[network]\nallow = ["pypi.org:443"]', False),
    ('[filesystem]\nwrite = ["./output"]', False),
    ('[filesystem]\nread = ["/h/proj/data"]', False),
    ('[filesystem]\nread = ["~/datasets"]', True),
    ('[filesystem]\nwrite = ["../other"]', True),
    ('[environment]\npass = ["API_KEY"]', True),
    ('[environment]\nset = { TOKEN = "x" }', True),
    ('[network]\nunix = ["/run/postgresql/.s.PGSQL.5432"]', True),
    ('[filesystem]\nread = ["./linked"]', True),
    ('[outputs]\nactive_content = "allow"', True),
    ('[accelerators]\nallow = ["nvidia"]', True),
])  # fmt: skip
def test_who_is_given_more_shares_no_home_with_who_is_not(text: str, more: bool) -> None:
    real_paths = {"/h/proj/linked": "/h/theirs", "/h/proj/data": "/h/proj/data"}
    assert opens_more(parse(text, place="p", workspace="/h/proj", home="/h"), "/h/proj", real_paths) is more


def test_what_is_written_is_read_again() -> None:
    odd = replace(META, folder="/h/\udcff\n\u202e\U0001f600", kernel='"k"')
    for meta in (META, odd):
        assert meta_from(meta.to_json()) == meta


WRITTEN = META.to_json()
BROKEN = (WRITTEN.replace("7", '"7"', 1), WRITTEN.replace("false", "0"), WRITTEN.replace("1000", "1e3"), WRITTEN[:-1])


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", "{", "1e999", "[" * 100, *BROKEN])
def test_anything_else_is_none(text: str) -> None:
    assert meta_from(text) is None


@pytest.mark.parametrize(("inode", "birth", "same"), [
    (7, 1_000, True),
    (7, 2_000, False),  # made anew, with the number of the one removed
    (8, 1_000, True),  # a file system that numbers anew
    (8, 2_000, False),
    (7, 0, True),  # a file system that does not say
    (8, 0, False),
])  # fmt: skip
def test_a_folder_is_the_same(inode: int, birth: int, same: bool) -> None:
    assert is_same_folder(META, inode, birth) is same


def test_without_times_of_birth_the_number_decides() -> None:
    unborn = replace(META, birth=0)
    assert is_same_folder(unborn, 7, 5)
    assert not is_same_folder(unborn, 8, 5)


def test_which_homes_may_be_meant() -> None:
    homes = {
        "set aside": replace(META, used=5),
        "more": replace(META, more=True, used=9),
        "moved": replace(META, folder="/h/before", used=7),
        "another kernel": replace(META, kernel="k"),
        "another folder": replace(META, folder="/h/b", inode=8, birth=1),
        "same number elsewhere": replace(META, folder="/mnt/c", birth=3),
    }
    assert former_homes(homes, META) == ["more", "moved", "set aside"]
    assert former_homes({"x": replace(META, folder="/h/b", birth=0)}, replace(META, birth=0)) == []


@pytest.mark.parametrize(("size", "text"), [
    (0, "0 B"), (999, "999 B"), (1000, "1 kB"), (999_499, "999 kB"), (999_600, "1 MB"), (412_300_000, "412 MB"),
    (10 << 30, "10.7 GB"), (999_600_000_000, "1 TB"), (5 * 10**15, "5000 TB"),
])  # fmt: skip
def test_a_size_for_people(size: int, text: str) -> None:
    assert size_about(size) == text
