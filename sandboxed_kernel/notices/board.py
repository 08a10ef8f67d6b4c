"""Pure: which notice is shown when and where; the clock and the random ids are arguments.

Each event is published as one ``display_data`` per cell and destination, whose count ``update_display_data`` raises;
and, while a front end has announced that it knows what to do with it, as a ``comm_open`` of its own, which survives a
flood in Jupyter Server's rate limiter. Clients without a handler warn of each comm. Notices raised while
no client was listening (no cell was running) are repeated in the next cell. A growing count updates existing displays;
it never creates one. A flood of refusals becomes a number: at most ``SHOWN_PER_CELL`` displays and ``COMMS_PER_CELL``
comms per cell, and updates at most every ``PAUSE`` seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sandboxed_kernel.notices import render
from sandboxed_kernel.notices.advice import Place
from sandboxed_kernel.notices.events import Event
from sandboxed_kernel.records import Record, made, replace

COMM_TARGET = "sandboxed_kernel"
ID_PREFIX = "sandboxed-kernel-"  # of every comm id and display id of ours; the kernel may not use it
SHOWN_PER_CELL = 20
COMMS_PER_CELL = 250
CELLS_KEPT = 200  # whose notices are sent again after clear_output
COUNTERS_KEPT = 5000  # the broker has 1,000 in a cell
FRONTS_KEPT = 100  # that announced themselves
PAUSE = 0.25  # seconds between updates; the first notice of a destination never waits

Json = dict[str, Any]
Destination = tuple[str, str, str | None, int | None]
Counter = tuple[str | None, Destination]  # what the broker counts: a destination in the cell that began last


class IopubMessage(Record):
    """One message for iopub, to be signed and sent by the relay."""

    msg_type: str
    content: Json
    parent: Json


class _Notice(Record, frozen=False):
    display_id: str
    event: Event
    late: bool
    changed: bool = False  # the count shown is not the latest
    in_comm: bool = True  # a comm carries the latest count


class _Page(Record, frozen=False):
    """What one cell shows."""

    parent: Json
    notices: list[_Notice] = made(default_factory=list)
    comms: int = 0
    overflow_id: str = ""
    overflow: int = 0
    overflow_changed: bool = False
    cleared: bool = False
    kept: str = ""  # display id of a place among the first outputs, for the first notice


class NoticeBoard:
    """Takes events, gives the messages to publish. ``new_id`` gives unguessable text. ``place``: of the policy."""

    def __init__(self, new_id: Callable[[], str], place: Place = render.UNKNOWN) -> None:
        self._new_id, self._place = new_id, place
        self._pages: dict[str, _Page] = {}
        self._counters: dict[Counter, list[_Notice]] = {}  # and where they are shown
        self._backlog: dict[Counter, Event] = {}
        self._backlog_overflow = 0
        self._fronts: dict[str, None] = {}  # ids of the comms by which they announced themselves, the oldest first
        self._last_update = float("-inf")
        self._due = False

    def announced(self, comm_id: str) -> None:
        """A front end opened a comm on our target: from now on it, and hence every client, gets comms."""
        self._fronts[comm_id] = None
        if len(self._fronts) > FRONTS_KEPT:
            del self._fronts[next(iter(self._fronts))]

    def left(self, comm_id: str) -> bool:
        """Whether the comm that a front end closes was its announcement, which is forgotten."""
        return self._fronts.pop(comm_id, self) is None

    def report(self, event: Event, parent: Json | None, *, is_listened_to: bool, now: float) -> list[IopubMessage]:
        """``event.cell`` is the cell it was counted in. ``parent`` is the header of the cell to show it in, None before
        the first; ``is_listened_to``: every client still reads that cell's output.
        """
        counter = (event.cell, event.destination)
        if counter in self._counters:
            return self._count_up(counter, event, now)
        page = self._page(parent or {})
        if event.verdict == "allowed":
            return self._comm(page, event)
        self._remember(counter)
        if not is_listened_to:
            self._keep_for_next_cell(counter, event)
        if parent is None:
            return self._comm(page, event)
        return self._show(page, event) + self._update_unless_early(now)

    def _remember(self, counter: Counter) -> None:
        self._counters[counter] = []
        if len(self._counters) > COUNTERS_KEPT:
            del self._counters[next(iter(self._counters))]

    def _count_up(self, counter: Counter, event: Event, now: float) -> list[IopubMessage]:
        """Once more the same: what shows it changes, at most every ``PAUSE`` seconds."""
        if counter in self._backlog:
            self._backlog[counter] = event
        for notice in self._counters[counter]:
            notice.event = replace(event, count=max(event.count, notice.event.count + 1))
            notice.changed, notice.in_comm = True, notice.late
        return self._update_unless_early(now)

    def _page(self, parent: Json) -> _Page:
        cell = str(parent.get("msg_id", ""))
        page = self._pages.pop(cell, None) or _Page(parent)
        self._pages[cell] = page  # now the youngest
        while len(self._pages) > CELLS_KEPT:
            del self._pages[next(iter(self._pages))]
        return page

    def _show(self, page: _Page, event: Event) -> list[IopubMessage]:
        if len(page.notices) >= SHOWN_PER_CELL:
            page.overflow += 1
            page.overflow_changed = True
            return self._comm(page, event)
        notice = self._new_notice(page, event, late=False)
        return [*self._comm(page, event), self._display(page, notice, "display_data")]

    def _new_notice(self, page: _Page, event: Event, *, late: bool) -> _Notice:
        notice = _Notice(page.kept or ID_PREFIX + self._new_id(), event, late)
        page.kept = ""
        page.notices.append(notice)
        self._counters.setdefault((event.cell, event.destination), []).append(notice)
        return notice

    def _comm(self, page: _Page, event: Event) -> list[IopubMessage]:
        if not self._fronts or page.comms >= COMMS_PER_CELL:
            return []
        page.comms += 1
        # nbclient takes data with the keys "state" or "buffer_paths" for a widget's (client.py); an event has neither.
        content = {"comm_id": ID_PREFIX + self._new_id(), "target_name": COMM_TARGET, "data": event.to_json()}
        return [IopubMessage("comm_open", content, page.parent)]

    def _keep_for_next_cell(self, counter: Counter, event: Event) -> None:
        if len(self._backlog) >= SHOWN_PER_CELL:
            self._backlog_overflow += 1
        else:
            self._backlog[counter] = event

    def cell_began(self, parent: Json) -> list[IopubMessage]:
        """A visible cell begins to run: it shows what was refused while none ran."""
        backlog, self._backlog = self._backlog, {}
        overflow, self._backlog_overflow = self._backlog_overflow, 0
        if not backlog:
            return []
        page = self._page(parent)
        page.overflow += overflow
        page.overflow_changed = overflow > 0
        notices = [self._new_notice(page, event, late=True) for event in backlog.values()]
        return [self._display(page, notice, "display_data") for notice in notices] + self._update_page(page)

    def keep_place(self, parent: Json) -> list[IopubMessage]:
        """JupyterLab hides outputs beyond the 50th. This empty display goes out before; the cell's first notice reuses
        its id, and so stays visible there as well as where it happened.
        """
        page = self._page(parent)
        if page.notices:
            return []
        page.kept = ID_PREFIX + self._new_id()
        return [IopubMessage("display_data", _content(page.kept, {}), page.parent)]

    def cleared(self, cell: str, now: float) -> list[IopubMessage]:
        """The kernel cleared the outputs of a cell: its notices come back, at most every ``PAUSE`` seconds."""
        page = self._pages.get(cell)
        if page is None:
            return []
        page.cleared = True
        return self._update_unless_early(now)

    def settle(self, cell: str) -> list[IopubMessage]:
        """Before the end of a cell is passed on: all its pending updates, since some clients stop listening then."""
        page = self._pages.get(cell)
        return self._update_page(page) if page else []

    def closing(self, cell: str) -> str:
        """What the error of a cell ends with: what was refused in it; empty where nothing was."""
        page = self._pages.get(cell)
        here = [notice.event for notice in page.notices if not notice.late] if page else []
        return render.closing(here, self._place) if here else ""

    def due(self, now: float) -> float | None:
        """Seconds until ``update`` has something to do; None: nothing waits."""
        return max(0.0, self._last_update + PAUSE - now) if self._due else None

    def update(self, now: float) -> list[IopubMessage]:
        """What waited for its time."""
        return self._update_unless_early(now) if self._due else []

    def _update_unless_early(self, now: float) -> list[IopubMessage]:
        if now - self._last_update < PAUSE:
            self._due = True
            return []
        published = [message for page in self._pages.values() for message in self._update_page(page)]
        if published:
            self._last_update = now
        self._due = False
        return published

    def _update_page(self, page: _Page) -> list[IopubMessage]:
        published: list[IopubMessage] = []
        for notice in page.notices:
            if page.cleared:
                published.append(self._display(page, notice, "display_data"))
            elif notice.changed:
                published.append(self._display(page, notice, "update_display_data"))
            if not notice.in_comm:
                published.extend(self._comm(page, notice.event))
            notice.changed, notice.in_comm = False, True
        published.extend(self._overflow(page))
        page.cleared = False
        return published

    def _display(self, page: _Page, notice: _Notice, msg_type: str) -> IopubMessage:
        data = render.bundle(notice.event, late=notice.late, place=self._place)
        return IopubMessage(msg_type, _content(notice.display_id, data), page.parent)

    def _overflow(self, page: _Page) -> list[IopubMessage]:
        if not page.overflow or not (page.overflow_changed or page.cleared):
            return []
        msg_type = "display_data" if page.cleared or not page.overflow_id else "update_display_data"
        page.overflow_id = page.overflow_id or ID_PREFIX + self._new_id()
        page.overflow_changed = False
        content = _content(page.overflow_id, render.overflow_bundle(page.overflow))
        return [IopubMessage(msg_type, content, page.parent)]


def _content(display_id: str, data: Json) -> Json:
    return {"data": data, "metadata": {}, "transient": {"display_id": display_id}}
