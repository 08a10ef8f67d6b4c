"""Each entry of a policy is found on the line on which it stands."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from sandboxed_kernel.policy.file import Source
from sandboxed_kernel.policy.lines import Path, lines_of
from sandboxed_kernel.policy.origins import origins
from sandboxed_kernel.policy.read import presets

TEXTS = [
    "",
    "# only a comment",
    "a = 1\nb = [1, 2]\n",
    "a = [\n  1, # one ] \n\n  [2, 3],\n]\nb.c = 'x # y'\n",
    "[a]\n[a.b]\nc = { d = 1, e = [ 'x', { f = 2 } ] }\n",
    '"quoted key" = 1\n\'lit\'.x = 2\n["t.a".b]\nd = 1979-05-27T07:32:00Z\n',
    'a = """one\n[not]\n\\""""""\nb = \'\'\'x\n]\n\'\'\'\nc = "q\\"] #"\n',
    "[[folder]]\npath = 'a'\n[folder.network]\nallow = ['x:1']\n[[folder]]\npath = 'b'\n",
    "a = 1\r\nb = [\r\n  2,\r\n]\r\n",
]


def leaves(value: Any, path: Path = ()) -> set[Path]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = {path} if not isinstance(value, dict | list) else set()
    return found.union(*(leaves(item, (*path, key)) for key, item in items))


@pytest.mark.parametrize("text", [*TEXTS, *presets().values()])
def test_every_value_is_found(text: str) -> None:
    lines = lines_of(text)
    assert leaves(tomllib.loads(text)) <= lines.keys()
    for path, line in lines.items():
        value: Any = tomllib.loads(text)
        for part in path:
            value = value[part]
        if isinstance(value, str) and "\n" not in value and "\\" not in text:
            assert value in text.splitlines()[line - 1]


def test_an_entry_comes_with_its_section_and_the_last_value_holds() -> None:
    team = 'limits.memory = "1 GiB"\n[network]\nallow = ["a:1", { host = "b", port = 2 }]\n'
    mine = 'extends = ["team.toml"]\n[limits]\nmemory = "2 GiB"\n[network]\nallow = [\n  "c:3",\n]\n'
    rows = origins([Source("team.toml", team, "/", "t"), Source("mine.toml", mine, "/", "m")])
    assert [(row.place, row.section, row.value, row.overridden) for row in rows] == [
        ("team.toml:1", "[limits] memory", '"1 GiB"', True),
        ("team.toml:3", "[network] allow", '"a:1"', False),
        ("team.toml:3", "[network] allow", '{ host = "b", port = 2 }', False),
        ("mine.toml:1", "extends", '"team.toml"', False),
        ("mine.toml:3", "[limits] memory", '"2 GiB"', False),
        ("mine.toml:6", "[network] allow", '"c:3"', False),
    ]
