"""No Output widget keeps what must be seen in a cell, whatever a kernel says about it; and none loses its outputs."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sandboxed_kernel.notices.board import IopubMessage
from sandboxed_kernel.relay import captures, cells
from sandboxed_kernel.relay.captures import Captures
from sandboxed_kernel.relay.cells import Cell, Cells
from sandboxed_kernel.relay.messages import Json

CELLS = ("first", "second")


def message(msg_type: str, comm: str, parent: str, data: Any) -> tuple[str, Json, Json]:
    """Type, content and parent header."""
    return msg_type, {"comm_id": comm, "data": data}, {"msg_id": parent} if parent else {}


def update(comm: str, msg_id: Any, *, parent: str = "first", method: str = "update") -> tuple[str, Json, Json]:
    return message("comm_msg", comm, parent, {"method": method, "state": {"msg_id": msg_id}, "buffer_paths": []})


class JupyterLab:
    """What a page does with comms: OutputModel.reset_msg_id; a hook is taken back by its own widget only."""

    def __init__(self) -> None:
        self.hooks: list[tuple[str, object]] = []
        self._widgets: dict[str, tuple[object, str]] = {}

    def hears(self, msg_type: str, content: Json, _parent: str) -> None:
        comm, state = content["comm_id"], content["data"].get("state", {})
        if msg_type == "comm_open":
            self._widgets[comm] = (object(), "")
        elif msg_type == "comm_close":
            self._widgets.pop(comm, None)
        elif comm in self._widgets and "msg_id" in state and state["msg_id"] != self._widgets[comm][1]:
            widget, before = self._widgets[comm]
            if before:
                self.hooks.remove((before, widget))
            if state["msg_id"]:
                self.hooks.append((state["msg_id"], widget))
            self._widgets[comm] = (widget, state["msg_id"])

    def captured(self, cell: str) -> int:
        return sum(hook[0] == cell for hook in self.hooks)


class Nbclient:
    """NotebookClient.register_output_hook and remove_output_hook: it runs one cell and hears nothing of others."""

    def __init__(self, cell: str) -> None:
        self.cell, self.stack = cell, list[object]()
        self._widgets: dict[str, object] = {}

    def hears(self, msg_type: str, content: Json, parent: str) -> None:
        comm, state = content["comm_id"], content["data"].get("state", {})
        if parent != self.cell:
            return
        if msg_type == "comm_open":
            self._widgets[comm] = object()
        elif msg_type == "comm_msg" and comm in self._widgets and "msg_id" in state:
            if state["msg_id"]:
                self.stack.append(self._widgets[comm])
            else:
                assert self.stack.pop() is self._widgets[comm]

    def captured(self, cell: str) -> int:
        return len(self.stack) if cell == self.cell else 0


Client = JupyterLab | Nbclient


def tell(clients: list[Client], sayings: list[IopubMessage]) -> None:
    for saying in sayings:
        for client in clients:
            client.hears(saying.msg_type, saying.content, saying.parent["msg_id"])


MSG_IDS: st.SearchStrategy[Any] = st.sampled_from([*CELLS, "", None, ["first"], 7])
STATES = st.dictionaries(st.sampled_from(["msg_id", "outputs"]), MSG_IDS)
DATA = st.one_of(
    st.fixed_dictionaries({"method": st.sampled_from(["update", "echo_update", "custom"]), "state": STATES}),
    st.fixed_dictionaries({"states": st.dictionaries(st.sampled_from("ab"), st.fixed_dictionaries({"state": STATES}))}),
)
KINDS = st.sampled_from(["comm_msg"] * 6 + ["comm_open", "comm_close"])
ANYTHING = st.tuples(KINDS, st.sampled_from("abc"), st.sampled_from(CELLS), DATA)
AS_USUAL = st.builds(
    lambda comm, cell, msg_id: ("comm_msg", comm, cell, {"method": "update", "state": {"msg_id": msg_id and cell}}),
    st.sampled_from("abc"), st.sampled_from(CELLS), st.sampled_from(["", "its own"]),
)  # fmt: skip


@given(st.lists(AS_USUAL | ANYTHING, max_size=30), st.sampled_from(CELLS))
def test_no_client_keeps_a_notice_for_a_widget_and_every_widget_goes_on(steps: list[Any], running: str) -> None:
    taken = Captures()
    lab, nbclient = JupyterLab(), Nbclient(running)
    clients: list[Client] = [lab, nbclient]
    for comm in "abc":
        for client in clients:
            client.hears("comm_open", {"comm_id": comm, "data": {}}, running)
    for step in steps:
        msg_type, content, parent = message(*step)
        if (msg_type, parent["msg_id"]) == ("comm_open", "second" if running == "first" else "first"):
            continue  # nbclient would not know the widget, and JupyterLab would
        tell(clients, taken.take(msg_type, content, parent))
        assert "msg_id" not in content["data"].get("state", {})
        tell(clients, [IopubMessage(msg_type, content, parent)])
        for cell in CELLS:
            before, after = taken.around([cell])
            had = [client.captured(cell) for client in clients]
            tell(clients, before)
            assert [client.captured(cell) for client in clients] == [0, 0]
            tell(clients, after)
            assert [client.captured(cell) for client in clients] == had


def test_a_capture_is_said_as_ipywidgets_says_it() -> None:
    taken = Captures()
    (begun,) = taken.take(*update("a", "first"))
    assert begun.content == {"comm_id": "a", "data": update("a", "first")[1]["data"]}
    assert begun.parent == {"msg_id": "first"}
    assert taken.take(*update("a", "first")) == []
    (ended,) = taken.take(*update("a", ""))
    assert ended.content["data"]["state"] == {"msg_id": ""}
    assert taken.around(["first"]) == ([], [])


def test_only_so_many_widgets_take_outputs_at_a_time() -> None:
    taken = Captures()
    for number in range(captures.MAX_CAPTURES + 5):
        taken.take(*update(str(number), "first"))
    assert [len(sayings) for sayings in taken.around(["first"])] == [captures.MAX_CAPTURES] * 2


def test_a_widget_that_is_closed_lets_go_first() -> None:
    taken = Captures()
    taken.take(*update("a", "first"))
    (ended,) = taken.take(*message("comm_close", "a", "first", {}))
    assert ended.content["data"]["state"] == {"msg_id": ""}


# --- outputs that a page lists ---------------------------------------------------------------------------------------


def running_cell() -> Cells:
    known = Cells()
    known.forwarded(Cell("first", {"msg_id": "first"}, (), None, False))
    return known


def test_a_place_is_kept_once_before_a_page_hides_what_comes() -> None:
    known = running_cell()
    asked = [known.listed("first", None) is not None for _ in range(200)]
    assert asked.index(True) == cells.KEEP_PLACE_AT - 1 < 50
    assert asked.count(True) == 1
    assert known.listed("another", None) is None


def test_the_texts_of_one_stream_are_one_output() -> None:
    known = running_cell()
    assert not any(known.listed("first", "stdout") for _ in range(200))
    assert any(known.listed("first", name) for _ in range(40) for name in ("stdout", "stderr"))


def test_what_is_cleared_is_counted_afresh() -> None:
    known = running_cell()
    for _ in range(20):
        assert not any(known.listed("first", None) for _ in range(cells.KEEP_PLACE_AT - 1))
        known.cleared("first")
