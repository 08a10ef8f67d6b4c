"""Pure: what two runs of one notebook show, and in which of it they differ.

What cannot be the same in two runs is replaced by a word first: addresses, identifiers, times, the runs' own folders.
HTML is compared as a browser's parser reads it, without what only says how it looks: that is what pictures are for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from selectolax.lexbor import LexborHTMLParser, LexborNode

Cell = Mapping[str, Any]

NOTICE = "application/vnd.sandboxed-kernel+json"
WIDGET = "application/vnd.jupyter.widget-view+json"

# What is replaced -> by what. In this order.
WORDS = (
    (re.compile(r"\x1b\[[0-9;]*[A-Za-z]"), ""),
    (re.compile(r"/[\w/.-]*/ipykernel_\d+/\d+\.py"), "CELL.py"),
    (re.compile(r"/tmp/sbk-\w+/[th]\b"), "TEMPORARY"),
    (re.compile(r"\btmp[a-z0-9_]{8}\b"), "tmpNAME"),
    (re.compile(r"\b0x[0-9a-fA-F]{6,}\b"), "0xADDRESS"),
    (re.compile(r"(?<=\.\.\.)x[0-9a-f]{6,}\b"), "xADDRESS"),  # as reprlib cuts it
    (re.compile(r"\b\d\d/\w{3}/\d{4} \d\d:\d\d:\d\d\b"), "DATE"),  # of a server's log
    (re.compile(r"(?<=<dc:date>)[^<]+"), "DATE"),
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"), "UUID"),
    (re.compile(r"(?<![0-9a-zA-Z])[0-9a-f]{32}(?![0-9a-zA-Z])"), "IDENTIFIER"),
    (re.compile(r"\bT_[0-9a-f]{5}(?=_|\b)"), "T_STYLER"),
    (re.compile(r"\b\d+(\.\d+)?(e[-+]?\d+)? ?(ns|µs|μs|us|ms|s|min|seconds)\b"), "TIME"),
)

# What HTML and SVG say of their looks, or for scripts, style sheets and machines, and not to a reader.
NOT_READ = {"script", "style", "link", "meta", "base", "noscript", "template", "metadata", "-comment"}
LOOKS = {"class", "id", "style", "for", "headers", "name", "align", "halign", "border", "bgcolor", "role", "scope"}
LOOKS |= {"tabindex", "rel", "target", "version"}
LOOKS_BEGIN = ("on", "data-", "aria-", "xml")
BOX = re.compile(r"o[0-9a-f]{16}")  # in which the sandbox puts an output that has a style sheet
OWN = re.compile(r"^#o[0-9a-f]{16}-")  # a place in the same output
MARKUP = ("text/html", "image/svg+xml")


def normalise(text: str, folders: Mapping[str, str]) -> str:
    """``folders``: path of this run -> the word for it."""
    for path, word in folders.items():
        text = text.replace(path, word)
    for pattern, word in WORDS:
        text = pattern.sub(word, text)
    return text


def structure(html: str) -> list[str]:
    """What a reader is given: tags, attributes that are no looks, and words."""
    return [item for item in _walk(LexborHTMLParser(html).body) if item]


def _walk(node: LexborNode | None) -> Iterator[str]:
    if node is None or node.tag in NOT_READ:
        return
    if node.tag == "-text":
        yield " ".join((node.text_content or "").split())
        return
    if node.tag == "article" and BOX.fullmatch(node.attributes.get("class") or ""):
        for child in node.iter(include_text=True):
            yield from _walk(child)
        return
    read = [name for name in node.attributes if name not in LOOKS and not name.startswith(LOOKS_BEGIN)]
    attributes = [(name, OWN.sub("#", " ".join((node.attributes[name] or "").split()))) for name in sorted(read)]
    yield f"<{node.tag}{''.join(f' {name}={value!r}' for name, value in attributes)}>"
    for child in node.iter(include_text=True):
        yield from _walk(child)
    yield f"</{node.tag}>"


class Shown:
    """What one cell shows, in the words of both runs."""

    def __init__(self, cell: Cell, folders: Mapping[str, str]) -> None:
        self._folders = folders
        outputs: list[dict[str, Any]] = list(cell["outputs"])
        self.notices = [one for one in outputs if NOTICE in one.get("data", {})]
        self.rich = [one for one in outputs if "data" in one and one not in self.notices]
        self.streams = {name: self._stream(outputs, name) for name in ("stdout", "stderr")}
        self.errors = [self._error(one) for one in outputs if one["output_type"] == "error"]

    def _stream(self, outputs: Sequence[Mapping[str, Any]], name: str) -> str:
        return self._words("".join(one["text"] for one in outputs if one.get("name") == name))

    def _error(self, output: Mapping[str, Any]) -> str:
        return self._words("\n".join([output["ename"], output["evalue"], *output["traceback"]]))

    def _words(self, text: str) -> str:
        return normalise(text, self._folders)

    def value(self, place: int, mime: str) -> object:
        """The content of one type of the output at ``place``, as far as it is compared."""
        content = self.rich[place]["data"][mime]
        if mime == WIDGET:
            return ""  # a random identifier; what the widget is: ``widget_states``
        if not isinstance(content, str):
            return json.loads(self._words(json.dumps(content, sort_keys=True)))
        return structure(self._words(content)) if mime in MARKUP else self._words(content)

    @property
    def types(self) -> list[tuple[str, list[str]]]:
        return [(one["output_type"], sorted(one["data"])) for one in self.rich]


def differences(plain: Shown, inside: Shown) -> dict[str, tuple[object, object]]:
    """What differs -> both values. The names: stdout, stderr, error, notice, types, and MIME types."""
    found: dict[str, tuple[object, object]] = {}
    for name in ("stdout", "stderr"):
        found[name] = plain.streams[name], inside.streams[name]
    found["error"] = plain.errors, inside.errors
    found["notice"] = len(plain.notices), [one["data"].get("text/plain") for one in inside.notices] or 0
    found["types"] = plain.types, inside.types
    for place, (one, other) in enumerate(zip(plain.rich, inside.rich, strict=False)):
        for mime in one["data"].keys() & other["data"].keys():
            values = plain.value(place, mime), inside.value(place, mime)
            if values[0] != values[1]:
                found[mime] = values
    return {what: values for what, values in found.items() if values[0] != values[1]}


def widget_states(metadata: Mapping[str, Any], folders: Mapping[str, str]) -> list[object]:
    """The states of all widgets, in the order of their making, with their identifiers counted."""
    models = metadata.get("widgets", {}).get("application/vnd.jupyter.widget-state+json", {}).get("state", {})
    text = json.dumps(list(models.values()), sort_keys=True)
    for number, name in enumerate(models):
        text = text.replace(name, f"widget {number}")
    found: list[object] = json.loads(normalise(text, folders))
    return found


def drawn(outputs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The outputs of which the page makes more than text, and which hold still."""
    return [one for one in outputs if one.get("data", {}).keys() - {"text/plain"} and "image/gif" not in one["data"]]


def are_same(outputs: Sequence[Sequence[Mapping[str, Any]]], folders: Sequence[Mapping[str, str]]) -> bool:
    """Letter for letter, but for the words of both runs."""
    plain, inside = (normalise(json.dumps(one), words) for one, words in zip(outputs, folders, strict=True))
    return plain == inside
