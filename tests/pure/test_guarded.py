"""What stays closed in the notebook's folder, by name: the table, and every way to ask it."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxed_kernel.confinement.compile_filter import compile_filter
from sandboxed_kernel.confinement.filters import load_program
from sandboxed_kernel.confinement.numbers import AUDIT_ARCH, NUMBERS
from sandboxed_kernel.confinement.syscalls import IN_GUARDED_FOLDERS, NOTIFY, decide
from sandboxed_kernel.policy.guarded import (
    HOME,
    NAMES,
    OPEN,
    RUNS,
    SECRET,
    UNKNOWN,
    Access,
    Guard,
    Mode,
    NameRow,
    Wish,
    closed_on_the_way,
    decide_entry,
    judge,
    may_be_another,
    may_be_granted,
    sentence,
)

OPEN_NAMES = frozenset(name for row in NAMES if row.access == "open" for name in row.names.split() if "*" not in name)


@pytest.mark.parametrize("row", NAMES, ids=lambda row: row.reason)
def test_every_name_of_the_table_is_judged_by_its_row(row: NameRow) -> None:
    for name in row.names.split():
        for example in {name.replace("*", ""), name.replace("*", "x")} - {""}:
            judged = judge("plain", example)
            closer = [other for other in NAMES[: NAMES.index(row)] if example in other.names.split()]
            if not closer:
                assert judged.access in (row.access, "open", "none"), example
            if "*" not in name:
                assert judged.access == row.access, example


@pytest.mark.parametrize(
    ("name", "access", "kind"),
    [
        (".env", "none", SECRET), (".env.local", "none", SECRET), (".env.example", "open", OPEN),
        ("server.PEM", "none", SECRET), ("id_ed25519", "none", SECRET), ("id_list.csv", "open", OPEN),
        (".~.env", "none", SECRET), (".server.pem.AbC123", "none", SECRET), (".goutputstream-0XYZA1", "none", SECRET),
        ("credentials-prod.json", "none", SECRET), (".git", "read", RUNS), (".GIT", "read", RUNS),
        (".Vscode", "read", RUNS), ("node_modules", "read", RUNS), ("Node_Modules", "read", RUNS),
        ("lefthook.yml", "read", RUNS), ("mise.local.toml", "read", RUNS), ("x.code-workspace", "read", RUNS),
        (".python-version", "read", RUNS), ("flake.nix", "read", RUNS), ("mise.csv", "open", OPEN),
        (".bashrc", "read", UNKNOWN), (".Gitignore", "read", UNKNOWN), (".gitignore", "open", OPEN),
        (".ipynb_checkpoints", "open", OPEN), (".notebook.py.swp", "open", OPEN), (".~lock.a.odt", "open", OPEN),
        ("data", "open", OPEN), ("Makefile", "open", OPEN), ("a.py", "open", OPEN), ("...", "read", UNKNOWN),
    ],
)  # fmt: skip
def test_names(name: str, access: Access, kind: str) -> None:
    assert judge("plain", name)[:2] == (access, kind)


# File systems find these names where another one is written: ext4 and APFS by folding, vfat without dots at the end.
@pytest.mark.parametrize(
    ("name", "meant"),
    [
        (".en\u200cv", ".env"), ("server.p\u200dem", "server.pem"), ("node_module\u017f", "node_modules"),
        (".\u017fsh", ".ssh"), ("server.\u212aey", "server.key"), ("\u017fecret\u017f.toml", "secrets.toml"),
        ("credential\u017f.json", "credentials.json"), ("server.pem.", "server.pem"), ("server.pem. .", "server.pem"),
        ("server.pem::$DATA", "server.pem"), ("kernel.j\u017fon", "kernel.json"), ("renv\u00ad", "renv"),
        ("node_modules\ufe0f", "node_modules"),
    ],
)  # fmt: skip
def test_a_name_that_a_file_system_may_take_for_a_closed_one_is_as_closed(name: str, meant: str) -> None:
    assert judge("plain", meant).access != "open"
    assert judge("plain", name).access == judge("plain", meant).access


@given(st.text(min_size=1), st.sampled_from([row.names.split()[0] for row in NAMES if row.access != "open"]))
def test_the_short_way_to_say_open_misses_no_name(text: str, known: str) -> None:
    """``judge`` looks first whether anything of a closed name is in it."""
    for name in (known.replace("*", text), known.replace("*", text).upper()):
        if not name.startswith("."):
            assert judge("plain", name).access != "open"


@pytest.mark.parametrize("name", ["GIT~1", "ENV~1", "NODE_M~1", "CREDEN~1.JSO", "a~12.b"])
def test_short_names_may_be_anothers(name: str) -> None:
    assert may_be_another(name)
    assert not may_be_another(name + "-longer-than-that")


@given(st.text(min_size=1).filter(lambda name: "/" not in name and "\0" not in name))
def test_a_name_with_a_dot_is_open_only_where_the_table_says_so(name: str) -> None:
    judged = judge("plain", f".{name}")
    if judged.access == "open":
        known = [row.names for row in NAMES if row.access == "open"]
        assert f".{name}" in OPEN_NAMES or "*" in "".join(known)
    assert judge("home", f".{name}").access == "none"
    assert judge("home", f".{name}").kind == HOME
    assert judge("shut", name).access == ("none" if judge("plain", name).access == "none" else "read")
    assert judge("free", name).access == ("none" if judge("plain", name).access == "none" else "open")


# gitrepository-layout(5), and what git 2.39 made in thirty-five everyday commands.
GIT_OPEN = """
    objects refs logs HEAD HEAD.lock ORIG_HEAD FETCH_HEAD MERGE_HEAD MERGE_MSG MERGE_MODE AUTO_MERGE CHERRY_PICK_HEAD
    REVERT_HEAD REBASE_HEAD BISECT_LOG BISECT_START COMMIT_EDITMSG SQUASH_MSG TAG_EDITMSG MERGE_RR NOTES_EDITMSG
    index index.lock index.stash.77 next-index-9 next-index-9.lock sharedindex.abc sharedindex_Xy packed-refs
    packed-refs.lock packed-refs.new shallow shallow.lock gc.pid gc.pid.lock gc.log rebase-merge rebase-apply sequencer
