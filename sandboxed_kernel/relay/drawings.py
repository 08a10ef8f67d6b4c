"""Pure: drawings within HTML (inline SVG): what of them passes, and what nothing of them may do.

``markup`` parses them together with the HTML around them. No element here is one in which a parser goes back to HTML
(``foreignObject``, ``title``, ``desc``: HTML, 13.2.6.5, "HTML integration point"), none moves, and none is a filter.
"""

from __future__ import annotations

import re


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


TAGS = _words(
    "svg circle clipPath defs ellipse g image line linearGradient marker mask path pattern polygon polyline"
    " radialGradient rect stop symbol text textPath tspan use"
)
_PARTS = _words(
    "clip-path clip-rule color cx cy d display dominant-baseline dx dy fill fill-opacity fill-rule font-family"
    " font-size font-style font-weight fx fy gradientTransform gradientUnits height letter-spacing marker-end"
    " marker-mid marker-start mask offset opacity orient overflow paint-order pathLength patternContentUnits"
    " patternTransform patternUnits points preserveAspectRatio r refX refY rotate rx ry shape-rendering spreadMethod"
    " stop-color stop-opacity stroke stroke-dasharray stroke-dashoffset stroke-linecap stroke-linejoin"
    " stroke-miterlimit stroke-opacity stroke-width text-anchor text-rendering textLength lengthAdjust transform"
    " vector-effect version viewBox visibility width x x1 x2 y y1 y2 clipPathUnits maskContentUnits maskUnits"
    " markerHeight markerUnits markerWidth"
)
ATTRIBUTES = {tag: _PARTS | {"href"} if tag in ("image", "textPath", "use") else _PARTS for tag in TAGS}
_FUNCTIONS = _words("rgb rgba hsl hsla var calc matrix translate scale rotate skewx skewy")
_CALL = re.compile(r"(?<![\w-])([\w-]*)\(")
_PART_OF_US = re.compile(r"url\(\s*[\"']?#([\w.:-]{1,100})[\"']?\s*\)", re.IGNORECASE)
_REFUSED = re.compile(r"[\\<>@]")

MAX_DRAWN = 100_000  # elements that all ``use`` elements of an output draw together
_TAG = re.compile(r"<(/?)([A-Za-z]\w*)([^>]*)>")  # as nh3 writes them: see ``without_loops``
_ID = re.compile(r' id="([^"]*)"')
_HREF = re.compile(r' (?:xlink:)?href="([^"]*)"')
_REFERENCE = re.compile(r' [\w:-]+="[^"]*url\(#[^"]*"')
_REPEATED = _words("clipPath marker mask pattern symbol")  # what they hold is drawn wherever they are named
_ALONE = _words("area br col hr img input source")  # HTML elements without an end


def renamed(value: str, prefix: str) -> str:
    """``url(#x)`` -> ``url(#<prefix>x)``, throughout a value of CSS or SVG."""
    return _PART_OF_US.sub(lambda match: f"url(#{prefix}{match[1]})", value)


def attribute(value: str, prefix: str) -> str | None:
    """A value of one of ``ATTRIBUTES`` (but href). None where it could fetch: it names anything but a part of its own
    output, or calls a function that is not in the table.
    """
    rest = _PART_OF_US.sub("", value)
    if _REFUSED.search(rest) or not all(call.lower() in _FUNCTIONS for call in _CALL.findall(rest)):
        return None
    return renamed(value, prefix)


def without_loops(html: str) -> str:
    """A part that is drawn again and again, with parts in it that are too, would take a page for ever: nothing in such
    a one names another, and all together draw no more than ``MAX_DRAWN``. Links in drawings lead to ``#`` only.

    ``html`` is what nh3 wrote, whose style sheets have no "<": a tag ends at the first ">", and every "<" begins one.
    """
    sizes = _sizes(html)
    targets = {match[1].partition("#")[2] for tag in _TAG.finditer(html) for match in _uses(tag)}
    open_names: list[str] = []
    within_svg = within_repeated = drawn = 0
    repeated: list[bool] = []

    def written(tag: re.Match[str]) -> str:
        nonlocal within_svg, within_repeated, drawn
        closes, name, rest = tag.groups()
        if closes:
            if open_names and open_names.pop() == "svg":
                within_svg -= 1
            within_repeated -= repeated.pop() if repeated else 0
            return tag[0]
        named = _ID.search(rest)
        again = name in _REPEATED or (named is not None and named[1] in targets)
        text = tag[0]
        if within_repeated or again:
            text = _REFERENCE.sub("", text) if name != "svg" else text
        if name == "use":
            size = sum(sizes.get(match[1].partition("#")[2], 0) for match in _uses(tag))
            if within_repeated or again or drawn + size > MAX_DRAWN:
                text = _HREF.sub("", text)
            else:
                drawn += size
        if name == "a" and within_svg:
            text = _HREF.sub(lambda match: match[0] if match[1].startswith("#") else "", text)
        if name not in _ALONE or within_svg:
            open_names.append(name)
            repeated.append(again)
            within_svg += name == "svg"
            within_repeated += again
        return text

    return _TAG.sub(written, html)


def _uses(tag: re.Match[str]) -> list[re.Match[str]]:
    return list(_HREF.finditer(tag[3])) if tag[2] == "use" and not tag[1] else []


def _sizes(html: str) -> dict[str, int]:
    """Id -> how many elements it and what it holds are."""
    sizes: dict[str, int] = {}
    begun: list[tuple[str, int]] = []
    within_svg = 0
    for count, tag in enumerate(_TAG.finditer(html)):
        closes, name, rest = tag.groups()
        if not closes and (within_svg or name not in _ALONE):
            named = _ID.search(rest)
            begun.append((named[1] if named else "", count))
            within_svg += name == "svg"
        elif closes and begun:
            named_id, start = begun.pop()
            within_svg -= name == "svg"
            if named_id:
                sizes[named_id] = count - start  # tags, of which half are ends: an upper bound
    return sizes
