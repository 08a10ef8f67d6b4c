"""Pure: where in a policy's text a mistake stands, as a line with a caret; what is meant by text that is no TOML."""

from __future__ import annotations

import re
import tomllib

from sandboxed_kernel.errors import PolicyError
from sandboxed_kernel.policy.lines import Path, offsets_of
from sandboxed_kernel.policy.words import shown

MAX_MISTAKES = 20  # that one message tells
_WIDEST = 100  # characters of a line that are shown
_PART = re.compile(r'([A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*")|\[([0-9]+)\]|\.')
_WHERE = re.compile(r"(.*) \(at (?:line ([0-9]+), column ([0-9]+)|end of document)\)", re.DOTALL)
_QUOTES = "\u201c\u201d\u201e\u2018\u2019\u00ab\u00bb"


def excerpt(text: str, offset: int) -> str:
    """The line at ``offset`` and a caret below its column."""
    offset = min(offset, len(text))
    number = text.count("\n", 0, offset) + 1
    begin = text.rfind("\n", 0, offset) + 1
    line = text[begin:].partition("\n")[0].rstrip("\r")
    column = min(offset - begin, len(line))
    first = max(0, column - _WIDEST + 20)
    seen = "".join(c if c.isprintable() else " " for c in line[first : first + _WIDEST])
    head = f"{number:>5} | "
    return f"{head}{seen}\n{'|':>7} {' ' * (column - first)}^"


def gathered(mistakes: list[PolicyError], texts: dict[str, str]) -> PolicyError:
    """All ``mistakes`` as one; ``texts`` are the policies that were read, by the place that names them in errors."""
    told = []
    offsets: dict[str, dict[Path, int]] = {}
    for mistake in mistakes[:MAX_MISTAKES]:
        source = max((name for name in texts if mistake.place.startswith(f"{name}: ")), key=len, default=None)
        if source is None or mistake.excerpt:
            told.append(mistake)
            continue
        if source not in offsets:
            offsets[source] = offsets_of(texts[source])
        at = _offset(mistake.place[len(source) + 2 :], offsets[source], keys=mistake.found == "unknown key")
        shows = "" if at is None else excerpt(texts[source], at)
        told.append(PolicyError(mistake.place, mistake.found, mistake.write, excerpt=shows))
    first, *further = told
    left = len(mistakes) - len(told)
    return PolicyError(
        first.place, first.found, first.write, excerpt=first.excerpt, further=tuple(further), untold=left
    )


def _offset(place: str, offsets: dict[Path, int], *, keys: bool) -> int | None:
    path: list[str | int] = []
    for match in _PART.finditer(place):
        if match[1]:
            path.append(str(tomllib.loads(f"x = {match[1]}")["x"]) if match[1][0] == '"' else match[1])
        elif match[2]:
            path.append(int(match[2]))
    if keys and (*path, "") in offsets:  # where its key stands
        return offsets[(*path, "")]
    while path:
        for found in (tuple(path), (*path, 0)):  # the first [[table]] of that name
            if found in offsets:
                return offsets[found]
        path.pop()
    return None


def not_toml(text: str, place: str, error: tomllib.TOMLDecodeError) -> PolicyError:
    """What is wrong in ``text``, and what its writer probably meant."""
    match = _WHERE.fullmatch(str(error))  # its attributes came with Python 3.14
    what = match[1] if match else str(error)
    offset = len(text.rstrip())
    where = "end of document"
    if match and match[2]:
        lines = text.split("\n")
        offset = sum(len(line) + 1 for line in lines[: int(match[2]) - 1]) + int(match[3]) - 1
        where = f"line {match[2]}, column {match[3]}"
    begin = text.rfind("\n", 0, offset) + 1
    line = text[begin:].partition("\n")[0].strip()
    before = text[begin:offset]
    found, write = _meant(what, line, before, text[offset : offset + 1])
    return PolicyError(f"{place}: {where}", f"not TOML: {found}", write, excerpt=excerpt(text, offset))


def _meant(what: str, line: str, before: str, at: str) -> tuple[str, str]:
    """(What was found, what to write) by the shape of the line."""
    key = re.match(r"[A-Za-z_][A-Za-z0-9_.]*", line)
    name = key[0] if key else ""
    declared = re.fullmatch(r"Cannot (?:declare|mutate|overwrite).*?(?:\((.*?),?\).*)?", what)
    if declared:
        twice = re.sub(r"'([^']*)',?", r"\1", declared[1] or name).replace(" ", ".")
        return f"{shown(twice)} stands there twice", "Write it once, with all that belongs to it"
    if any(quote in line for quote in _QUOTES):
        plain = line.translate({ord(quote): '"' for quote in _QUOTES})
        return "curly quotes", f"Write {plain}"
    if "\\" in before and '"' in before and what.startswith(("Invalid hex", "Unescaped", "Invalid escape")):
        return f"{what}: a backslash begins an escape", "Write / instead of \\ in paths"
    if line.startswith("{") or re.match(r"-\s", line) or (key and re.match(r"\s*:(?:\s|$)", line[len(name) :])):
        other = "JSON" if line.startswith("{") else "YAML"
        return other, 'Write TOML: [network], and below it allow = ["pypi.org:443"]'
    if re.fullmatch(r'"[^"]*:[0-9,*-]+",?', line):
        return "an entry without its key", f"Write [network], and below it allow = [{line.rstrip(',')}]"
    header = re.fullmatch(r"(\[[A-Za-z_.]+\])\s*([a-z_]+\s*=.*)", line)
    if header:
        return "more than a header in one line", f"Write {header[1]}, and below it {header[2]}"
    word = re.search(r"=\s*(True|False|yes|no|on|off)$", line)
    if word:
        return f"{shown(word[1])} without quotes", f"Write {'true' if word[1] in ('True', 'yes', 'on') else 'false'}"
    if what == "Unclosed array":
        return (
            "no comma between two entries, or no bracket at the end",
            "Write a comma between two entries, and ] at the end",
        )
    return _meant_of_value(what, line, name, at)


def _meant_of_value(what: str, line: str, name: str, at: str) -> tuple[str, str]:
    bare = re.search(r"=\s*([A-Za-z~/.][^\s\"'\[\]{}#,]*)$", line)
    if bare and what == "Invalid value":
        return "text without quotes", f"Write {name} = {shown(bare[1])}"
    if re.search(r"=\s*$", line):
        return "a key without a value", f"Write a value behind {name} =, or remove the line"
    if at == "=" and line.count("=") > 1:
        return "two equals signs", "Write one ="
    return what, _otherwise(what)


def _otherwise(what: str) -> str:
    if "Expected ']'" in what:
        return "Write ] at the end of the header"
    if "Expected newline" in what:
        return "Write nothing behind the value"
    return "Write TOML (toml.io)"
