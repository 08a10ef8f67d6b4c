"""docs/policy.md says what the code does: its examples are read, its tables compared."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sandboxed_kernel.errors import PolicyError
from sandboxed_kernel.policy.explain import explain_endpoint
from sandboxed_kernel.policy.file import _KEYS, parse
from sandboxed_kernel.policy.model import BEST_EFFORT_NAMES
from sandboxed_kernel.policy.read import presets
from sandboxed_kernel.policy.variables import KEPT_OUT

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "policy.md").read_text()
EXAMPLES = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)


def section(heading: str) -> str:
    match = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", TEXT, re.DOTALL | re.MULTILINE)
    assert match is not None, f"docs/policy.md has no section {heading}"
    return match[1]


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_is_a_policy(example: str) -> None:
    known = presets()
    text = example.replace("../team.toml", "pypi")
    policy = parse(text, place="p", workspace="/h/project", home="/h", presets=known)
    assert policy != parse("", place="p", workspace="/h/project", home="/h")


def test_every_key_has_its_section_and_an_example() -> None:
    for key, inner in _KEYS.items():
        if isinstance(inner, dict):
            text = section(f"`[{key}]`")
            assert all(re.search(rf"^{name} = ", text, re.MULTILINE) for name in inner), key
        else:
            assert f"\n{key} = " in section(f"`{key}`")
    assert set(presets()) == set(re.findall(r"^\| `([\w-]+)` \|", section("`extends`"), re.MULTILINE))
    assert tuple(re.findall(r"^\| `(\w+)` \|", section("`best_effort`"), re.MULTILINE)) == BEST_EFFORT_NAMES


def test_every_variable_that_is_kept_out_is_listed() -> None:
    listed = re.findall(r"`([A-Z_]+\*?)`", section("`[environment]`").partition("neither passed nor set")[2])
    assert sorted(listed) == sorted(row.pattern for row in KEPT_OUT)


def test_the_error_and_the_answer_shown_are_the_real_ones() -> None:
    wrong = '[network]\nallow = ["a.example:443", "https://pypi.org/simple"]\nalow = []'
    with pytest.raises(PolicyError) as caught:
        parse(wrong, place="policy.toml", workspace="/w", home="/h")
    assert f"\n{caught.value}\n" in TEXT
    policy = parse(EXAMPLES[0], place="policy.toml", workspace="/w", home="/h", presets=presets())
    answer = explain_endpoint(policy, "telemetry.example.com", 443)
    assert f"refused: {answer.reason}.\n" in TEXT
    assert f"\n    {answer.line}\n" in TEXT
