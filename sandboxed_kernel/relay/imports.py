"""Does: imports the relay without what most kernels never need of it; ``late.py`` has the ways."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from sandboxed_kernel import relay
from sandboxed_kernel.late import Real, late, standing_in


@contextmanager
def late_imports() -> Iterator[None]:
    """For the import of ``relay.loop``, beside which the kernel starts: it saves a tenth of the launcher's time."""
    # zmq sends objects with pickle and binds to random ports, for those who ask it to, and knows PyPy by its name.
    platform = Real("platform", {"python_implementation": lambda: sys.implementation.name})
    pickle = Real("pickle", {"DEFAULT_PROTOCOL": -1})  # the highest
    late(f"{relay.__name__}.markup", {})  # two dozen patterns, for the first output with HTML
    # `html` is a table of entities, for the first output with some.
    with standing_in(platform, pickle, Real("random"), Real("html")):
        yield
