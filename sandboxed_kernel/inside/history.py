"""Does: IPython's history, whose database is made when somebody asks for it.

Inside, IPython's folder is private and gone with the kernel: no other session's inputs are ever in that database, and
nobody reads this one's later. `In`, `_i` and `%history` are answered from memory, as in plain IPython. A search, the
tail (`history_request`, `%recall`) and whoever uses ``history_manager.db`` get the database with all inputs up to then.
It takes 1.5 MB, 5 ms and a thread.
"""

from __future__ import annotations

from typing import Any

from IPython.core.history import HistoryManager

# What means nothing without the database, and is asked for by everything that needs it.
_OF_DATABASE = frozenset(("db", "enabled", "session_number"))


class LateHistory(HistoryManager):
    """Begins as a HistoryManager with ``enabled = False``."""

    _put_off = False

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
        self.enabled = self.trait_defaults("enabled")  # what was configured comes after it
        super().__init__(self.shell, parent=self.parent)
        self.writeout_cache()

    def get_range(self, session: int = 0, *arguments: Any, **options: Any) -> Any:
        if self._put_off and session == 0:
            return self._get_range_session(*arguments, **options)
        return super().get_range(session, *arguments, **options)

    def end_session(self) -> None:
        if not self._put_off:
            super().end_session()

    def close(self) -> None:
        if not self._put_off:
            super().close()
