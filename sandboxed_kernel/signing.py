"""Pure: the HMAC of Jupyter messages (RFC 2104), at first without OpenSSL.

``hashlib`` and ``hmac`` load libcrypto: 1.4 MB and some milliseconds in each process, of which the launcher and the
kernel inside have nothing else to do with it at their start. Python's own SHA-256 gives the same digests five times
slower a byte; whoever has signed with it about what loading would have cost goes over to ``hashlib``.
"""

from __future__ import annotations

from _operator import _compare_digest as compare_digest
from collections.abc import Callable, Sequence
from typing import Any

# Not in each Python (a distribution may leave it out, for FIPS 140-3's sake); `random` looks for SHA-512 like this.
_own_sha256: Callable[[bytes], Any] | None
try:
    from _sha2 import sha256 as _own_sha256  # type: ignore[import-not-found, no-redef] # Python 3.12
except ImportError:
    try:
        from _sha256 import sha256 as _own_sha256  # type: ignore[import-not-found, no-redef]
    except ImportError:
        _own_sha256 = None

__all__ = ["Keyed", "compare_digest", "sha256"]

_WORTH_LOADING = 256 * 1024  # bytes: 1.3 ms with Python's own, and 0.2 ms with hashlib
_INNER, _OUTER = bytes(x ^ 0x36 for x in range(256)), bytes(x ^ 0x5C for x in range(256))


def sha256(data: bytes) -> bytes:
    if _own_sha256 is None:
        import hashlib

        return hashlib.sha256(data).digest()
    digest: bytes = _own_sha256(data).digest()
    return digest


class Keyed:
    """HMAC with one key. ``digest``: a name in ``hashlib`` (``"sha256"``). Raises AttributeError for another name."""

    def __init__(self, key: bytes, digest: str = "sha256") -> None:
        self._key, self._digest = key, digest
        self._left: float = 0  # bytes until hashlib takes over
        if digest == "sha256" and _own_sha256 is not None:
            self._left = _WORTH_LOADING
            self._begin(_own_sha256)
        else:
            self._load()

    def hexdigest(self, parts: Sequence[bytes | memoryview]) -> str:
        """Of all ``parts`` together."""
        self._left -= sum(map(len, parts))
        if self._left < 0:
            self._load()
        inner = self._inner.copy()
        for part in parts:
            inner.update(part)
        outer = self._outer.copy()
        outer.update(inner.digest())
        return str(outer.hexdigest())

    def _load(self) -> None:
        import hashlib

        self._left = float("inf")
        self._begin(getattr(hashlib, self._digest))

    def _begin(self, new: Callable[[bytes], Any]) -> None:
        """Both hashes after the first block, which is the key's (RFC 2104, section 4)."""
        size = new(b"").block_size
        key = self._key if len(self._key) <= size else new(self._key).digest()
        block = key.ljust(size, b"\0")
        # Two threads of a kernel sign; one that runs between these two lines has two states of the same hash.
        self._inner = new(block.translate(_INNER))
        self._outer = new(block.translate(_OUTER))
