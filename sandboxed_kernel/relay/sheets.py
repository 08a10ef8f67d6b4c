"""Pure: a style sheet of an output -> its rules that hold in this output only, and can neither fetch nor cover anything
outside. Parsed by tinycss2 (CSS Syntax Level 3); what is not in a table here is left out.

The output stands in a box (``CONTAINER``) that clips what is drawn in it (``contain: content``, CSS Containment
Level 2), so that a rule may place an element anywhere in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import tinycss2  # type: ignore[import-untyped]

CONTAINER = "contain: content; overflow: auto; isolation: isolate"
MAX_SHEET = 200_000  # characters, less than a second of tinycss2
MAX_DEPTH = 20  # of brackets, which the parser follows into each other


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_PROPERTIES = _words(
    """
    align-content align-items align-self appearance aspect-ratio background background-clip background-color
    background-image background-position background-repeat background-size block-size border border-collapse
    border-spacing bottom box-shadow box-sizing caption-side clear clip-path clip-rule color color-scheme
    column-gap content cursor direction display empty-cells fill fill-opacity flex flex-basis flex-direction
    flex-flow flex-grow flex-shrink flex-wrap float font font-family font-feature-settings font-kerning
    font-size font-stretch font-style font-variant font-variant-caps font-variant-numeric font-weight gap grid
    grid-area grid-auto-columns grid-auto-flow grid-auto-rows grid-column grid-column-end grid-column-start
    grid-gap grid-row grid-row-end grid-row-start grid-template grid-template-areas grid-template-columns
    grid-template-rows height hyphens inline-size inset justify-content justify-items justify-self left
    letter-spacing line-height list-style list-style-position list-style-type margin marker-end marker-mid
    marker-start mask max-height max-width min-height min-width object-fit object-position opacity order outline
    outline-color outline-offset outline-style outline-width overflow overflow-wrap overflow-x overflow-y
    padding paint-order pointer-events position quotes right row-gap scrollbar-width stop-color stop-opacity
    stroke stroke-dasharray stroke-linecap stroke-linejoin stroke-opacity stroke-width tab-size table-layout
    text-align text-anchor text-decoration text-decoration-color text-decoration-line text-decoration-style
    text-decoration-thickness text-indent text-overflow text-shadow text-transform text-underline-offset top
    transform transform-origin transition unicode-bidi user-select vertical-align visibility white-space width
    word-break word-spacing word-wrap z-index
    """
)
_FAMILIES = ("border-", "margin-", "padding-", "--")
_FUNCTIONS = _words(
    "rgb rgba hsl hsla calc min max clamp minmax repeat fit-content linear-gradient radial-gradient var translate"
    " translatex translatey rotate scale matrix skewx skewy"
    " color-mix light-dark inset circle ellipse polygon"
)
_PSEUDO = _words(
    "has hover focus focus-visible focus-within active checked disabled empty first-child last-child only-child"
    " first-of-type last-of-type only-of-type before after nth-child nth-of-type nth-last-child not is where root"
    " host link visited any-link marker enabled"
)
_PLAIN = frozenset({"ident", "number", "dimension", "percentage", "hash", "whitespace", "string"})
_NAMED = frozenset({"ident", "hash", "dimension"})
_WORD = re.compile(r"[\w.+#-]+")  # what a parser makes of a NUL is none
_COMBINATORS = frozenset(">+~")
_SELECTOR_LITERALS = frozenset(".:*>+~")
_NAME = re.compile(r"[A-Za-z_-][\w-]{0,100}")
_MEDIA = re.compile(r"[\w\s():,./-]{1,200}", re.ASCII)  # widths, print, the browser's colours: nothing that fetches
_SUPPORTS = re.compile(r"[\w\s():,./%#>+~*-]{1,200}", re.ASCII)
_QUESTIONS = _FUNCTIONS | _PSEUDO | {"selector"}
_QUESTION_LITERALS = _SELECTOR_LITERALS | frozenset(",-/")
# How a page says its theme, of which a sheet may make variables of its own (as xarray's does).
_PAGES_THEME = re.compile(
    r"(?:html|body)?(?:\.vscode-(?:dark|light|high-contrast)|\[data-jp-theme-light=\"?(?:true|false)\"?\]"
    r"|\[(?:data-)?theme=\"?(?:dark|light)\"?\])"
)
# scikit-learn: its script tells by these classes whether the page is dark. Here the page's own marks do.
_SET_BY_SCRIPT = re.compile(r"(\.\S{0,40}sk-global)\.[\w-]{0,40}(light|dark)(?![\w-])")
_DARK_PAGE = ':is([data-jp-theme-light="false"], .vscode-dark, .vscode-high-contrast, [data-theme="dark"])'
_ATTRIBUTE = re.compile(r"\s*[A-Za-z-]{1,40}\s*")
_VALUE = re.compile(r"[\w .:#/-]{0,100}")
_NTH = re.compile(r"[\dn+-]{1,20}", re.ASCII)


class _Scope(NamedTuple):
    box: str
    prefix: str
    kept_classes: re.Pattern[str]


def scoped(text: str, box: str, prefix: str, kept_classes: re.Pattern[str]) -> str:
    """The rules of ``text`` for elements within the class ``box``, whose classes and ids have been given ``prefix``
    but for those that match the pattern ``kept_classes``.
    """
    if len(text) > MAX_SHEET or depth(text) > MAX_DEPTH:
        return ""
    rules = tinycss2.parse_stylesheet(text, skip_comments=True, skip_whitespace=True)
    return "\n".join(_rules(rules, _Scope(box, prefix, kept_classes)))


def _rules(rules: Any, scope: _Scope) -> Iterator[str]:
    for rule in rules:
        if rule.type == "at-rule" and rule.content is not None:
            condition = _condition(rule)
            if condition is None:
                continue
            inner = tinycss2.parse_rule_list(rule.content, skip_comments=True, skip_whitespace=True)
            text = "\n".join(_rules(inner, scope))
            if text:
                yield f"@{rule.lower_at_keyword} {condition} {{\n{text}\n}}"
        elif rule.type == "qualified-rule":  # no @import, no @font-face, no errors
            yield from _rule(rule, scope)


def _condition(rule: Any) -> str | None:
    """Of ``@media`` and ``@supports``, which apply the rules in them or do not; no other at-rule is kept."""
    text = str(tinycss2.serialize(rule.prelude)).strip()
    if rule.lower_at_keyword == "media":
        return text if _MEDIA.fullmatch(text) else None
    if rule.lower_at_keyword == "supports":
        return text if _SUPPORTS.fullmatch(text) and _is_question(rule.prelude) else None
    return None


def _is_question(tokens: Any) -> bool:
    """Whether it is made of declarations and selectors, with functions that are in a table here: css-conditional-3."""
    for token in tokens:
        if token.type == "() block":
            inner = token.content
        elif token.type == "function" and token.lower_name in _QUESTIONS:
            inner = token.arguments
        elif token.type in _PLAIN or (token.type == "literal" and token.value in _QUESTION_LITERALS):
            continue
        else:
            return False
        if not _is_question(inner):
            return False
    return True


def _rule(rule: Any, scope: _Scope) -> Iterator[str]:
    declarations = declared(rule.content)
    names: list[str] = []
    only_variables = False
    for part in _split(rule.prelude):
        if _PAGES_THEME.fullmatch(written := tinycss2.serialize(part).strip()):
            names.append(f"{written} .{scope.box}")
            only_variables = True
            continue
        selector = _selector(_within_output(part), scope.prefix, scope.kept_classes)
        if selector is not None:
            only_variables = only_variables or not selector
            names += _with_themes(selector, scope.box)
    own = [one for one in declarations if not only_variables or one.startswith("--")]
    if own and names:
        yield f"{', '.join(names)} {{{'; '.join(own)}}}"


def _within_output(tokens: Any) -> Any:
    """Without Jupyter's name for the place of an HTML output, by which IPython's Code names its own: the box."""
    meant = tokens[1:] if tokens and tokens[0].type == "whitespace" else tokens
    if [token.type for token in meant[:3]] != ["literal", "ident", "whitespace"]:
        return tokens
    return meant[3:] if (meant[0].value, meant[1].value) == (".", "output_html") else tokens


def _with_themes(selector: str, box: str) -> list[str]:
    """The selector within the box. A class that the script of a library would set says what the page's theme is."""
    names = [f".{box} {selector}".rstrip()]
    if theme := _SET_BY_SCRIPT.search(selector):
        dark = f"{_DARK_PAGE} " if theme[2] == "dark" else ""
        names.append(f"{dark}.{box} {_SET_BY_SCRIPT.sub(lambda match: match[1], selector)}")
    return names


