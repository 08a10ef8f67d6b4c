"""What allow and forget change in a policy's tables."""

from __future__ import annotations

from typing import Any

import pytest

from sandboxed_kernel.errors import PolicyError
from sandboxed_kernel.policy.change import Change, apply, entry_for, entry_of, still_allowed
from sandboxed_kernel.policy.file import parse
from sandboxed_kernel.policy.model import Policy


@pytest.mark.parametrize(
    ("text", "private", "entry"),
    [
        ("PyPI.org.:443", False, "pypi.org:443"),
        ("bücher.example:80,443", False, "xn--bcher-kva.example:80,443"),
        ("*.a.example:*", False, "*.a.example:*"),
        ("udp://a.example:9", False, "udp://a.example:9"),
        ("[2001:db8::1]:443", False, "[2001:db8::1]:443"),
        ("db.corp:5432", True, {"host": "db.corp", "port": 5432, "private": True}),
        ("udp://db.corp:1,5-6", True, {"host": "db.corp", "ports": [1, "5-6"], "protocol": "udp", "private": True}),
        ("localhost:1", True, "localhost:1"),
    ],
)
def test_an_entry_has_the_form_that_is_compared(text: str, private: bool, entry: Any) -> None:
    assert entry_for(text, private=private) == entry


@pytest.mark.parametrize("text", ["pypi.org", "https://pypi.org", "*:443", "a b:1", "127.1:80", "-x:53", ""])
def test_what_is_no_destination_is_said(text: str) -> None:
    with pytest.raises(PolicyError):
        entry_for(text)


def test_a_refusal_gives_its_entry() -> None:
    assert entry_of("a.example", "10.0.0.1", 5432, "tcp", '"a.example:5432"') == "a.example:5432"
    assert entry_of(None, "2001:db8::1", 443, "tcp", '"[2001:db8::1]:443"') == "[2001:db8::1]:443"
    assert entry_of("a.example", None, None, "dns", '"a.example:PORT"') == "a.example:80,443"
    line = '{ host = "db.corp", port = 5432, private = true }'
    assert entry_of("db.corp", "10.0.0.1", None, "dns", line) == {"host": "db.corp", "port": 5432, "private": True}
    # Chosen by the code inside: the line of the log is not believed.
    assert entry_of("$(id)", None, None, "dns", '"x"') is None
    assert entry_of("a.example", None, 443, "tcp", None) is None
    assert entry_of("a.example", None, 443, "tcp", '"*.evil.example:*"') == "a.example:443"


def test_adding_twice_is_adding_once_and_forgetting_takes_every_spelling() -> None:
    table: dict[str, Any] = {"network": {"allow": ["PYPI.org:443"]}, "filesystem": {"read": ["~/data"]}}
    change = Change(allow=("pypi.org:443", "b.example:1"), read=("/h/data", "/srv"), presets=("pypi",))
    for _ in range(2):
        apply(table, change, Policy(), "/h")
    assert table == {
        "network": {"allow": ["PYPI.org:443", "b.example:1"]},
        "filesystem": {"read": ["~/data", "/srv"]},
        "extends": ["pypi"],
    }
    apply(table, Change(allow=("pypi.org:443",), read=("/h/data",), presets=("pypi",), remove=True), Policy(), "/h")
    assert table == {"network": {"allow": ["b.example:1"]}, "filesystem": {"read": ["/srv"]}, "extends": []}
    empty: dict[str, Any] = {}
    apply(empty, Change(allow=("a.example:1",), write=("/x",), remove=True), Policy(), "/h")
    assert empty == {}


def test_the_notebooks_folder_stays_writable() -> None:
    """Without any line it is; with one for another folder it would not be."""
    table: dict[str, Any] = {}
    apply(table, Change(write=("/srv/out",)), Policy(), "/h")
    assert table == {"filesystem": {"write": [".", "/srv/out"]}}
    narrow = parse('filesystem.write = ["./output"]', place="p", workspace="/w", home="/h")
    table = {"filesystem": {"write": ["./output"]}}
    apply(table, Change(write=("/srv/out",)), narrow, "/h")
    assert table == {"filesystem": {"write": ["./output", "/srv/out"]}}


def test_what_another_line_still_allows_is_said() -> None:
    policy = parse('network.allow = ["*.a.example:*", "b.example:80"]', place="p", workspace="/w", home="/h")
    assert still_allowed(policy, "x.a.example:443") == "p: network.allow[0]"
    assert still_allowed(policy, "b.example:443") is None
    assert still_allowed(policy, "10.0.0.1:443") is None