"""
GIT_CLOSED = """
    config config.lock config.worktree hooks commondir gitdir worktrees description branches remotes rr-cache modules
    info lfs svn daemon-export-ok Config HOOKS head index2 gc .git hooks.lock commondir.lock fsmonitor--daemon.ipc
"""


def test_a_repository_is_open_by_a_list() -> None:
    assert judge("plain", ".git").inner == "git"
    assert {name for name in GIT_OPEN.split() if judge("git", name).access != "open"} == set()
    assert {name for name in GIT_CLOSED.split() if judge("git", name).access != "read"} == set()
    assert judge("git", "info").inner == "git info"
    assert judge("git info", "exclude").access == "open"
    assert judge("git info", "attributes").access == "read"
    assert judge("git", "modules").inner == "git modules"
    inner = judge("git modules", "library")
    assert (inner.access, inner.inner) == ("read", "git")
    assert judge("git", "lfs").inner == "git lfs"
    assert judge("git lfs", "objects").access == "open"
    assert judge("git lfs", "hooks").access == "read"
    assert judge("git", "hooks").inner == "shut"


def test_every_decision() -> None:
    accesses: tuple[Access, ...] = ("open", "read", "none")
    wishes: tuple[Wish, ...] = ("read", "write", "make", "remove")
    for access, kind, wish in itertools.product(accesses, (OPEN, RUNS, SECRET, UNKNOWN, HOME, "it is x", ""), wishes):
        no = decide_entry(access, kind, wish)
        if access == "open" or (access == "read" and wish == "read"):
            assert no is None
        else:
            assert no is not None
            assert bool(no.reason) == bool(kind)
    granted = {(kind, wish) for kind in (RUNS, SECRET, UNKNOWN, HOME) for wish in wishes if may_be_granted(kind, wish)}
    assert granted == {(SECRET, "read"), (HOME, "read")} | {(UNKNOWN, wish) for wish in wishes}


def test_explain_finds_what_the_broker_finds() -> None:
    def environments(path: str) -> bool:
        return path == "/w/venv"

    def found(path: str, mode: Mode = "plain") -> tuple[str, str] | None:
        closed = closed_on_the_way(path, "/w", mode, environments)
        return None if closed is None else (closed.path, closed.access)

    assert found("/w/data/x.csv") is None
    assert found("/w/sub/.env") == ("/w/sub/.env", "none")
    assert found("/w/venv/lib/x.py") == ("/w/venv", "read")
    assert found("/w/.git/objects/ab") is None
    assert found("/w/.git/hooks/x") == ("/w/.git/hooks", "read")
    assert found("/w/.ssh/id", "home") == ("/w/.ssh", "none")


def test_the_sentence_of_the_first_cell() -> None:
    guard = Guard(
        root="/h/p", named="/h/p", mode="plain", writable=True, native=(), readable=(), closed=(),
        found=tuple(f"/h/p/{name}" for name in (".git", ".env", *"abcdefg")), holders=frozenset({"/h/p"}),
        not_seen=(), devices=frozenset(), visible=(),
    )  # fmt: skip
    assert (
        sentence(guard)
        == "closed in this folder, or read only: .git, .env, a, b, c, d and 3 more (%sandbox policy has all)."
    )


@pytest.mark.parametrize("machine", sorted(NUMBERS))
def test_the_filter_asks_the_broker_of_what_landlock_cannot_say(machine: str) -> None:
    assert load_program(machine, guarded=True) == compile_filter(machine, guarded=True), (
        "run: python -m sandboxed_kernel.confinement.compile_filter"
    )
    for name in IN_GUARDED_FOLDERS & set(NUMBERS[machine]):
        asked = decide(machine, AUDIT_ARCH[machine], NUMBERS[machine][name], (0,) * 6, guarded=True)
        plain = decide(machine, AUDIT_ARCH[machine], NUMBERS[machine][name], (0,) * 6)
        assert asked == NOTIFY
        assert plain != NOTIFY


INSIDE = {"open": "read, write, make", "read": "read only", "none": "nothing"}


def test_the_documents_show_the_table() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "policy.md").read_text()
    for row in NAMES:
        names = " ".join(f"`{name}`" for name in row.names.split())
        assert f"| {row.kind} | {names} | {row.reason} | {INSIDE[row.access]} |" in text
