"""Does: imports modules later than they are asked for, or not at all, so that the first cell need not wait for them.

Two ways. A *late module* is in ``sys.modules`` and becomes the real one at the first use of it: for modules that are
ipykernel's own affair. A *stand-in* is seen only by those who import it meanwhile, and is gone from ``sys.modules``
afterwards: for modules that a notebook may import itself, and then gets as ever.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any


class _LateModule(ModuleType):
    """Stands for a module until one of its attributes is asked for that is not known beforehand."""

    def __init__(self, name: str, spec: ModuleSpec, known: dict[str, Any], then: Callable[[], None]) -> None:
        super().__init__(name, None)
        self._then = then
        self.__spec__ = spec
        self.__file__ = spec.origin
        self.__package__ = name.rpartition(".")[0] if spec.submodule_search_locations is None else name
        if spec.submodule_search_locations is not None:
            self.__path__ = list(spec.submodule_search_locations)
        self.__dict__.update(known)

    def __getattr__(self, name: str) -> Any:
        # importlib asks for these of every module; they must not make us import it
        dunder = name.startswith("__") and name.endswith("__") and name != "__version__"
        if dunder or not _may_have(self, name):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        _load(self)
        return getattr(self, name)


def _may_have(module: ModuleType, name: str) -> bool:
    """Whether ``name`` occurs in the source of ``module`` or beside it. To pickle a function that does not say where it
    is from, pickle asks every module for it (``pickle.whichmodule``); the debugger would load, and say so in the cell.
    """
    spec = module.__spec__
    get_source = getattr(spec and spec.loader, "get_source", None)
    source = get_source(module.__name__) if get_source else None
    if source is None or name in source:
        return True
    beside = getattr(module, "__path__", None)
    return beside is not None and PathFinder.find_spec(f"{module.__name__}.{name}", beside) is not None


def _load(module: _LateModule) -> None:
    """Runs the real module in the place of its stand-in, which modules imported meanwhile hold."""
    spec = module.__spec__
    if spec is None or spec.loader is None:
        raise ImportError(module.__name__)
    module.__class__ = ModuleType  # type: ignore[assignment] # first, so that whatever it asks of itself while it loads is not asked of us
    try:
        spec.loader.exec_module(module)
    except BaseException:
        module.__class__ = _LateModule
        raise
    module.__dict__.pop("_then")()


def _nothing() -> None:
    pass


def late(name: str, known: dict[str, Any], then: Callable[[], None] = _nothing) -> None:
    """Import ``name`` when an attribute of it is asked for that is not among ``known``, and ``then`` call that.

    Raises ImportError.
    """
    spec = importlib.util.find_spec(name)
    if spec is None:
        raise ImportError(name)
    sys.modules[name] = _LateModule(name, spec, known, then)
    package, _, own_name = name.rpartition(".")
    if package:
        setattr(sys.modules[package], own_name, sys.modules[name])


@contextmanager
def standing_in(*modules: ModuleType) -> Iterator[None]:
    """``modules`` are what is imported under their names within. Nobody sees them later but who did so."""
    wanted = [module for module in modules if module.__name__ not in sys.modules]
    sys.modules.update({module.__name__: module for module in wanted})
    try:
        yield
    finally:
        for module in wanted:
            if sys.modules.get(module.__name__) is module:
                del sys.modules[module.__name__]


class Real(ModuleType):
    """Has what the real module has, which is imported when the first of it is asked for that is not ``known``."""

    def __init__(self, name: str, known: dict[str, Any] | None = None) -> None:
        super().__init__(name)
        self.__dict__.update(known or {})

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__") and name not in ("__path__", "__all__", "__version__"):
            raise AttributeError(name)  # asked for of every module, and nobody's reason to load this one
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


def later(module: str, name: str) -> Callable[..., Any]:
    """A function or class of a module that is imported when it is called."""
    return lambda *arguments, **options: getattr(importlib.import_module(module), name)(*arguments, **options)


def import_with(name: str, stand_ins: dict[str, dict[str, Any]]) -> None:
    """Import the module ``name``, which finds in these modules what is given here and nothing else."""
    modules = []
    for wanted, known in stand_ins.items():
        modules.append(ModuleType(wanted))
        modules[-1].__dict__.update(known)
    with standing_in(*modules), suppress(Exception):  # of another version, which asks for something else:
        importlib.import_module(name)  # with the real ones, later
