"""Does: the first step of every command, before any module is imported late."""

from __future__ import annotations

import os
import sys


def pin_imports() -> None:
    """From now on modules come from the real places of the folders that are searched now.

    A symbolic link on the way may lie where the code inside can exchange it; the launcher imports some modules late.
    """
    # A relative one means the working directory: the notebook's folder.
    sys.path[:] = [os.path.realpath(path) for path in sys.path if os.path.isabs(path)]
    for module in list(sys.modules.values()):
        places = getattr(module, "__path__", None)
        if isinstance(places, list):
            places[:] = [os.path.realpath(path) for path in places]
