"""What git's settings name, in each spelling that git reads."""

from __future__ import annotations

import pytest

from sandboxed_kernel.policy.git_settings import named_in

PATHS = {
    "[core]\n\thooksPath = hooks": {"hooks"},
    "[core] hooksPath=hooks": {"hooks"},
    '[core "x"] [CORE]HOOKSPATH = "my hooks" # a comment': {"my hooks"},
    "[core]\nhooksPath = ho\\\noks ; a comment": {"hooks"},
    '[include]\n\tpath = "~/a;b"\r\n[includeIf "gitdir:/x/"]\n\tpath = c': {"~/a;b", "c"},
    "[init]\ntemplateDir = $HOME/t": {"~/t"},
    "# [core] hooksPath = no\n[user]\n\tname = data\n[core]\n\tworktree = ../../lib\nbare": set(),
}


@pytest.mark.parametrize("text", PATHS)
def test_paths(text: str) -> None:
    assert set(named_in(text).paths) == PATHS[text]


def test_what_is_included_is_only_what_an_include_names() -> None:
    assert named_in('[include] path = a\n[mergetool "x"]\n\tpath = b').included == ("a",)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("[core]\n\tfsmonitor = tools/watch", "tools/watch"),
        ('[core]\n\tfsmonitor = "a b/watch"', "a b/watch"),
        ('[diff "x"]\n\ttextconv = sh tools/x.sh -v', "tools/x.sh"),
        ("[alias]\n\tgo = !cd x && ./run.sh", "./run.sh"),
        ('[filter "x"]\n\tclean = \\"tools/x y\\" %f', "tools/x"),
        ("[pager]\n\tlog = ./less", "./less"),
        ('[credential "https://x"]\n\thelper = !./helper', "./helper"),
    ],
)
def test_words_of_commands(text: str, word: str) -> None:
    assert word in named_in(text).words
