"""Every mistake of a policy is told at once, with its line; and what a message suggests is accepted when it is done.

The table of wrong policies and their messages is wrong_policies.txt, read by people when it changes:
``python tests/pure/test_wrong_policies.py`` writes it anew.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandboxed_kernel.errors import PolicyError
from sandboxed_kernel.policy.file import parse
from sandboxed_kernel.policy.read import presets
from sandboxed_kernel.policy.syntax import MAX_MISTAKES
from sandboxed_kernel.policy.words import shown

TABLE = Path(__file__).with_name("wrong_policies.txt")
PRESETS = presets()

# --- kinds of mistakes, from which the policies are made ------------------------------------------------------------

DESTINATIONS = [
    "pypi.org",
    "*",
    "localhost",
    "127.0.0.1",
    "10.0.0.0/8",
    "10.0.0.1/8:443",
    "[2001:db8::]/32:443",
    "2001:db8::1",
    "2001:db8::1:443",
    "https://pypi.org/simple",
    "http://pypi.org",
    "https://pypi.org:8443/x",
    "postgres://u:p@db.example/x",
    "user@example.org:22",
    " pypi.org:443",
    "pypi.org:https",
    "pypi.org:0",
    "pypi.org:70000",
    "pypi.org:90-80",
    "pypi.org:",
    ":443",
    "",
    "*:443",
    "*.com:443",
    "a.*.org:443",
    "*a.org:443",
    "a..b:443",
    "-a.example:443",
    "127.1:80",
    "0x7f.1:80",
    "1.2.3:80",
    "999.1.1.1:80",
    "169.254.169.254:80",
    "0.0.0.0:80",
    "224.0.0.1:80",
    "[fe80::1%eth0]:80",
    "[127.0.0.1]:80",
    "example.org:53",
    "pypi.org:443/simple",
    "pypi org:443",
    "udp://pypi.org",
    "tcp://pypi.org",
    "any",
    "ftp://files.example",
    "stra\u00dfe.de:443",
    "10.0.0.0/33:80",
    "pypi.org;443",
    "pypi.org 443",
    "pypi.org:443,",
    "pypi.org:443 # comment",
    "pypi.org:443, files.pythonhosted.org:443",
    "pypi.org:443-",
    "pypi.org:80,abc",
    "pypi.org:-1",
    "pypi.org:4 43",
    "pypi.org:443:443",
    "//pypi.org:443",
    "pypi.org.:443.",
    "**.pypi.org:443",
    "*.*.pypi.org:443",
    "pypi.*:443",
    ".pypi.org:443",
    "py\u200bpi.org:443",
    "pypi.org\uff1a443",
    "\u201cpypi.org:443\u201d",
    "pypi.org:443\n",
    "s3://bucket/key",
    "git@github.com:org/repo.git",
    "ssh://git@github.com/org/repo",
    "wss://stream.example/socket",
    "file:///etc/passwd",
    "localhost:",
    "::1:8080",
    "[::1]",
    "[::1]8080",
    "[::1:8080",
    "fe80::1:80",
    "192.168.1.:80",
    "192.168.1.0/24",
    "192.168.1.0-192.168.1.9:80",
    "192.168.*.*:80",
    "[::]/0:443",
    "8.8.8.8:53",
    "udp://8.8.8.8:53",
    "255.255.255.255:80",
    "a" * 64 + ".example:443",
    "%2e.example:443",
    "$HOST:443",
    "<host>:<port>",
    "internet",
    "pypi.org:443; conda.anaconda.org:443",
    "pypi.org : 443",
    "all",
    "none",
    "-",
]
TABLES = [
    "{ port = 443 }",
    '{ host = "a.example" }',
    '{ host = "a.example", port = 1, ports = [2] }',
    '{ host = "", port = 1 }',
    '{ host = "a.example", port = true }',
    '{ host = "a.example", ports = [] }',
    '{ host = "a.example", prt = 1 }',
    '{ host = "a.example", port = 1, protocol = "sctp" }',
    '{ host = "a.example", port = 1, private = "yes" }',
    '{ host = "a.example", port = 443, tls = "off" }',
    '{ host = "192.0.2.7", port = 443, tls = "checked" }',
    '{ host = "a.example", port = 443, protocol = "udp", tls = "checked" }',
    '{ host = "a.example:1", port = 1 }',
    "3",
    "true",
    "[]",
    '["a.example:1"]',
    '{ host = ["a.example"], port = 1 }',
    '{ host = "a.example", ports = ["90-80"] }',
    '{ hostname = "a.example", port = 1 }',
    '{ url = "https://a.example" }',
    '{ host = "a.example", port = 1, until = "tomorrow" }',
    '{ host = "a.example", port = 1, until = 2026-01-01 }',
    '{ host = "a.example", port = 1, tls = true, x = 1 }',
    '{ host = "*", port = 443 }',
    '{ host = "a.example", port = 0 }',
    '{ host = "a.example", port = 1.5 }',
]
STRINGS = {  # key -> values that are no list of texts
    "filesystem.read": ['"~/x"', "3", "true", "{}", "[3]", '[""]', '["$HOME/x"]', '["*.csv"]', '["~root/x"]'],
    "filesystem.write": ['"."', "false", '["data/*"]', '["${DATA}"]'],
    "filesystem.require": ['"~/x"', "[1.5]"],
    "network.unix": ['"/run/x.sock"', "[true]"],
    "environment.pass": ['"LANG"', "[3]", '["A B"]', '["OPENAI_*"]', '["JUPYTERHUB_API_TOKEN"]', '["$LANG"]'],
    "environment.set": ['["A=1"]', '"A=1"', "{ A = 1 }", "{ A = true }", '{ "A B" = "" }', "3"],
    "best_effort": ["true", '"signals"', '["signal"]', "[3]", "{}"],
    "accelerators.allow": ['"nvidia"', '["nvida"]', "true"],
    "extends": ['"pypi"', '["pypy"]', "[3]", "true"],
}
VALUES = {
    "outputs.active_content": ["true", "false", '"yes"', '"stripe"', "3"],
    "network.pins": ["3", '"sesion"', '"x"', "true"],
    "network.proxy": ['"127.0.0.1:1"', '"https://a.example:1"', '"http://a.example"', '"http://a.example:1/x"', "3128"],
    "limits.memory": ["4", "true", "1.5", '"4G"', '"4"', '"-4 GiB"', '"4 KiB"', "[]"],
    "limits.processes": ["0", "false", '"200"', "1.5"],
    "limits.open_files": ["3", '"many"'],
    "limits.cpu_seconds": ["9223372036854775808", '"1 h"'],
    "limits.file_size": ['"9999999999 TiB"', "0"],
}
KEYS = [
    "netwrk = {}",
    "allow = []",
    "memory = 1",
    "zzz = 1",
    "[network]\nalow = []",
    "[network]\nextends = []",
    '[network]\nbest_effort = ["tcp"]',
    "[environment]\nzzz = 1",
    "[limits]\nmemry = 1",
    "network = 3",
    "limits = []",
    "[filesystem]\nreed = []",
    '[outputs]\nactive-content = "strip"',
    "[[folder]]\n[folder.network]\nallow = []",
    '[[folder]]\npath = "x"',
    '[[folder]]\npath = "~/p"\nextends = ["a.toml"]',
    "folder = 3",
    "[folder]\npath = '~/p'",
    "[[folder]]\npath = 3",
    "[[folder]]\npath = ''",
    "[[folder]]\npath = '~/p'\nallow = ['a.example:1']",
    "[[folders]]\npath = '~/p'",
    "[[folder]]\npath = '~/p'\n[folder.netwrk]\nallow = []",
    "[networks]\nallow = []",
    "[Network]\nallow = []",
    "[network.allow]\nhosts = []",
    "[network]\nAllow = []",
    "[network]\ndeny = ['a.example:1']",
    "[network]\nblock = []",
    "[filesystem]\nallow = []",
    "[filesystem]\nreadonly = []",
    "[files]\nread = []",
    "[env]\npass = []",
    "[environment]\nOPENAI_API_KEY = 'x'",
    "[limits]\nmem = 1",
    "[limits]\ntimeout = 3",
    "[limits]\ncpu = 2",
    "[output]\nactive_content = 'strip'",
]
NOT_TOML = [
    "[network]\nallow = [\u201cpypi.org:443\u201d]",
    '[network]\nallow = ["a.example:1" "b.example:2"]',
    '[network]\nallow = ["a:1"',
    '[filesystem]\nread = ["C:\\Users\\me"]',
    "network:\n  allow: [a]",
    '{"network": {}}',
    "- pypi.org:443",
    '"pypi.org:443"',
    '[outputs] active_content = "strip"',
    "[limits]\nprocesses = 1\nprocesses = 2",
    "[network]\n[network]",
    "[environment]\nfrom = ['A']",
    "[environment]\nfrom = 'A=~/.env'",
    "[environment.from]\nA = 1",
    "[environment.from]\nA = '$HOME/.env'",
    "[environment.from]\n'A B' = '~/.env'",
    "[environment.from]\nHOME = '~/.env'",
    "[[folder]]\npath = '~/p'\nproject = 1",
    "[[folder]]\npath = '~/p'\nproject = 'yes'",
    "project = true",
    "[home]\nkeep = 'no'",
    "[home]\nlimit = 'much'",
    "[home]\nlimits = 1",
    "x = = 1",
    "[outputs]\nactive_content = strip",
    "[network\n",
    "[limits]\nprocesses =",
    "[limits]\nmemory = 4 GiB",
    "x = True",
    "x = yes",
    "[network]\npins = 'ttl",
    "[filesystem]\nread = [~/data]",
    "[network]\nallow += []",
]


def wrong() -> Iterator[str]:
    for text in DESTINATIONS:
        yield f"[network]\nallow = [{shown(text)}]"
    for text in TABLES:
        yield f"[network]\nallow = [{text}]"
    for key, values in (STRINGS | VALUES).items():
        table, _, name = key.rpartition(".")
        for value in values:
            yield (f"[{table}]\n" if table else "") + f"{name} = {value}"
    yield from KEYS
    yield from NOT_TOML


WRONG = list(wrong())


def mistake(text: str) -> PolicyError | None:
    try:
        parse(text, place="policy.toml", workspace="/home/u/book", home="/home/u", presets=PRESETS)
    except PolicyError as error:
        return error
    return None


def table() -> str:
    return "\n".join(f"{text}\n--> {mistake(text)}\n" for text in WRONG)


def test_the_messages_are_those_that_were_read() -> None:
    assert len(WRONG) > 150
    assert TABLE.read_text() == table()


@pytest.mark.parametrize("text", WRONG)
def test_each_message_shows_the_line(text: str) -> None:
    error = mistake(text)
    assert error is not None
    line, caret = error.excerpt.splitlines()
    number, _, seen = line.partition(" | ")
    assert text.split("\n")[int(number) - 1] == seen
    assert re.fullmatch(r" {6}\| +\^", caret)
    assert len(caret) - 8 <= len(seen) + 1


# --- what is suggested is accepted ----------------------------------------------------------------------------------


def keys_of(place: str) -> list[str | int]:
    found = re.findall(r'([A-Za-z0-9_-]+)|"([^"]*)"|\[([0-9]+)\]', place.removeprefix("policy.toml: "))
    return [int(number) if number else word or quoted for word, quoted, number in found]


def value_of(literal: str) -> Any:
    return tomllib.loads(f"x = {literal}")["x"]


def corrected(text: str, error: PolicyError) -> dict[str, Any] | None:
    """The policy with the suggestion done; None where it is advice in words, which no program can follow."""
    write = error.write.partition(", or remove")[0]
    if "line" in error.place or "document" in error.place:
        return corrected_text(text, write)
    policy = tomllib.loads(text)
    *above, last = keys_of(error.place)
    holder: Any = policy
    for part in above:
        holder = holder[part]
    if moved := re.fullmatch(r'Write "(\w+)" (?:under \[(\w+)\]|above the first \[table\])', write):
        value = holder.pop(last)
        (policy.setdefault(moved[2], {}) if moved[2] else policy)[moved[1]] = value
        return policy
    if write.startswith("Remove"):
        del holder[last]
        return policy
    literal = re.fullmatch(r'(?:Write|.*for example|.*such as) ("[^"]*"|\[.*\]|\{.*\}|[0-9]+)', write)
    if literal is None:
        return None
    if error.found == "unknown key":
        holder[value_of(literal[1])] = holder.pop(last)
    elif isinstance(holder[last], dict) and re.search(r"unknown key", error.found):
        entry = holder[last]
        wrong_key = next(key for key in entry if key not in ("host", "port", "ports", "protocol", "private"))
        entry[value_of(literal[1])] = entry.pop(wrong_key)
    elif write.startswith("Write [") and re.fullmatch(r"Write \[\w+\]", write):
        holder[last] = {}
    else:
        holder[last] = value_of(literal[1])
    return policy


def corrected_text(text: str, write: str) -> dict[str, Any] | None:
    if below := re.fullmatch(r"Write (?:TOML: )?(\[\w+\]), and below it (.*)", write):
        return tomllib.loads(f"{below[1]}\n{below[2]}")
    *lines, last = text.split("\n")
    if re.match(r"Write \w+ = ", write):
        return tomllib.loads("\n".join([*lines, write.removeprefix("Write ")]))
    if re.fullmatch(r"Write (true|false)", write):
        return tomllib.loads(f"{last.partition('=')[0]}= {write.removeprefix('Write ')}") and None
    return None


def toml(policy: dict[str, Any]) -> str:
    return "\n".join(f"{key} = {shown_in_full(value)}" for key, value in policy.items())


def shown_in_full(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f'"{key}" = {shown_in_full(item)}' for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(shown_in_full, value)) + "]"
    return shown(value)


def test_most_suggestions_can_be_done_by_a_program() -> None:
    done = [text for text in WRONG if (error := mistake(text)) and corrected(text, error) is not None]
    assert len(done) > 100


@pytest.mark.parametrize("text", WRONG)
def test_what_is_suggested_is_not_refused(text: str) -> None:
    error = mistake(text)
    assert error is not None
    policy = corrected(text, error)
    if policy is not None:
        again = mistake(toml(policy))
        same_key = error.found == "unknown key" and again is not None and "unknown key" not in again.found
        assert again is None or same_key, f"{error}\n{again}"


# --- all at once ----------------------------------------------------------------------------------------------------


def test_all_mistakes_are_told_at_once_each_with_its_line() -> None:
    text = """\
