"""``sandboxed-kernel check`` says what holds here, and does not say so where an attempt succeeds or cannot be made."""

from __future__ import annotations

import pytest

from sandboxed_kernel import check
from sandboxed_kernel.linux.sockets import DEFAULT_TTL


def test_everything_holds_on_this_host() -> None:
    results = check.check()
    assert len(results) == 21
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


def test_a_machine_that_sends_everything_with_the_highest_ttl_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    found: dict[str, int | None] = {DEFAULT_TTL[4]: 255, DEFAULT_TTL[6]: None}
    monkeypatch.setattr(check, "default_ttl", found.get)
    result = check._token_of_own_listeners()
    assert not result.holds
    assert DEFAULT_TTL[4] in result.detail
    assert DEFAULT_TTL[6] not in result.detail
