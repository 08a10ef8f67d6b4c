"""Pure: what lies beneath what, by real or normalised absolute paths."""

from __future__ import annotations

from collections.abc import Iterable

from sandboxed_kernel.signing import sha256

WAYS = "l"  # a folder where nothing inside may write, of links that others lead by way of


def is_within(path: str, folder: str) -> bool:
    """Whether ``path`` is ``folder`` or lies beneath it; both absolute and normalised."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def is_beneath(path: str, folder: str) -> bool:
    """Whether ``path`` lies beneath ``folder``, and is not the folder itself."""
    return path != folder and is_within(path, folder)


def ancestors(path: str, root: str) -> Iterable[str]:
    """The folders from the parent of ``path`` up to ``root``, which ``path`` lies beneath."""
    while path != root:
        path = path.rpartition("/")[0] or "/"
        yield path


def way_to(target: bytes) -> str:
    """Where the link to ``target`` stands that others lead by way of: relative to the folder that ``WAYS`` lies in."""
    return f"{WAYS}/{sha256(target).hex()[:16]}"
