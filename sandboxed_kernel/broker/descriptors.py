"""Does: shares out the broker's descriptors: nothing of which the sandbox chooses the number takes the last one.

Without one it could neither look at calls nor tell of refusals.
"""

from __future__ import annotations

import resource

RESERVED = 128  # for the broker itself
_SHARES = 3  # for sockets.py, datagrams.py and guarded_connects.py


def share() -> int:
    """How many descriptors each of them may have at once."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return max(RESERVED, (limit - RESERVED) // _SHARES)
