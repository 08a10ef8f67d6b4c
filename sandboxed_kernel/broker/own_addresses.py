"""Does: which addresses are this machine's own, beyond loopback; asked of the routing table, and kept for a second."""

from __future__ import annotations

import socket
import time

from sandboxed_kernel.broker import decisions
from sandboxed_kernel.broker.sockets import MayWait
from sandboxed_kernel.linux.sockets import is_own_interface

_MAX_ADDRESSES = 1024
_KEPT = 1.0  # seconds: addresses come and go, and a loop of connects need not ask each time


class OwnAddresses:
    def __init__(self, may_wait: MayWait) -> None:
        self._may_wait = may_wait
        self._known: dict[decisions.IpAddress, tuple[float, bool]] = {}  # until when it is known, and what

    def is_here(self, address: decisions.IpAddress) -> bool:
        """Whether who listens on this (normalised) address is on this machine."""
        return decisions.is_loopback(address) or self.is_interface(address)

    def is_interface(self, address: decisions.IpAddress) -> bool:
        """Whether an interface of this machine has this (normalised) address."""
        until, known = self._known.get(address, (0.0, False))
        now = time.monotonic()
        if now > until:
            family = socket.AF_INET if address.version == 4 else socket.AF_INET6
            known = self._may_wait(is_own_interface, str(address), family)
            if len(self._known) >= _MAX_ADDRESSES:
                self._known.clear()
            self._known[address] = (now + _KEPT, known)
        return known
