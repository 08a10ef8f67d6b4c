"""Does: IPython's history, whose database is made when somebody asks for it.

Where the private home lasts, earlier sessions' inputs are in that database, and this one's are written to it from soon
after the first cell on. Where it goes with the kernel, nobody reads them later. `In`, `_i` and `%history` are answered
from memory, as in plain IPython. A search, the tail (`history_request`, `%recall`) and whoever uses
``history_manager.db`` get the database with all inputs up to then. It takes 1.5 MB, 5 ms and a thread.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import closing, suppress
from typing import Any

from IPython.core.history import HistoryManager

_SOON = 0.2  # seconds after the first cell, so that it does not wait for it
# What means nothing without the database, and is asked for by everything that needs it.
_OF_DATABASE = frozenset(("db", "enabled", "session_number"))


def _is_usual(file: str) -> bool:
    """False where another kernel has locked it for long: sqlite would wait 5 s for it.

    A database in which more than rows lies gets another name: a trigger that an earlier notebook left would run with
    each input, and may never end. So does what is none; then there is a new one.
    """
    if not os.path.lexists(real := os.path.realpath(file)):
        return True
    try:
        import sqlite3
    except ImportError:  # a Python without it has no history
        return True
    from urllib.parse import quote

    try:
        if os.path.isfile(real):
            with closing(sqlite3.connect(f"file:{quote(real)}?mode=rw", uri=True, timeout=_SOON)) as database:
                found = database.execute("SELECT count(*) FROM sqlite_master WHERE type IN ('trigger', 'view')")
                if found.fetchone() == (0,):
                    return True
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            return False
    except sqlite3.Error:
        pass
    with suppress(OSError):
        os.rename(real, f"{real}.{os.urandom(4).hex()}.not-used")
    return True


class LateHistory(HistoryManager):
    """Begins as a HistoryManager with ``enabled = False``."""

    hist_file: Any
    lasts = False  # the database
    _put_off = False
    _waits = False  # for the first cell's end

    def __init__(self, shell: Any, **traits: Any) -> None:
        super().__init__(shell, enabled=False, **traits)
        self._put_off = True
        if self.hist_file != self._get_hist_file_name():  # somebody chose it, and it may outlive the kernel
            self._open()

    def __getattribute__(self, name: str) -> Any:
        if name in _OF_DATABASE and self._put_off:
            self._open()
        return super().__getattribute__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _OF_DATABASE and self._put_off:
            self._open()
        super().__setattr__(name, value)

    def _open(self) -> None:
        """What ``HistoryManager.__init__`` does with a database; the inputs up to now wait in ``db_input_cache``."""
        self._put_off = False
        if self.lasts and not _is_usual(self.hist_file):
            self.hist_file = ":memory:"
        self.enabled = self.trait_defaults("enabled")  # what was configured comes after it
        super().__init__(self.shell, parent=self.parent)
        self.writeout_cache()

    def store_inputs(self, *arguments: Any, **options: Any) -> None:
        super().store_inputs(*arguments, **options)
        if self._put_off and self.lasts and not self._waits:
            self._waits = True
            with suppress(RuntimeError):  # no loop: the end of the session writes it
                asyncio.get_running_loop().call_later(_SOON, self._open_late)

    def _open_late(self) -> None:
        if self._put_off:
            self._open()

    def get_range(self, session: int = 0, *arguments: Any, **options: Any) -> Any:
        if self._put_off and session == 0:
            return self._get_range_session(*arguments, **options)
        return super().get_range(session, *arguments, **options)

    def end_session(self) -> None:
        if self._put_off and self.lasts and self.db_input_cache:
            self._open()
        if not self._put_off:
            super().end_session()

    def close(self) -> None:
        if not self._put_off:
            super().close()
