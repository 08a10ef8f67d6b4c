"""What %pip says at its end: how long an installation lasts, and what to do about -e."""

from __future__ import annotations

import pytest

from sandboxed_kernel.inside.packages import note


@pytest.mark.parametrize(
    ("line", "exit_code", "words"),
    [
        ("install cowsay", 0, "gone after a restart"),
        ("--quiet install 'a b'", 0, "gone after a restart"),
        ("install cowsay", 1, ""),
        ("install -e .", 1, "without -e"),
        ("install -e.", 0, "without -e"),
        ("install --editable=/home/u/libs", 1, "without -e"),
        ("install --editable libs", 0, "without -e"),
        ("install 'unclosed", 1, ""),
        ("list", 0, "you may need to restart"),
        ("uninstall -y cowsay", 0, "you may need to restart"),
        ("", 0, "you may need to restart"),
    ],
)
def test_the_note(line: str, exit_code: int, words: str) -> None:
    said = note(line, exit_code)
    assert words in said
    assert (said == "") == (words == "")
