"""Does: imports modules later than they are asked for, or not at all, so that the first cell need not wait for them.

Three ways. A *late module* is in ``sys.modules`` and becomes the real one at the first use of it: for a module that
others ask one known question at start, and that imports nobody who imports it. A *stand-in* is seen only by those who
import it meanwhile, and is gone from ``sys.modules`` afterwards: a notebook that imports the module gets the real one,
in Python's own way and under Python's own locks. With ``when_imported`` something is done when that happens.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from _thread import RLock  # what threading.RLock is
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any


class _LateModule(ModuleType):
    """Stands for a module until one of its attributes is asked for that is not known beforehand."""

    def __init__(self, name: str, spec: ModuleSpec, known: dict[str, Any]) -> None:
        super().__init__(name, None)
        self.__spec__ = spec
        self.__file__ = spec.origin
        self.__package__ = name.rpartition(".")[0]
        self.__dict__.update(known)
        self._loading: Any = RLock()
        self._begun = False

    def __getattr__(self, name: str) -> Any:
        # importlib asks for these of every module; they must not make us import it
        dunder = name.startswith("__") and name.endswith("__") and name != "__version__"
        if not dunder and _may_have(self, name):
            with self.__dict__["_loading"]:  # another thread that asks waits until all is there
                if type(self) is _LateModule and not self._begun:
                    _load(self)
            if type(self) is not _LateModule:
                return getattr(self, name)
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")


def _may_have(module: ModuleType, name: str) -> bool:
    """Whether ``name`` occurs in the source of ``module``. To pickle a function that does not say where it is from,
    pickle asks every module for it (``pickle.whichmodule``); the debugger would load, and say so in the cell.
    """
    spec = module.__spec__
    get_source = getattr(spec and spec.loader, "get_source", None)
    source = get_source(module.__name__) if get_source else None
    return source is None or name in source


def _load(module: _LateModule) -> None:
    """Run the real module in the place of its stand-in, which modules imported meanwhile hold."""
    spec = module.__spec__
    if spec is None or spec.loader is None:
        raise ImportError(module.__name__)
    module._begun = True
    try:
        spec.loader.exec_module(module)
    except BaseException:
        module._begun = False
        raise
    module.__class__ = ModuleType  # type: ignore[assignment]


def late(name: str, known: dict[str, Any]) -> None:
    """Import ``name``, a module and no package, when an attribute of it is asked for that is not among ``known``.

    Raises ImportError.
    """
    spec = importlib.util.find_spec(name)
    if spec is None:
        raise ImportError(name)
    sys.modules[name] = _LateModule(name, spec, known)
    package, _, own_name = name.rpartition(".")
    if package:
        setattr(sys.modules[package], own_name, sys.modules[name])


def when_imported(
    name: str, *, before: Callable[[ModuleType], None] | None = None, then: Callable[[], None] | None = None
) -> None:
    """When somebody imports ``name``: call ``before`` with the empty module, run the module, and call ``then``.

    Both run while Python holds the module's lock, so no other thread sees the module without what they do.
    """
    sys.meta_path.insert(0, _WhenImported(name, before, then))


class _WhenImported:
    """Finds and loads one module, once, as Python would have: a finder of ``sys.meta_path``, and its own loader."""

    def __init__(self, name: str, before: Callable[[ModuleType], None] | None, then: Callable[[], None] | None) -> None:
        self._name, self._before, self._then = name, before, then
        self._real: Any = None

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name == self._name else None
        if spec is not None and spec.loader is not None:
            self._real, spec.loader = spec.loader, self  # type: ignore[assignment] # no importlib.abc.Loader: that module imports much
        return spec

    def __getattr__(self, name: str) -> Any:
        """For who only asks where the module is (``importlib.util.find_spec``) and goes on with the loader."""
        if name == "_real" or self._real is None:
            raise AttributeError(name)
        return getattr(self._real, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._real.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._real
        if module.__spec__ is not None:
            module.__spec__.loader = self._real
        if self._before is not None:
            self._before(module)
        self._real.exec_module(module)
        with suppress(ValueError):
            sys.meta_path.remove(self)  # not before: an import that fails may be tried again
        if self._then is not None:
            self._then()


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
