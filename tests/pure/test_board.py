"""Every refusal is shown once in its cell, counted there, and told in the next cell where nobody may have heard it."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxed_kernel.notices import board
from sandboxed_kernel.notices.board import IopubMessage, NoticeBoard
from sandboxed_kernel.notices.events import Event
from sandboxed_kernel.notices.render import MIME

EVENT = Event(
    "name", "refused", "no line names it", "dns", 1.0, 7, "python", host="a.example", allow_line='"a.example:443"'
)
FIRST, SECOND = {"msg_id": "first"}, {"msg_id": "second"}


def new_board() -> NoticeBoard:
    """With a front end that announced itself."""
    numbers = itertools.count()
    made = NoticeBoard(lambda: str(next(numbers)))
    made.announced("front")
    return made


def of(cell: str | None, count: int = 1, **fields: Any) -> Event:
    return replace(EVENT, cell=cell, count=count, **fields)


def displays(sayings: list[IopubMessage]) -> list[IopubMessage]:
    return [saying for saying in sayings if saying.msg_type != "comm_open"]


def counts(sayings: list[IopubMessage]) -> list[int]:
    return [saying.content["data"][MIME]["count"] for saying in displays(sayings)]


def test_the_first_is_a_comm_and_a_display_at_once() -> None:
    comm, display = new_board().report(of("first"), FIRST, is_listened_to=True, now=0.0)
    assert (comm.msg_type, display.msg_type) == ("comm_open", "display_data")
    assert comm.parent == display.parent == FIRST
    assert comm.content["data"] == display.content["data"][MIME] == of("first").to_json()


def test_a_count_changes_the_display_that_there_is() -> None:
    notices = new_board()
    first = displays(notices.report(of("first"), FIRST, is_listened_to=True, now=0.0))
    (changed,) = displays(notices.report(of("first", 9), FIRST, is_listened_to=True, now=1.0))
    assert changed.msg_type == "update_display_data"
    assert changed.content["transient"] == first[0].content["transient"]
    assert counts([changed]) == [9]


def test_a_count_that_comes_after_its_cell_makes_no_notice_in_the_next() -> None:
    """The broker says counts every 0.2 s; by then the cell may be over, and even the next one may run."""
    notices = new_board()
    notices.report(of("first"), FIRST, is_listened_to=True, now=0.0)
    between = notices.report(of("first", 2), FIRST, is_listened_to=False, now=1.0)
    assert notices.cell_began(SECOND) == []
    during = notices.report(of("first", 3), SECOND, is_listened_to=True, now=2.0)
    assert [saying.msg_type for saying in displays(between + during)] == ["update_display_data"] * 2
    assert {saying.parent["msg_id"] for saying in between + during} == {"first"}
    assert counts(notices.report(of("second"), SECOND, is_listened_to=True, now=3.0)) == [1]


def test_what_nobody_may_have_heard_is_told_by_the_next_cell_with_its_last_count() -> None:
    notices = new_board()
    assert len(displays(notices.report(of("first"), FIRST, is_listened_to=False, now=0.0))) == 1
    notices.report(of("first", 5), FIRST, is_listened_to=False, now=1.0)
    (late,) = notices.cell_began(SECOND)
    assert late.parent == SECOND
    assert counts([late]) == [5]
    assert "Before this cell ran" in late.content["data"]["text/plain"]
    changed = displays(notices.report(of("first", 6), SECOND, is_listened_to=True, now=2.0))
    assert [(saying.parent["msg_id"], saying.msg_type) for saying in changed] == [
        ("first", "update_display_data"),
        ("second", "update_display_data"),
    ]
    assert notices.cell_began({"msg_id": "third"}) == []


def test_before_the_first_cell_there_is_nowhere_to_show_it() -> None:
    notices = new_board()
    assert displays(notices.report(of(None), None, is_listened_to=False, now=0.0)) == []
    assert displays(notices.report(of(None, 2), None, is_listened_to=False, now=1.0)) == []
    assert counts(notices.cell_began(FIRST)) == [2]
    (changed,) = displays(notices.report(of(None, 3), FIRST, is_listened_to=True, now=2.0))
    assert changed.msg_type == "update_display_data"


def test_an_allowed_destination_is_a_comm_only() -> None:
    (saying,) = new_board().report(of("first", verdict="allowed"), FIRST, is_listened_to=False, now=0.0)
    assert saying.msg_type == "comm_open"


def test_a_flood_of_destinations_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    assert board.SHOWN_PER_CELL == 20  # here less, and a flood that is smaller by as much
    monkeypatch.setattr(board, "SHOWN_PER_CELL", 5)
    monkeypatch.setattr(board, "COMMS_PER_CELL", 12)
    notices = new_board()
    said = []
    for number in range(50):
        for count in (1, 2):
            said += notices.report(of("first", count, host=f"h{number}"), FIRST, is_listened_to=True, now=number / 50)
    said += notices.settle("first")
    assert len([saying for saying in said if saying.msg_type == "display_data"]) <= board.SHOWN_PER_CELL + 1
    assert len([saying for saying in said if saying.msg_type == "comm_open"]) == board.COMMS_PER_CELL
    assert "45 more refusals of other destinations" in displays(said)[-1].content["data"]["text/plain"]


def test_cleared_outputs_come_back() -> None:
    notices = new_board()
    (_, shown) = notices.report(of("first"), FIRST, is_listened_to=True, now=0.0)
    (again,) = notices.cleared("first", 1.0)
    assert again == shown
    assert notices.cleared("unknown", 2.0) == []


def test_nothing_is_due_when_nothing_changed() -> None:
    notices = new_board()
    assert notices.due(0.0) is None
    notices.report(of("first"), FIRST, is_listened_to=True, now=0.0)
    notices.report(of("first", 2), FIRST, is_listened_to=True, now=0.1)
    notices.report(of("first", 3), FIRST, is_listened_to=True, now=0.2)
    due = notices.due(0.2)
    assert due is not None
    assert counts(notices.update(0.201 + due)) == [3]
    assert notices.due(1.0) is None


STEPS = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c"]), st.booleans(), st.sampled_from(["report", "began", "clear", "settle"])),
    max_size=30,
)


@given(STEPS)
def test_every_destination_is_displayed_in_its_cell_and_told_again_where_it_was_not_heard(
    steps: list[tuple[str, bool, str]],
) -> None:
    """Against a model: the destinations of each cell, and those that the next one has to repeat."""
    notices, now = new_board(), itertools.count()
    cell, seen, unheard = 0, dict[tuple[int, str], int](), set[str]()
    notices.cell_began({"msg_id": "0"})
    for host, heard, step in steps:
        parent = {"msg_id": str(cell)}
        if step == "report":
            seen[cell, host] = seen.get((cell, host), 0) + 1
            said = notices.report(
                of(str(cell), seen[cell, host], host=host), parent, is_listened_to=heard, now=float(next(now))
            )
            new = [saying for saying in said if saying.msg_type == "display_data"]
            assert len(new) == (seen[cell, host] == 1)
            if not heard and seen[cell, host] == 1:
                unheard.add(host)
        elif step == "began":
            cell += 1
            said = notices.cell_began({"msg_id": str(cell)})
            assert {saying.content["data"][MIME]["host"] for saying in said} == unheard
            unheard = set()
        elif step == "clear":
            notices.cleared(str(cell), float(next(now)))
        else:
            notices.settle(str(cell))
            assert notices.settle(str(cell)) == []


def test_the_first_notice_takes_the_place_that_was_kept() -> None:
    notices = new_board()
    (empty,) = notices.keep_place(FIRST)
    assert (empty.msg_type, empty.content["data"]) == ("display_data", {})
    (shown,) = displays(notices.report(of("first"), FIRST, is_listened_to=True, now=0.0))
    (other,) = displays(notices.report(of("first", host="b.example"), FIRST, is_listened_to=True, now=1.0))
    assert shown.msg_type == other.msg_type == "display_data"
    assert shown.content["transient"] == empty.content["transient"] != other.content["transient"]
    assert notices.keep_place(FIRST) == []


def test_comms_are_for_front_ends_that_announced_themselves() -> None:
    notices = NoticeBoard(lambda: "id")
    said = notices.report(of("first"), FIRST, is_listened_to=True, now=0.0)
    assert [saying.msg_type for saying in said] == ["display_data"]
    assert not notices.left("one")
    notices.announced("one")
    notices.announced("two")
    assert notices.left("one")
    said = notices.report(of("first", host="b.example"), FIRST, is_listened_to=True, now=1.0)
    assert [saying.msg_type for saying in said] == ["comm_open", "display_data"]
    assert notices.left("two")
    said = notices.report(of("first", host="c.example"), FIRST, is_listened_to=True, now=2.0)
    assert [saying.msg_type for saying in said] == ["display_data"]


def test_announcements_are_bounded() -> None:
    notices = NoticeBoard(lambda: "id")
    for number in range(board.FRONTS_KEPT + 1):
        notices.announced(str(number))
    assert not notices.left("0")
    assert notices.left("1")
