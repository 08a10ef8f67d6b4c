"""The import table of docs/how-it-works.md against the code: who can reach what is a property of one file."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "sandboxed_kernel"
GUIDE = (ROOT / "docs/how-it-works.md").read_text()

# What the security argument takes for granted to be decided without looking at anything but arguments.
MUST_BE_PURE = (
    "policy.model", "policy.file", "hostnames.addresses", "hostnames.pins", "hostnames.answers", "confinement.syscalls",
    "confinement.filesystem", "confinement.plan", "broker.calls", "broker.decisions", "notices.events",
    "notices.render", "relay.messages", "relay.rules", "relay.content", "guard.hello", "guard.greeting",
    "guard.filter", "guard.messages",
)  # fmt: skip


def table() -> dict[str, set[str]]:
    """Who -> what it may import, in the table's order."""
    rows = re.findall(r"^\| `([\w.]+)` \| ([^|]+) \|", GUIDE, re.MULTILINE)
    return {who: set(re.findall(r"`([\w. ]+)`", what)) for who, what in rows}


def forbidden_to_pure() -> set[str]:
    sentence = re.search(r"No pure file imports (.*?);", GUIDE, re.DOTALL)
    assert sentence is not None, "docs/how-it-works.md no longer says what a pure file may not import"
    return set(re.findall(r"`(\w+)`", sentence[1]))


def modules() -> dict[str, ast.Module]:
    """Every module of the package by its name without the package, "" for ``__init__``."""
    found = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT / PACKAGE).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = ast.parse(path.read_text(), str(path))
    return found


MODULES = modules()


def kind(module: str) -> str:
    """``pure`` or ``does``, as its docstring says; folders (``__init__``) hold no code, or say so too."""
    if module not in MODULES:
        return ""
    first = re.match(r"\w+", ast.get_docstring(MODULES[module]) or "")
    return {"Pure": "pure", "Does": "does"}.get(first[0] if first else "", "")


def imports(module: str) -> set[str]:
    """Everything imported anywhere in the module, functions and type checking included, by full name."""
    found = set()
    for node in ast.walk(MODULES[module]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if full.removeprefix(f"{PACKAGE}.") in MODULES else str(node.module))
    return found


def own_imports(module: str) -> set[str]:
    names = {name for name in imports(module) if name.split(".")[0] == PACKAGE}
    return {name.removeprefix(PACKAGE).removeprefix(".") for name in names}


def names(module: str, word: str) -> bool:
    """Whether ``word`` of the table means ``module``: itself, its folder, or its kind."""
    return word in (module, module.split(".")[0], kind(module))


def row_of(module: str) -> set[str]:
    for who, may in table().items():
        if names(module, who):
            return may
    return set()


def may_import(module: str, other: str) -> bool:
    if other in ("", "errors"):  # the package itself is its version
        return True
    folder = module.split(".")[0]
    words = {folder if word == "own folder" else word for word in row_of(module)}
    return any(names(other, word) for word in words)


def test_the_table_and_the_code_are_found() -> None:
    rows = "__main__ cli policy_commands home_commands editing check settings survey demo launcher startup late inside"
    rows += " linux pure does"
    assert list(table()) == rows.split()
    assert {"os", "socket", "time", "threading", "zmq", "ctypes"} <= forbidden_to_pure()
    assert len(MODULES) > 20


@pytest.mark.parametrize("module", [name for name in MODULES if name])
def test_a_module_imports_what_its_row_allows(module: str) -> None:
    wrong = {other for other in own_imports(module) if not may_import(module, other)}
    may = sorted(row_of(module))
    assert not wrong, f"{module} may import {may} (docs/how-it-works.md), but imports {sorted(wrong)}"


@pytest.mark.parametrize("module", [name for name in MODULES if kind(name) == "pure"])
def test_a_pure_module_cannot_act(module: str) -> None:
    wrong = {name for name in imports(module) if name.split(".")[0] in forbidden_to_pure()}
    assert not wrong, f"{module} says that it is pure, but imports {sorted(wrong)}"


@pytest.mark.parametrize("module", MUST_BE_PURE)
def test_what_must_be_pure_says_so(module: str) -> None:
    assert module in MODULES, f"{module} is gone; put what took its place into MUST_BE_PURE"
    assert kind(module) == "pure"


def test_ctypes_is_in_linux_alone() -> None:
    users = {module for module in MODULES if any(name.split(".")[0] == "ctypes" for name in imports(module))}
    assert {user.split(".")[0] for user in users} <= {"linux"}


def test_every_module_says_what_it_is() -> None:
    free = {"", "errors", "cli", "__main__"}  # their first line is for whoever looks for the way in
    folders = {module.rpartition(".")[0] for module in MODULES} | {"linux", "inside", "relay"}
    silent = {
        module
        for module in MODULES
        if module not in free | folders and module.split(".")[0] not in ("linux", "inside") and not kind(module)
    }
    assert not silent, f'these docstrings start with neither "Pure" nor "Does": {sorted(silent)}'


def test_there_is_no_import_cycle() -> None:
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, f"import cycle: {' -> '.join((*way[way.index(module) :], module))}"
        if module in done:
            return
        for other in sorted(own_imports(module) & MODULES.keys() - {""}):
            visit(other, (*way, module))
        done.add(module)

    for module in MODULES:
        visit(module, ())
