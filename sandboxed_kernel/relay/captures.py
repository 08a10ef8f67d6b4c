"""Pure: which Output widgets take the outputs of a cell to themselves, and what makes them leave a notice alone.

A page gives the outputs of the request that an Output widget names in ``msg_id`` to that widget, and to nobody else
(``OutputModel.reset_msg_id`` of @jupyter-widgets/jupyterlab-manager, ``nbclient/output_widget.py``). The widget may be
shown in another place, in none, or be closed, and would keep a notice there. The relay therefore
strips ``msg_id`` from the kernel's messages and sends it itself, one change to a message, so that it can release the
capture around each notice. What a page was sent is then exactly what is remembered here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sandboxed_kernel.notices.board import IopubMessage
from sandboxed_kernel.relay.messages import Json

MAX_CAPTURES = 32  # at a time; each costs two messages per notice. Beyond them, outputs stay in their cell


class Captures:
    """Goes by messages in the order in which clients get them."""

    def __init__(self) -> None:
        self._parents: dict[str, Json] = {}  # comm -> header of the request whose outputs it takes; oldest first

    def take(self, msg_type: str, content: Json, parent: Json) -> list[IopubMessage]:
        """Takes ``msg_id`` out of a comm message of the kernel's. Gives what to publish before that message, which may
        turn out to be one that is not passed on.
        """
        data = content.get("data")
        if not isinstance(data, dict):
            return []
        wanted, was_there = _without_msg_id(data)
        comm = str(content.get("comm_id"))
        if msg_type != "comm_msg":
            # Opened: pages heed no msg_id then, and a widget that had this id before is out of reach from now on.
            # Closed: out of reach too.
            return self._leave(comm)
        if not was_there or data.get("method") != "update" or wanted == self._captured(comm):
            return []
        return self._leave(comm) + self._begin(comm, wanted, parent)

    def _captured(self, comm: str) -> str:
        return str(self._parents[comm]["msg_id"]) if comm in self._parents else ""

    def _begin(self, comm: str, wanted: Any, parent: Json) -> list[IopubMessage]:
        # nbclient hears a capture only if its parent is the cell, which with ipywidgets it is. With another parent one
        # client would believe in the capture and another would not.
        if not wanted or parent.get("msg_id") != wanted or len(self._parents) >= MAX_CAPTURES:
            return []
        self._parents[comm] = parent
        return [_change(comm, parent, wanted)]

    def _leave(self, comm: str) -> list[IopubMessage]:
        if comm not in self._parents:
            return []
        before, after = self.around([self._captured(comm)])
        del self._parents[comm]
        return before + [message for message in after if message.content["comm_id"] != comm]

    def around(self, cells: Iterable[Any]) -> tuple[list[IopubMessage], list[IopubMessage]]:
        """What to publish before and after something that must be seen in these cells (``msg_id``)."""
        wanted = set(cells)
        taken = [(comm, parent) for comm, parent in self._parents.items() if parent["msg_id"] in wanted]
        # The last first: nbclient keeps a stack of them for each cell, and insists.
        before = [_change(comm, parent, "") for comm, parent in reversed(taken)]
        return before, [_change(comm, parent, str(parent["msg_id"])) for comm, parent in taken]


def _without_msg_id(data: Json) -> tuple[Any, bool]:
    """The ``msg_id`` taken out, and whether there was one. Also from the answer to a page that asks for all states."""
    states = data.get("states")
    for described in states.values() if isinstance(states, dict) else ():
        state = described.get("state") if isinstance(described, dict) else None
        if isinstance(state, dict):
            state.pop("msg_id", None)
    state = data.get("state")
    if not isinstance(state, dict) or "msg_id" not in state:
        return None, False
    return state.pop("msg_id"), True


def _change(comm: str, parent: Json, msg_id: str) -> IopubMessage:
    data = {"method": "update", "state": {"msg_id": msg_id}, "buffer_paths": []}
    return IopubMessage("comm_msg", {"comm_id": comm, "data": data}, parent)
