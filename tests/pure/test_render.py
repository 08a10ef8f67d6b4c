"""A notice says what to do, and nothing that the sandbox chose acts in it."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxed_kernel.notices import render
from sandboxed_kernel.notices.advice import Place
from sandboxed_kernel.notices.events import Event, Kind
from sandboxed_kernel.records import replace

NASTY = st.one_of(
    st.text(max_size=400),
    st.lists(
        st.sampled_from(
            ["<script>", "'", '"', "</code>", "\u202e", "\x1b[2J", "$\\href{x}", "`", "&lt;", "{}", "\n", "\ud800"]
        )
    ).map("".join),
)
EVENTS = st.builds(
    Event,
    kind=st.sampled_from(get_args(Kind)),
    verdict=st.just("refused"),
    reason=NASTY,
    protocol=st.sampled_from(["tcp", "udp", "dns"]),
    when=st.just(1.0),
    pid=st.integers(1, 9),
    process=NASTY,
    host=st.none() | NASTY,
    address=st.none() | NASTY,
    port=st.none() | st.integers(0, 65535),
    allow_line=st.none() | NASTY,
    count=st.integers(1, 9),
)


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, list[str]]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, [name for name, _ in attrs]))


@given(EVENTS, st.booleans())
def test_nothing_in_a_notice_acts(event: Event, late: bool) -> None:
    page = render.as_html(event, late=late)
    allowed = [("div", ["role", "style"]), ("strong", []), ("code", []), ("br", [])]
    assert [tag for tag in Tags(page).found if tag not in allowed] == []
    assert not re.search(r"[$`]|\\(?!u\{)", page)  # no TeX, no Markdown; a backslash only begins an escape of ours
    for said in (page, render.text(event, late=late)):
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", said)


def test_a_notice_names_place_reason_process_and_line() -> None:
    endpoint: dict[str, Any] = {
        "host": "db.example",
        "address": "192.0.2.1",
        "port": 5432,
        "allow_line": '"db.example:5432"',
    }
    event = Event("connect", "refused", "no line admits it", "tcp", 1.0, 42, "curl", count=3, **endpoint)
    assert render.text(event, late=True).splitlines() == [
        "[sandbox] Before this cell ran: connection to db.example:5432 (192.0.2.1) refused, 3 times.",
        "          Why: no line admits it",
        "          Process: curl (pid 42)",
        "          To allow it, in a terminal: sandboxed-kernel allow db.example:5432",
        "          Or in the policy:",
        "              [network]",
        '              allow = ["db.example:5432"]',
        "          Then run the cell again.",
    ]
    place = Place("/etc/policy.toml", ("--policy", "/etc/policy.toml"), is_mine=False)
    assert render.text(event, place=place).splitlines()[3:5] == [
        "          To allow it, ask whoever manages the policy to write in /etc/policy.toml:",
        "              [network]",
    ]


def test_no_field_is_empty() -> None:
    event = Event("limit", "refused", "the sandbox used more than 1 GiB", "", 1.0, 22218, "")
    assert render.text(event).splitlines()[2:] == ["          Process: pid 22218"]
    assert "<code></code>" not in render.as_html(replace(event, pid=0))
    assert "Process" not in render.text(replace(event, pid=0))


def test_a_notice_of_a_name_says_which_port_to_write() -> None:
    event = Event("name", "refused", "r", "dns", 1.0, 1, "p", host="a.example", allow_line='"a.example:80,443"')
    assert render.text(event, place=Place("/c/exam.policy.toml", ("--kernel", "exam"))).splitlines()[-6:] == [
        "          To allow it, in a terminal: sandboxed-kernel allow a.example:80,443 --kernel exam",
        "          Or in /c/exam.policy.toml:",
        "              [network]",
        '              allow = ["a.example:80,443"]',
        "          The port was not asked for yet: http has 80, https 443.",
        "          Then run the cell again.",
    ]
    assert "<code>sandboxed-kernel allow a.example:80,443</code>" in render.as_html(event)


@pytest.mark.parametrize(
    ("host", "said"), [("::1", "[::1]:80"), ("a.example", "a.example:80"), ("x" * 400, "x" * 300 + "...")]
)
def test_a_place_is_written_as_people_write_it(host: str, said: str) -> None:
    event = Event("connect", "refused", "r", "tcp", 1.0, 1, "p", host=host, port=80)
    assert said in render.text(event)


@given(st.text())
def test_markup_is_escaped_as_by_the_standard_library(value: str) -> None:
    assert value.translate(render._HTML) == html.escape(value)
