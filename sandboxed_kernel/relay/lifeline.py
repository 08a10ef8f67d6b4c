"""Does: the launcher's end of its pipes to the warden (confinement/warden.py): signals for the kernel, and its end.

They do not pass by the broker, so that an interrupt and the end come through whatever the broker waits for.
"""

from __future__ import annotations

import os
from contextlib import suppress

LAST_WORDS = 1.0  # seconds for what the broker still has to say once nothing inside is left


class Lifeline:
    """Owns both descriptors. Closing ``orders`` ends everything inside, however it happens: also with this process."""

    def __init__(self, orders: int, done: int) -> None:
        self._orders, self._done = orders, done
        self.status: int | None = None  # how the kernel ended, as from os.waitpid, once nothing inside is left
        os.set_blocking(orders, False)

    def fileno(self) -> int:
        """Readable when a signal was passed on, and when nothing inside is left."""
        return self._done

    def send(self, number: int) -> bool:
        """A signal for the kernel's process group; False where it cannot be sent any more."""
        try:
            return self._orders >= 0 and os.write(self._orders, bytes([number])) == 1
        except OSError:  # the end is near, or the warden is stopped and its pipe is full
            return False

    def passed_on(self) -> int | None:
        """How many signals were sent since the last look. None: nothing inside is left. Only when readable."""
        data = os.read(self._done, 4096)
        signals, mark, status = data.partition(b"\0")
        if mark:
            self.status = int(status)
        return len(signals) if data else None

    def end(self) -> None:
        """End everything inside, at once."""
        if self._orders >= 0:
            os.close(self._orders)
            self._orders = -1

    def close(self) -> None:
        self.end()
        with suppress(OSError):
            os.close(self._done)
