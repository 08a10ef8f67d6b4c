"""Pure: which cell runs, from the requests that were passed on and the replies that came back.

A forged early reply ends the attribution to that cell early: the next event then goes to the next cell in the queue, or
to the same one as "the last that ran", and to the one after it. Nothing is lost by it.
"""

from __future__ import annotations

from sandboxed_kernel.records import Record
from sandboxed_kernel.relay.messages import Frame, Json

MAX_PENDING = 10_000  # a client that queues more cells than that loses attribution, not messages
# JupyterLab lists 50 outputs of a cell and hides the rest behind a button (maxNumberOutputs, a setting of notebooks).
KEEP_PLACE_AT = 40


class Cell(Record):
    """An execute_request: what is needed to speak to its output area, and to answer in the kernel's stead."""

    msg_id: str
    header: Json
    identities: tuple[Frame, ...]
    subshell: str | None
    silent: bool  # an extension's request that shows no output

    @property
    def channel(self) -> str:
        """The one it came over."""
        return "control" if (self.subshell or "").startswith("control ") else "shell"


class Cells:
    """Execute requests in flight: first in, first out per subshell, as ipykernel runs them."""

    def __init__(self) -> None:
        self._pending: dict[str, Cell] = {}  # by msg_id, in order of arrival
        self._last: Cell | None = None
        # Of those pending and the last:
        self._over: set[str] = set()  # whose clients were told that they are idle
        self._listed: dict[str, tuple[int, str | None]] = {}  # how many outputs, and the stream that is the last one

    def forwarded(self, cell: Cell) -> None:
        if len(self._pending) < MAX_PENDING:
            self._pending[cell.msg_id] = cell

    def answered(self, msg_id: str) -> None:
        cell = self._pending.pop(msg_id, None)
        if cell is not None:
            gone, self._last = (cell, self._last) if cell.silent else (self._last, cell)
            if gone is not None:
                self._over.discard(gone.msg_id)
                self._listed.pop(gone.msg_id, None)

    def idle(self, msg_id: str) -> None:
        """Clients that read a cell's output until it is idle (nbclient) do not read it any more."""
        if self._known(msg_id):
            self._over.add(msg_id)

    def _known(self, msg_id: str) -> Cell | None:
        return self._pending.get(msg_id) or (self._last if self._last and self._last.msg_id == msg_id else None)

    def listed(self, msg_id: str, stream: str | None) -> Cell | None:
        """A page lists one more output of a cell; pages join the texts of one ``stream``. Gives the cell when it is
        time to keep a place for a notice, since what comes later may be out of sight.
        """
        cell = self._known(msg_id)
        count, last = self._listed.get(msg_id, (0, None))
        if cell is None or (stream is not None and stream == last):
            return None
        self._listed[msg_id] = (count + 1, stream)
        return cell if count + 1 == KEEP_PLACE_AT else None

    def cleared(self, msg_id: str) -> None:
        """The page lists none of its outputs any more."""
        self._listed.pop(msg_id, None)

    def is_listened_to(self, cell: Cell) -> bool:
        """Whether every client still reads this cell's output: nbclient stops at its idle."""
        return cell.msg_id not in self._over

    def running(self) -> list[Cell]:
        """The head of each subshell's queue, the main shell first."""
        heads: dict[str | None, Cell] = {}
        for cell in self._pending.values():
            heads.setdefault(cell.subshell, cell)
        return sorted(heads.values(), key=lambda cell: cell.subshell is not None)

    def pending(self) -> list[Cell]:
        return list(self._pending.values())

    def running_visible(self) -> Cell | None:
        """The cell that something happening now belongs to; which of several subshells caused it is not knowable."""
        return next((cell for cell in self.running() if not cell.silent), None)

    def attributed(self) -> Cell | None:
        """The visible cell that runs, else the last one that did; None before the first."""
        return self.running_visible() or self._last
