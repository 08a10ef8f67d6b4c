"""Pure: how many examples a test of many tries.

All of them in `make test`, which says so with HYPOTHESIS_PROFILE=suite. A developer's own call of pytest has that many
fewer that the whole of tests/pure is over in seconds, so that it is called; HYPOTHESIS_PROFILE=explore looks for new
ones. The property is the same each time, and so are the limits that are exceeded: a test that exceeds a limit by far
makes the limit smaller by as much.
"""

from __future__ import annotations

import os

PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "everyday")
SHARE = 32 if PROFILE == "everyday" else 1  # an everyday run has one in so many of what takes long
EXAMPLES = 20  # of a property, in an everyday run


def few(number: int) -> int:
    """``number`` in the suite, a share of it every day."""
    return max(1, number // SHARE)


def examples(number: int) -> int:
    """For a property that wants other than hypothesis' own hundred, in the same proportion."""
    return number if SHARE == 1 else max(1, number * EXAMPLES // 100)
