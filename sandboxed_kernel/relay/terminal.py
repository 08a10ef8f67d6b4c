"""Pure: text from inside that a terminal may be shown: colours, and nothing that acts or passes for our words.

``jupyter execute``, ``nbconvert --execute`` and ``jupyter console`` write outputs to a terminal as they are. There an
escape sequence can set the clipboard, hide text or write over what stands above (ECMA-48; xterm's ctlseqs).
"""

from __future__ import annotations

import re

# A control string (OSC, DCS, SOS, PM, APC), to its end or that of the line; a control sequence (CSI); any other escape.
_SEQUENCE = (
    r"(?:\x1b[\]PX^_]|[\x90\x98\x9d\x9e\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)?"
    r"|(?:\x1b\[|\x9b)(?P<parameters>[0-?]*)(?P<final>[ -/]*[@-~])"
    r"|\x1b[ -/]*[0-~]?|[\x05\x0e\x0f\x9b]"
)
_UNREADABLE = ("5", "6", "8")  # of Select Graphic Rendition: blinking, blinking fast, concealed

_UNSEEN = "\x1b\\[[0-9;:]*m|[\xad\u200b-\u200f\u2060-\u2064\ufeff\ufe00-\ufe0f]"  # between letters
_BETWEEN = f"(?:{_UNSEEN})*"
_ENDS = r"\n\r\x0b\x0c\x85\u2028\u2029"  # of lines
# Letters that look like those of "sandbox" (Unicode's confusables.txt), full width among them.
_LIKE = ("s\u0455\uff53\ua731", "a\u0430\u0251\u03b1\uff41", "n\u0578\uff4e", "d\u0501\uff44", "b\u044c\uff42",
         "o\u043e\u03bf\u0585\uff4f", "x\u0445\u03c7\u00d7\uff58")  # fmt: skip
_OURS = (
    rf"(?P<before>(?:\A|[{_ENDS}])(?:[^\S{_ENDS}]|{_UNSEEN})*)"
    r"[\[\uff3b\u2045\u3010\u3014]"
    + _BETWEEN
    + _BETWEEN.join(f"[{like}]" for like in _LIKE)
    + _BETWEEN
    + r"[\]\uff3d\u2046\u3011\u3015]"
)
MARK = "[notebook says: sandbox]"


def harmless(text: str) -> str:
    """``text`` with colours, carriage returns, backspaces and erased ends of lines, without any other sequence.

    A line that begins as our notices do is marked. That is a help for people, not a promise: the words of a notice can
    be said in many ways, and its MIME type is what the sandbox cannot say.
    """
    if not text.isascii() or any(control in text for control in "\x1b\x05\x0e\x0f"):
        text = re.sub(_SEQUENCE, _shown, text)
    elif "[sandbox]" not in text.lower():
        return text
    return re.sub(_OURS, rf"\g<before>{MARK}", text, flags=re.IGNORECASE)


def _shown(match: re.Match[str]) -> str:
    final, parameters = match["final"], match["parameters"]
    if final == "K" and parameters in ("", "0", "1", "2"):
        return match[0]
    if final != "m" or re.search("[^0-9;:]", parameters):
        return ""
    kept, numbers = list[str](), iter(parameters.split(";"))
    for number in numbers:
        if number.lstrip("0") in _UNREADABLE:
            continue
        kept.append(number)
        if number.lstrip("0") in ("38", "48", "58"):  # a colour: 5 and a number, or 2 and three (ITU-T T.416)
            kind = next(numbers, "")
            kept += [kind, *(next(numbers, "") for _ in range({"5": 1, "2": 3}.get(kind, 0)))]
    return f"\x1b[{';'.join(kept)}m" if kept or not parameters else ""
