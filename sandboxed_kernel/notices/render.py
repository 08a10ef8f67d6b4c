"""Pure: an event as text, as HTML and as data, for people and for programs.

Host names, paths and process names were chosen by the sandboxed code. Wherever they are shown, nothing in them acts:
no markup, no terminal escape, no bidirectional override, no TeX (JupyterLab typesets ``$...$`` in HTML, and TeX has
links).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from sandboxed_kernel.notices.advice import ALLOW, Place, command, is_unix, preset_command, variable_command
from sandboxed_kernel.notices.events import Event, Kind

# As html.escape, whose module brings a table of all 2,200 entities into every process.
_HTML = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#x27;"})

MIME = "application/vnd.sandboxed-kernel+json"
MAX_SHOWN = 300  # characters of one value; a DNS name has 253

# Control characters (C0, C1), soft hyphen, everything that sets direction or has no width, interlinear marks,
# tags, private use, and lone surrogates: Unicode 15, general categories Cc, Cf, Cs, Co, Zl, Zp.
_UNSEEN = (
    "\\x00-\\x1f\\x7f-\\x9f\\xad\\u0600-\\u0605\\u061c\\u06dd\\u070f\\u0890\\u0891\\u08e2\\u180e\\u200b-\\u200f\\u2028-\\u202e"
    "\\u2060-\\u206f\\ud800-\\uf8ff\\ufe00-\\ufe0f\\ufeff\\ufff9-\\ufffb\\U00013430-\\U0001345f\\U0001bca0-\\U0001bca3"
    "\\U0001d173-\\U0001d17a\\U000e0000-\\U0010ffff"
)
# Not compiled here: that is 2 ms of every start, and most notebooks are refused nothing. `re` keeps what it compiled.
_FOR_TEXT = f"[{_UNSEEN}]"
_FOR_HTML = f"[{_UNSEEN}$\\\\`]"  # and what starts TeX or Markdown

_WHAT: dict[Kind, str] = {
    "connect": "connection to {where} refused",
    "bind": "listening on {where} refused",
    "tls": "a connection for {where} refused",
    "name": "the name {where} was not resolved",
    "datagram": "sending to {where} refused",
    "socket": "a socket of a kind that does not exist inside was refused ({where})",
    "link": "a symbolic link to {where} refused",
    "metadata": "changing owner, mode, times or attributes of {where} refused",
    "file": "access to {where} refused",
    "process": "acting on another process refused ({where})",
    "malformed": "a call whose arguments make no sense was refused",
    "limit": "a limit was crossed",
}


def shown(value: str) -> str:
    """Text for a terminal or a log: what cannot be seen is written as ``\\u{HEX}``, what is too long is cut."""
    return re.sub(_FOR_TEXT, _escaped, _cut(value))


def shown_html(value: str) -> str:
    """The same for HTML, Markdown and TeX at once."""
    return re.sub(_FOR_HTML, _escaped, _cut(value)).translate(_HTML)


def _cut(value: str) -> str:
    return value if len(value) <= MAX_SHOWN else value[:MAX_SHOWN] + "..."


def _escaped(match: re.Match[str]) -> str:
    return f"\\u{{{ord(match[0]):x}}}"


def where(event: Event) -> str:
    """``host:port (address)`` as far as known; still untrusted."""
    place = event.host or event.address or event.protocol
    if event.port is not None:
        place = f"[{place}]:{event.port}" if ":" in place else f"{place}:{event.port}"
    if event.host and event.address and event.host != event.address:
        place = f"{place} ({event.address})"
    return place


def _lines(event: Event, late: bool, place: Place) -> list[tuple[str, str | None]]:
    """What is said: (sentence with ``{}`` for the untrusted value, that value)."""
    times = f", {event.count} times" if event.count > 1 else ""
    before = "Before this cell ran: " if late else ""
    lines: list[tuple[str, str | None]] = [
        (f"{before}{_WHAT[event.kind].replace('{where}', '{}')}{times}.", where(event)),
        ("Why: {}", event.reason),
    ]
    if event.process:
        lines.append((f"Process: {{}} (pid {event.pid})", event.process))
    elif event.pid > 0:
        lines.append((f"Process: pid {event.pid}", None))
    return lines + _advice(event, place)


def _advice(event: Event, place: Place) -> list[tuple[str, str | None]]:
    written = command(event, place)
    if written is None:
        return []
    in_file = ("in {}:", place.file) if place.file else ("in the policy:", None)
    lines: list[tuple[str, str | None]] = []
    if place.is_mine:
        if (variable := variable_command(event, place)) is not None:
            lines.append(("To use a variable of it (NAME), in a terminal: {}", variable))
        lines.append(("To allow it, in a terminal: {}", written))
        if (preset := preset_command(event, place)) is not None:
            lines.append((f"With what else belongs to it ({preset[0]}): {{}}", preset[1]))
        lines.append((f"Or {in_file[0]}", in_file[1]))
    else:
        lines.append((f"To allow it, ask whoever manages the policy to write {in_file[0]}", in_file[1]))
    if event.kind == "file":
        lines += [("    {}", "[filesystem]"), ("    {}", event.allow_line)]
    elif is_unix(event):
        lines += [("    {}", "[network]"), ("    {}", event.allow_line)]
    else:
        lines += [("    {}", "[network]"), ("    {}", f"allow = [{event.allow_line}]")]
    if event.kind == "name" and event.address is None and event.port is None:  # only the name was asked for
        lines.append(("The port was not asked for yet: http has 80, https 443.", None))
    at_start = event.kind == "file" or is_unix(event)
    lines.append(("Then restart the kernel." if at_start else "Then run the cell again.", None))
    return lines


UNKNOWN = Place()
MARK = "[sandbox] "
_CLOSING, _CLOSING_LENGTH = 3, 250  # destinations, characters


def text(event: Event, *, late: bool = False, place: Place = UNKNOWN) -> str:
    """For terminals, logs, and notebooks that show no HTML. ``place``: of the policy that would have to change."""
    said = [line.replace("{}", shown(value or "")) for line, value in _lines(event, late, place)]
    return MARK + "\n          ".join(said)


def closing(events: Sequence[Event], place: Place = UNKNOWN) -> str:
    """The last line of an error in whose cell these were refused: clients and logs that show nothing else have it."""
    named = list(dict.fromkeys(shown(where(event)) for event in events))
    more = f" and {len(named) - _CLOSING} more" if len(named) > _CLOSING else ""
    advised = (variable_command(event, place) or command(event, place) for event in events)
    commands = {written for written in advised if written is not None}
    to_go_on = f" To go on: {commands.pop() if len(commands) == 1 else ALLOW}" if commands and place.is_mine else ""
    said = f"{MARK}Refused in this cell: {', '.join(named[:_CLOSING])}{more}.".encode(
        "ascii", "backslashreplace"
    ).decode()
    return f"{_cut_at(said, _CLOSING_LENGTH - len(to_go_on))}{to_go_on}"


def _cut_at(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 3]}..."


# Legible in light and dark themes: the page's own colours of text and background, a coloured border, nothing else.
_BOX = "border-left:4px solid #c77700;padding:4px 10px;margin:4px 0"


def as_html(event: Event, *, late: bool = False, place: Place = UNKNOWN) -> str:
    """No script, no class, no link; values in ``code`` where MathJax does not look."""
    lines = _lines(event, late, place)
    parts = [(line.translate(_HTML), f"<code>{shown_html(value or '')}</code>") for line, value in lines]
    head, *rest = [line.replace("{}", value) for line, value in parts]
    return f'<div role="alert" style="{_BOX}"><strong>Sandbox: {head}</strong><br>{"<br>".join(rest)}</div>'


def bundle(event: Event, *, late: bool = False, place: Place = UNKNOWN) -> dict[str, Any]:
    """The ``data`` of a display: the same in three forms."""
    return {
        "text/plain": text(event, late=late, place=place),
        "text/html": as_html(event, late=late, place=place),
        MIME: event.to_json(),
    }


def overflow_bundle(count: int) -> dict[str, Any]:
    """For the destinations beyond those that one cell shows."""
    said = f"{count} more refusals of other destinations in this cell; the audit log has them all."
    return {
        "text/plain": f"[sandbox] {said}",
        "text/html": f'<div role="alert" style="{_BOX}"><strong>Sandbox: {said}</strong></div>',
    }
