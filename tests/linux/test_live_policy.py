"""The policy of a running sandbox is that of its files as last accepted, however they are written."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sandboxed_kernel import live
from sandboxed_kernel.errors import HostError, PolicyError
from sandboxed_kernel.live import LivePolicy
from sandboxed_kernel.policy.model import Policy
from sandboxed_kernel.policy.read import load

A, B = '[network]\nallow = ["a.example:443"]\n', '[network]\nallow = ["b.example:443"]\n'


class Watched:
    """A policy file that is looked at; ``reads`` counts how often it was read."""

    def __init__(self, path: Path, accept: Callable[[Policy], None] = lambda _policy: None) -> None:
        self.path, self.reads, self.shown = path, 0, list[Policy]()
        first = self._load()
        self.reads = 0
        self.live = LivePolicy(
            first,
            str(path),
            read=self._load,
            accept=accept,
            show=self.shown.append,
        )

    def _load(self) -> Policy:
        self.reads += 1
        return load(str(self.path), workspace="/work", home="/home/me")

    def allowed(self) -> list[str]:
        return [rule.text for rule in self.live.look()[1].allow]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "policy.toml"
    path.write_text(A)
    make_old(path)
    return path


def make_old(path: Path) -> None:
    """As if it had been written long ago. (The time of change of the inode is still now.)"""
    os.utime(path, (1, 1))


def save_by_rename(path: Path, text: str) -> None:
    path.with_suffix(".new").write_text(text)
    path.with_suffix(".new").replace(path)


def save_in_place(path: Path, text: str) -> None:
    path.write_text(text)


@pytest.mark.parametrize("save", [save_by_rename, save_in_place])
def test_what_is_saved_holds_at_the_next_look(path: Path, save: Callable[[Path, str], None]) -> None:
    watched = Watched(path)
    assert watched.allowed() == ["a.example:443"]
    for text in [B, A] * 100:  # of one length, many within one tick of the clock of files
        save(path, text)
        assert watched.allowed() == [text.split('"')[1]]
    assert watched.shown[-1] == watched.live.look()[1]


def test_nothing_is_read_while_nothing_changes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(path)
    for _ in range(100):
        watched.live.look()
    assert watched.reads == 0
    save_by_rename(path, B)
    monkeypatch.setattr(live, "_TICK", 0)
    for _ in range(100):
        watched.live.look()
    assert watched.reads == 1


def test_a_mistake_leaves_the_rules_and_is_said_once(path: Path) -> None:
    watched = Watched(path)
    path.write_text(B + "allow = 3")
    for _ in range(3):
        assert watched.allowed() == ["a.example:443"]
    (words,) = watched.live.words
    assert str(path) in words
    assert words.endswith("Until it is mended, the rules from before hold.")
    path.write_text(B)
    assert watched.allowed() == ["b.example:443"]


def test_a_file_that_is_gone_for_a_moment_changes_nothing(path: Path) -> None:
    watched = Watched(path)
    for text in ("", None):
        path.unlink() if text is None else path.write_text(text)
        assert watched.allowed() == ["a.example:443"]
    path.write_text(B)
    assert watched.allowed() == ["b.example:443"]
    assert not watched.live.words


def test_a_file_that_stays_away_means_the_default(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "GRACE", 0.0)
    watched = Watched(path)
    path.unlink()
    assert watched.allowed() == []
    (words,) = watched.live.words
    assert "is gone or empty" in words
    path.write_text(A)
    assert watched.allowed() == ["a.example:443"]


def test_only_comments_are_the_default_at_once(path: Path) -> None:
    watched = Watched(path)
    path.write_text("# nothing\n")
    assert watched.allowed() == []


def test_what_the_policy_extends_is_looked_at_too(path: Path) -> None:
    other = path.with_name("other.toml")
    other.write_text(A)
    path.write_text(f'extends = ["{other}", "pypi"]\n')
    watched = Watched(path)
    assert watched.allowed()[0] == "a.example:443"
    other.write_text(B)
    assert watched.allowed()[0] == "b.example:443"
    third = path.with_name("third.toml")
    third.write_text(A)
    path.write_text(f'extends = ["{third}"]\n')
    assert watched.allowed() == ["a.example:443"]
    third.write_text(B)
    assert watched.allowed() == ["b.example:443"]


def test_the_files_of_a_config_map(tmp_path: Path) -> None:
    """kubernetes.io/docs/concepts/configuration/configmap: ``..data`` is a link that is exchanged, not the file."""
    for name, text in (("..1", A), ("..2", B)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "policy.toml").write_text(text)
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "policy.toml").symlink_to("..data/policy.toml")
    watched = Watched(tmp_path / "policy.toml")
    (tmp_path / "..data_tmp").symlink_to("..2")
    (tmp_path / "..data_tmp").replace(tmp_path / "..data")
    assert watched.allowed() == ["b.example:443"]


def test_a_policy_that_is_not_accepted_changes_nothing(path: Path) -> None:
    def refuse(policy: Policy) -> None:
        raise PolicyError("the policy", "lies where the code inside may write", "Put it elsewhere")

    watched = Watched(path, refuse)
    save_by_rename(path, B)
    assert watched.allowed() == ["a.example:443"]
    assert "where the code inside may write" in watched.live.words[0]


def test_what_a_start_applies_is_said_once(path: Path) -> None:
    watched = Watched(path)
    for _ in range(2):
        save_by_rename(path, A + '[limits]\nmemory = "2 GiB"\n')
        watched.live.look()
    (words,) = watched.live.words
    assert words.endswith("what it says under [limits] holds when the kernel is restarted.")


def test_each_change_of_the_rules_has_a_number(path: Path) -> None:
    watched = Watched(path)
    assert watched.live.look()[0] == 0
    save_by_rename(path, A + "# a comment\n")
    assert watched.live.look()[0] == 0
    save_by_rename(path, B)
    assert watched.live.look()[0] == 1


def test_a_disk_that_does_not_answer_keeps_one_thread_only(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(path)
    hangs, answers = threading.Event(), threading.Event()

    def stat(_files: object) -> tuple[None, ...]:
        hangs.set()
        assert answers.wait(30)
        return (None,)

    monkeypatch.setattr(live, "_mark", stat)
    monkeypatch.setattr(live, "_PATIENCE", 0.1)
    thread = threading.Thread(target=watched.live.look)
    thread.start()
    assert hangs.wait(30)
    for _ in range(3):
        assert watched.allowed() == ["a.example:443"]
    (words,) = watched.live.words
    assert "its disk does not answer" in words
    answers.set()
    thread.join()


def test_a_rule_ends_with_its_time(path: Path) -> None:
    until = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
    path.write_text(f'[network]\nallow = ["a.example:443", {{ host = "b.example", port = 443, until = {until} }}]\n')
    watched = Watched(path)
    assert len(watched.allowed()) == 2
    time.sleep(1.1)
    assert watched.allowed() == ["a.example:443"]
    assert watched.live.look()[0] == 1


def test_a_rule_ends_with_its_time_whatever_the_file_says_by_then(path: Path) -> None:
    until = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
    path.write_text(f'[network]\nallow = [{{ host = "b.example", port = 443, until = {until} }}]\n')
    watched = Watched(path)
    assert len(watched.allowed()) == 1
    path.write_text("a mistake")
    assert len(watched.allowed()) == 1
    time.sleep(1.2)
    assert watched.allowed() == []


def test_a_rule_ends_while_the_machine_sleeps(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """time.monotonic() stands still meanwhile (CLOCK_MONOTONIC, clock_gettime(2)); the clock on the wall does not."""
    until = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    path.write_text(f'[network]\nallow = [{{ host = "b.example", port = 443, until = {until} }}]\n')
    watched = Watched(path)
    assert len(watched.allowed()) == 1
    clock = time.time
    monkeypatch.setattr(time, "time", lambda: clock() + 3601)
    assert watched.allowed() == []


@pytest.mark.parametrize("error", [OSError(24, "Too many open files"), HostError("no"), ImportError("no")])
def test_what_goes_wrong_while_it_is_read_is_tried_again(
    path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(live, "_RETRY", 0.0)
    wrong = [error]

    def accept(_policy: Policy) -> None:
        if wrong:
            raise wrong.pop()

    watched = Watched(path, accept)
    path.write_text(B)
    assert watched.allowed() == ["a.example:443"]
    assert watched.allowed() == ["b.example:443"]
    (words,) = watched.live.words
    assert words.endswith("Until it is mended, the rules from before hold.")
