"""``Workers.may_wait`` for tests without threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")


def directly(function: Callable[[*_Ts], _T], /, *arguments: *_Ts) -> _T:
    return function(*arguments)
