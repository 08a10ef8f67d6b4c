"""``[[folder]]``: what holds for the notebooks of one folder, beside what holds for all."""

from __future__ import annotations

import pytest

from sandboxed_kernel.errors import PolicyError
from sandboxed_kernel.policy.file import parse
from sandboxed_kernel.policy.model import Policy

TEXT = """
[network]
allow = ["all:1"]
[limits]
processes = 10
[[folder]]
path = "~/a"
[folder.network]
allow = ["a:1"]
[[folder]]
path = "/h/a/b"
extends = ["p"]
[folder.limits]
processes = 5
[[folder]]
path = "/other"
network.allow = ["other:1"]
"""
PRESETS = {"p": 'network.allow = ["preset:1"]'}


def read(text: str, workspace: str = "/w") -> Policy:
    return parse(text, place="p.toml", workspace=workspace, home="/h", presets=PRESETS)


@pytest.mark.parametrize(
    ("workspace", "allowed", "processes"),
    [
        ("/w", ["all:1"], 10),
        ("/h/a", ["all:1", "a:1"], 10),
        ("/h/a/x/y", ["all:1", "a:1"], 10),
        ("/h/ab", ["all:1"], 10),  # a longer name is not a folder beneath
        ("/h", ["all:1"], 10),
        ("/h/a/b/c", ["all:1", "preset:1"], 5),  # the longest alone
        ("/other", ["all:1", "other:1"], 10),
    ],
)
def test_the_longest_path_above_the_notebook_counts(workspace: str, allowed: list[str], processes: int) -> None:
    policy = read(TEXT, workspace)
    assert [rule.text for rule in policy.allow] == allowed
    assert policy.limits.processes == processes


def test_its_place_is_named() -> None:
    assert read(TEXT, "/h/a").allow[1].place == "p.toml: folder[0].network.allow[0]"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[folder]]\n", "folder[0]: no path. Write path"),
        ("[folder]\npath = '/a'\n", "folder: "),
        ("[[folder]]\npath = 'a'\n", 'folder[0].path: "a" starts from no fixed folder'),
        ("[[folder]]\npath = '~bob/a'\n", "the home of another user"),
        ("[[folder]]\npath = 3\n", "not a string"),
        ("[[folder]]\npath = '/elsewhere'\nnetwork.alow = []\n", 'folder[0].network.alow: unknown key. Write "allow"'),
        ("[[folder]]\npath = '/elsewhere'\nextends = 'p'\n", 'Write ["p"]'),
        ("[[folder]]\npath = '/elsewhere'\nextends = ['x.toml']\n", "folder[0].extends[0]: "),
    ],
)
def test_a_mistake_is_said_wherever_the_notebook_is(text: str, says: str) -> None:
    with pytest.raises(PolicyError) as raised:
        read(text)
    assert says in str(raised.value)
