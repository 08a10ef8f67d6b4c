"""Pure: on which line of a TOML text each value stands. The text has been read by tomllib, so it is TOML (toml.io)."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator

Path = tuple[str | int, ...]  # ("network", "allow", 2)

_KEY = re.compile(r"""[ \t]*([A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*')[ \t]*""")
_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_STRING = re.compile(
    r'"""(?:[^"\\]|\\.|"(?!""))*"""(?:""?(?!"))?' + r"|'''(?:[^']|'(?!''))*'''(?:''?(?!'))?"
    r'|"(?:[^"\\\n]|\\.)*"' + r"|'[^'\n]*'",
    re.DOTALL,
)
_PLAIN = re.compile(r"[^,\]}#\n]*")  # a number, a date, true


def lines_of(text: str) -> dict[Path, int]:
    """The line (from 1) on which the value at each path begins, arrays and inline tables among them."""
    return {path: text.count("\n", 0, at) + 1 for path, at in _Scanner(text).document() if path[-1] != ""}


def offsets_of(text: str) -> dict[Path, int]:
    """Where the value at each path begins, and behind an "" its key; the first header of a table."""
    found: dict[Path, int] = {}
    for path, at in _Scanner(text).document(headers=True):
        found.setdefault(path, at)
    return found


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text, self._at = text, 0

    def document(self, *, headers: bool = False) -> Iterator[tuple[Path, int]]:
        header: Path = ()
        counts: dict[Path, int] = {}  # of [[arrays of tables]]
        while self._skip(_BLANK) and self._at < len(self._text):
            if self._peek("["):
                many = self._text.startswith("[[", self._at)
                self._at += 2 if many else 1
                begin = self._at
                header = self._resolved(self._key(), counts, many)
                if headers:
                    yield header, begin
                    yield (*header, ""), begin
                self._at += 2 if many else 1
            else:
                yield from self._pair(header)

    def _resolved(self, key: tuple[str, ...], counts: dict[Path, int], many: bool) -> Path:
        """Where a header's table stands: within the last of an array of tables, where a part of it names one."""
        path: Path = ()
        for index, part in enumerate(key):
            path = (*path, part)
            if many and index == len(key) - 1:
                counts[path] = counts.get(path, -1) + 1
            if path in counts:
                path = (*path, counts[path])
        return path

    def _pair(self, above: Path) -> Iterator[tuple[Path, int]]:
        begin = self._at
        key = self._key()
        yield (*above, *key, ""), begin
        self._at += 1  # "="
        yield from self._value((*above, *key))

    def _key(self) -> tuple[str, ...]:
        parts = []
        while match := _KEY.match(self._text, self._at):
            self._at = match.end()
            word = match[1]
            parts.append(str(tomllib.loads(f"x = {word}")["x"]) if word[0] in "\"'" else word)
            if not self._peek("."):
                break
            self._at += 1
        return tuple(parts)

    def _value(self, path: Path) -> Iterator[tuple[Path, int]]:
        self._skip(_BLANK)
        yield path, self._at
        if self._peek("["):
            yield from self._array(path)
        elif self._peek("{"):
            yield from self._inline_table(path)
        elif not self._skip(_STRING):
            self._skip(_PLAIN)

    def _array(self, path: Path) -> Iterator[tuple[Path, int]]:
        self._at += 1
        index = 0
        while self._skip(_BLANK) and not self._peek("]"):
            if self._peek(","):
                self._at += 1
                continue
            yield from self._value((*path, index))
            index += 1
        self._at += 1

    def _inline_table(self, path: Path) -> Iterator[tuple[Path, int]]:
        self._at += 1
        while self._skip(_BLANK) and not self._peek("}"):
            if self._peek(","):
                self._at += 1
                continue
            yield from self._pair(path)
        self._at += 1

    def _peek(self, character: str) -> bool:
        return self._text.startswith(character, self._at)

    def _skip(self, pattern: re.Pattern[str]) -> bool:
        match = pattern.match(self._text, self._at)
        self._at = match.end() if match else self._at
        return match is not None
