"""The command in a notice allows what was refused, and nothing in it means anything to a shell."""

from __future__ import annotations

import re
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxed_kernel.notices.advice import ALLOW, PRESETS, Place, command, preset_command
from sandboxed_kernel.notices.events import Event
from sandboxed_kernel.policy.change import entry_for
from sandboxed_kernel.policy.destination import parse_destination
from sandboxed_kernel.policy.explain import allow_line, allow_name_line, explain_endpoint
from sandboxed_kernel.policy.file import parse
from sandboxed_kernel.policy.model import Transport
from sandboxed_kernel.policy.read import presets
from sandboxed_kernel.policy.words import size_text

HERE = Place()


def event(line: str | None, host: str | None = "a.example", port: int | None = 443) -> Event:
    return Event("connect", "refused", "r", "tcp", 1.0, 1, "p", host, "192.0.2.1", port, None, line)


@pytest.mark.parametrize(
    ("host", "port", "transport", "private"),
    [
        ("Bücher.Example", 443, "tcp", False),
        ("10.0.0.1", 1, "tcp", True),
        ("db.corp", 5432, "tcp", True),
        ("db.corp", 5432, "udp", True),
        ("localhost", 8888, "tcp", True),
    ],
)
def test_the_command_means_the_line(host: str, port: int, transport: Transport, private: bool) -> None:
    line = allow_line(host, port, transport, private=private)
    said = command(event(line), HERE)
    assert said is not None
    *options, target = shlex.split(said.removeprefix(ALLOW))
    entry = entry_for(target, private=options == ["--private"])
    one = parse("network.allow = [" + str(line) + "]", place="p", workspace="/", home="/").allow[0]
    other = parse_destination(entry, "p")
    assert (one.name, one.network, one.ports, one.transport, one.private) == (
        other.name, other.network, other.ports, other.transport, other.private
    )  # fmt: skip


def test_an_address_in_brackets_is_chosen_by_number() -> None:
    """Brackets are patterns to a shell."""
    assert command(event('"[2001:db8::1]:443"'), HERE) == ALLOW


@given(st.text(max_size=300), st.text(max_size=100))
def test_nothing_in_it_means_anything_to_a_shell(line: str, option: str) -> None:
    place = Place("/p", ("--policy", option))
    for written in (f'"{line}"', f'unix = ["{line}"]'):
        said = command(event(written), place)
        assert said is not None
        assert re.fullmatch(r"sandboxed-kernel allow[A-Za-z0-9_.,:/@%+=~ -]*", said)
        assert len(said) <= 200


def test_where_no_line_helps_there_is_no_command() -> None:
    assert command(event(None), HERE) is None
    assert preset_command(event(None, "pypi.org"), HERE) is None


def test_a_preset_is_named_for_its_hosts() -> None:
    for name, hosts in PRESETS.items():
        policy = parse(f'extends = ["{name}"]', place="p", workspace="/", home="/", presets=presets())
        for host in hosts:
            assert explain_endpoint(policy, host, 443).allowed
            line = allow_name_line(host)
            assert preset_command(event(line, host, None), HERE) == (name, f"{ALLOW} --preset {name}")
    assert preset_command(event('"pypi.org:80"', "pypi.org", 80), HERE) is None
    assert preset_command(event('"a.example:443"'), HERE) is None


@pytest.mark.parametrize(
    ("size", "text"),
    [(1 << 30, "1 GiB"), (3 << 29, "1.5 GiB"), (100_000_000, "100 MB"), (16 << 20, "16 MiB"), (16777217, "16777217 B")],
)
def test_a_size_is_written_as_the_policy_takes_it(size: int, text: str) -> None:
    assert size_text(size) == text
    policy = parse(f'limits.memory = "{text}"', place="p", workspace="/", home="/")
    assert policy.limits.memory == size