def depth(text: str) -> int:
    """An upper bound: brackets in strings count as well."""
    depth = deepest = 0
    for letter in text:
        if letter in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif letter in ")]}":
            depth = max(0, depth - 1)
    return deepest


def declared(content: Any, own: str = "\0") -> list[str]:
    """The harmless declarations of a rule's content, or of a ``style`` attribute (text), in which ``url()`` may name
    what begins with ``own``.
    """
    kept = []
    for one in tinycss2.parse_blocks_contents(content, skip_comments=True, skip_whitespace=True):
        if one.type != "declaration":
            continue
        name = one.name if one.name.startswith("--") else one.lower_name
        if name not in _PROPERTIES and not name.startswith(_FAMILIES):
            continue
        if not _is_harmless(one.value, own) or (
            name == "position" and "fixed" in tinycss2.serialize(one.value).lower()
        ):
            continue
        text = f"{name}: {tinycss2.serialize(one.value).strip()}{' !important' if one.important else ''}"
        if not set(text) & set("<&\\@"):  # those end a style element, or begin something else in another parser
            kept.append(text)
    return kept


def _is_harmless(tokens: Any, own: str) -> bool:
    for token in tokens:
        if token.type == "function":
            if token.lower_name not in _FUNCTIONS or not _is_harmless(token.arguments, own):
                return False
        elif token.type == "() block":
            if not _is_harmless(token.content, own):
                return False
        elif token.type == "url":
            if not token.value.startswith(own):
                return False
        elif token.type in _NAMED:
            if not _WORD.fullmatch(token.serialize()):
                return False
        elif token.type not in _PLAIN and not (token.type == "literal" and token.value in "+-*/,!"):
            return False
    return True