best_effort = ["tcp", "signal"]
[network]
allow = ["a.example:1", "b.example",
         "c.example", { host = "d.example" }]
alow = []
[environment]
pass = ["A B", "LANG", 3]
set = { A = 1, B = "x", C = true }
[[folder]]
path = "~/p"
[folder.limits]
processes = 0
"""
    error = mistake(text)
    assert error is not None
    places = [each.place.removeprefix("policy.toml: ") for each in (error, *error.further)]
    assert places == [
        "best_effort[1]",
        "network.allow[1]",
        "network.allow[2]",
        "network.allow[3]",
        "network.alow",
        "environment.pass[0]",
        "environment.pass[2]",
        "environment.set.A",
        "environment.set.C",
        "folder[0].limits.processes",
    ]
    lines = [int(each.excerpt.split("|")[0]) for each in (error, *error.further)]
    assert lines == [1, 3, 4, 4, 5, 7, 7, 8, 8, 12]
    assert str(error).count("^") == len(places)


def test_no_more_than_a_screen_of_them() -> None:
    error = mistake("[network]\nallow = [" + '"a",' * 1000 + "]")
    assert error is not None
    assert str(error).count("^") == MAX_MISTAKES
    assert str(error).endswith(f"\n{1000 - MAX_MISTAKES} more mistakes are not shown.")


def test_a_mistake_in_a_preset_shows_the_line_of_the_preset() -> None:
    with pytest.raises(PolicyError) as caught:
        parse('extends = ["p"]\nzzz = 1', place="q", workspace="/w", home="/h", presets={"p": "\n\n[limits]\nx = 1"})
    assert "preset p: limits.x: unknown key" in str(caught.value)
    assert "    4 | x = 1\n" in str(caught.value)
    assert "    2 | zzz = 1\n" in str(caught.value)


if __name__ == "__main__":
    TABLE.write_text(table())
    sys.stdout.write(f"{len(WRONG)} policies\n")
