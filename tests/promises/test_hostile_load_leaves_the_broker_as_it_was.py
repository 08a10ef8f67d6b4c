"""Calls of all kinds, from processes that share sockets, are interrupted and die in the middle, change no broker.

``python -m tests.support.load 3600`` is the long form.
"""

from __future__ import annotations

from pathlib import Path

from tests.support import load

MORE_MEMORY = 24 << 20  # bytes, at most: tables that are full


def test_hostile_load_leaves_the_broker_as_it_was(workspace: Path) -> None:
    outcome = load.run(12.0, workspace)
    print(outcome._replace(errors=""))
    assert "BUG" not in outcome.errors
    assert "Traceback" not in outcome.errors.replace('Traceback (most recent call last):\n  File "<string>"', "")
    assert outcome.reached == 0
    assert outcome.events > 100
    assert outcome.quiet.memory < outcome.early.memory + MORE_MEMORY
    assert outcome.quiet.descriptors < outcome.early.descriptors + 200
