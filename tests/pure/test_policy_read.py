"""Reading policy files: what cannot be read is an error that names the file; relative extends start at the file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sandboxed_kernel.errors import PolicyError
from sandboxed_kernel.policy.model import Policy
from sandboxed_kernel.policy.read import MAX_BYTES, load


def read(path: str) -> Policy:
    return load(path, workspace="/home/u/book", home="/home/u")


def error_of(path: Path | str) -> str:
    with pytest.raises(PolicyError) as caught:
        read(str(path))
    return str(caught.value).partition("\n")[0]  # without the line and its caret


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    return tmp_path / "policy.toml"


def test_a_policy_that_extends_a_preset_and_files_beside_it(policy: Path) -> None:
    (policy.parent / "shared").mkdir()
    policy.write_text('extends = ["pypi", "shared/a.toml"]\nnetwork.allow = ["mine.example:1"]')
    (policy.parent / "shared" / "a.toml").write_text('extends = ["./b.toml"]\nfilesystem.read = ["data"]')
    (policy.parent / "shared" / "b.toml").write_text('network.allow = ["b.example:1"]')
    result = read(str(policy))
    assert [rule.text for rule in result.allow] == [
        "pypi.org:443",
        "files.pythonhosted.org:443",
        "b.example:1",
        "mine.example:1",
    ]
    # What a grant is relative to is the notebook's folder, in whichever file it stands.
    assert [grant.path for grant in result.grants] == ["/home/u/book/data"]
    a, b = (str(policy.parent / "shared" / name) for name in ("a.toml", "b.toml"))
    assert result.sources == (str(policy), "preset pypi", a, b)


def test_a_mark_of_byte_order_is_no_error(policy: Path) -> None:
    policy.write_bytes(b"\xef\xbb\xbf[network]\npins = 'ttl'\n")
    assert read(str(policy)).pins == "ttl"


def test_the_largest_file(policy: Path) -> None:
    policy.write_bytes(b"#" * MAX_BYTES)
    assert read(str(policy)).allow == ()
    policy.write_bytes(b"#" * (MAX_BYTES + 1))
    assert error_of(policy) == f"{policy}: more than 1 MiB. Name a policy file, some lines of text"


def test_what_cannot_be_read(policy: Path) -> None:
    write = "Name a policy file that you may read"
    assert error_of(policy) == f"{policy}: cannot be read (No such file or directory). {write}"
    assert error_of(f"{policy}/x") == f"{policy}/x: cannot be read (No such file or directory). {write}"
    assert error_of("") == f": cannot be read (No such file or directory). {write}"
    assert error_of("x" * 5000).endswith(f"cannot be read (File name too long). {write}")
    assert error_of("a\0b") == "a\\0b: a NUL character in the file's name. Write the name of a file"
    policy.symlink_to(policy)
    assert error_of(policy) == f"{policy}: cannot be read (Too many levels of symbolic links). {write}"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_permission(policy: Path) -> None:
    policy.touch(mode=0)
    write = "Name a policy file that you may read"
    assert error_of(policy) == f"{policy}: cannot be read (Permission denied). {write}"


def test_what_is_no_file(policy: Path) -> None:
    for path in (str(policy.parent), "/dev/null"):
        assert error_of(path) == f"{path}: not a regular file. Name a policy file"
    os.mkfifo(policy)  # opening it must not wait for a writer
    assert error_of(policy) == f"{policy}: not a regular file. Name a policy file"


def test_what_is_not_text(policy: Path) -> None:
    policy.write_bytes(b"# caf\xe9\n")
    assert error_of(policy) == f"{policy}: byte 6 is not UTF-8. Save the file as UTF-8"


def test_an_error_in_toml_names_file_line_and_column(policy: Path) -> None:
    policy.write_text("[network]\nallow = [,]\n")
    assert error_of(policy) == f"{policy}: line 2, column 10: not TOML: Invalid value. Write TOML (toml.io)"


def test_a_missing_extended_file_is_an_error_of_the_line_that_names_it(policy: Path) -> None:
    policy.write_text('extends = ["nowhere.toml"]')
    missing = policy.parent / "nowhere.toml"
    reason = "cannot be read (No such file or directory). Name a policy file that you may read"
    assert error_of(policy) == f"{policy}: extends[0]: {missing}: {reason}"


def test_an_error_in_an_extended_file_names_that_file(policy: Path) -> None:
    policy.write_text('extends = ["b.toml"]')
    other = policy.parent / "b.toml"
    other.write_text("x = 1")
    assert error_of(policy).startswith(f"{other}: x: unknown key.")


@pytest.mark.parametrize("spelling", ["policy.toml", "./policy.toml", "d/../policy.toml", "link.toml"])
def test_a_file_that_extends_itself_by_any_spelling_is_a_cycle(policy: Path, spelling: str) -> None:
    (policy.parent / "link.toml").symlink_to(policy)
    policy.write_text(f'extends = ["{spelling}"]')
    assert ": extends[0]: a cycle: " in error_of(policy)


def test_a_name_without_toml_is_a_preset_even_if_such_a_file_exists(policy: Path) -> None:
    (policy.parent / "mine").write_text("")
    policy.write_text('extends = ["mine"]')
    assert '"mine": no such preset (presets: data-science, llm-api, offline, pypi, teaching)' in error_of(policy)