def _split(prelude: Any) -> list[Any]:
    parts: list[Any] = [[]]
    for token in prelude:
        if token.type == "literal" and token.value == ",":
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def _selector(tokens: Any, prefix: str, kept_classes: re.Pattern[str], *, relative: bool = False) -> str | None:
    """None for what is not in the tables; "" for the box itself (``:root``, ``:host``). With ``relative`` it may begin
    with a combinator (in ``:has``).
    """
    text: list[str] = []
    before = ""
    for token in tokens:
        part = _part(token, before, prefix, kept_classes)
        if part is None:
            return None
        text.append(part)
        before = token.value if token.type == "literal" else ""
    name = "".join(text).strip()
    if name in (":root", ":host"):
        return ""
    # A first combinator would reach the box's neighbours.
    if not name or (name[0] in _COMBINATORS and not relative):
        return None
    # A root within a selector is Jupyter's page.
    return None if ":root" in name or ":host" in name else name


def _part(token: Any, before: str, prefix: str, kept_classes: re.Pattern[str]) -> str | None:
    """One token of a selector, which stands behind the literal ``before``."""
    if token.type in ("ident", "hash"):
        return _name(token, before, prefix, kept_classes)
    if token.type == "function" and before == ":" and token.lower_name in _PSEUDO:
        return _function(token, prefix, kept_classes)
    if token.type == "[] block":
        return _attribute(token.content)
    if token.type == "whitespace":
        return " "
    if token.type in ("number", "dimension"):  # nth-child(2n+1)
        text: str = token.serialize()
        return text if _NTH.fullmatch(text) else None
    return token.value if token.type == "literal" and token.value in _SELECTOR_LITERALS else None


def _function(token: Any, prefix: str, kept_classes: re.Pattern[str]) -> str | None:
    """A selector with others in it. ``:is`` and ``:where`` lose those that are left out, as a browser would have it;
    without one of its own, ``:not`` or ``:has`` would match something else.
    """
    name: str = token.lower_name
    parts = _split(token.arguments)
    inner = [_selector(part, prefix, kept_classes, relative=name == "has") for part in parts]
    kept = [one for one in inner if one]
    if not kept or (len(kept) < len(inner) and name not in ("is", "where")):
        return None
    return f"{name}({', '.join(kept)})"


def _attribute(tokens: Any) -> str | None:
    """``[open]``, ``[type="checkbox"]``: by a name, or a name and its value."""
    meant = [token for token in tokens if token.type != "whitespace"]
    if not meant or meant[0].type != "ident" or not _ATTRIBUTE.fullmatch(meant[0].value):
        return None
    if len(meant) == 1:
        return f"[{meant[0].value}]"
    operator, value = "".join(token.value for token in meant[1:-1] if token.type == "literal"), meant[-1]
    if len(meant) > 4 or operator not in ("=", "~=", "^=", "$=", "*=", "|=") or value.type not in ("ident", "string"):
        return None
    return f'[{meant[0].value}{operator}"{value.value}"]' if _VALUE.fullmatch(value.value) else None


def _name(token: Any, before: str, prefix: str, kept_classes: re.Pattern[str]) -> str | None:
    value: str = token.value  # without escapes: it could hold a comma, which would begin a selector of its own
    if not _NAME.fullmatch(value):
        return None
    if token.type == "hash":
        return f"#{prefix}{value}"
    if before == ".":
        return value if kept_classes.fullmatch(value) else prefix + value
    return value if before != ":" or value.lower() in _PSEUDO else None
