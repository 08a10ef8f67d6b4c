"""``sandboxed-kernel check`` says what holds here, and does not say so where an attempt succeeds or cannot be made."""

from __future__ import annotations

import pytest

from sandboxed_kernel import check


def test_everything_holds_on_this_host() -> None:
    results = check.check()
    assert len(results) == 19
    assert [result for result in results if not result.holds] == []


@pytest.mark.parametrize(
    ("answer", "detail"),
    [({}, "the attempt itself could not be made"), ({"tcp": "", "own": "EACCES"}, "it was possible")],
)
def test_what_was_possible_or_not_tried_does_not_hold(
    answer: dict[str, str], detail: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "_run_probe", lambda *_: answer)
    results = {result.name: result for result in check.check()}
    assert not results["other TCP"].holds
    assert detail in results["other TCP"].detail
    assert not results["own servers"].holds
