"""Does: makes Python find in some folders of sys.path only what it finds nowhere else. Standard library alone: its text
begins the sitecustomize of every Python that cells start.

Python itself takes a package with an ``__init__.py`` from a later folder before one without in an earlier, and folders
that a notebook appends to sys.path come behind those that are there.
"""

from __future__ import annotations

import sys
from _frozen_importlib_external import PathFinder  # importlib.machinery's, at no cost

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType


class Behind:
    """Comes before PathFinder in sys.meta_path."""

    def __init__(self, folders: list[str]) -> None:
        self.folders = folders

    def _is_behind(self, path: object) -> bool:
        return isinstance(path, str) and any(path == each or path.startswith(f"{each}/") for each in self.folders)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        everywhere = list(sys.path if path is None else path)
        before = [each for each in everywhere if not self._is_behind(each)]
        if not before or len(before) == len(everywhere):
            return None  # PathFinder's
        found = PathFinder.find_spec(name, before, target)
        if found is not None and found.loader is None:  # a package in several folders, perhaps in these too
            whole = PathFinder.find_spec(name, everywhere, target)
            if whole is not None and whole.loader is None:
                return whole
        return found


def add_behind(folders: list[str]) -> None:
    at = sys.meta_path.index(PathFinder) if PathFinder in sys.meta_path else len(sys.meta_path)
    sys.meta_path.insert(at, Behind(folders))
    sys.path += folders
