"""Pure: classes of named values: dataclasses (PEP 681) without the module ``dataclasses``.

That one writes the source of five methods per class and compiles it, and imports ``inspect``, ``ast`` and ``dis`` for
it. In the launcher and the broker, where every import is on the way to the first cell and stays in memory as long as
the notebook, our sixty classes cost 1.4 MB and 25 ms each. Here the methods are written once, and are slower by a
microsecond per value made. Everything that takes dataclasses (``fields``, ``asdict``, ``replace``, ``match``) takes
these too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, dataclass_transform

_R = TypeVar("_R", bound="Record")


class Made:
    """A default that is made anew for each value."""

    __slots__ = ("make",)

    def __init__(self, make: Callable[[], object]) -> None:
        self.make = make


def made(*, default_factory: Callable[[], Any]) -> Any:
    """A field whose default is what ``default_factory()`` returns, as ``dataclasses.field``."""
    return Made(default_factory)


@dataclass_transform(frozen_default=True, field_specifiers=(made,))
class RecordType(type):
    """Turns annotations into slots, in their order, those of the bases first."""

    _names: tuple[str, ...]
    _defaults: dict[str, Any]

    def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any], *, frozen: bool = True) -> RecordType:
        own = tuple(body.get("__annotations__", ()))
        inherited = [base for base in bases if isinstance(base, RecordType)]
        defaults = {field: body.pop(field) for field in own if field in body}
        body["__slots__"] = own
        body["_names"] = body["__match_args__"] = tuple(field for base in inherited for field in base._names) + own
        body["_defaults"] = {field: value for base in inherited for field, value in base._defaults.items()} | defaults
        if not frozen:
            body["__setattr__"], body["__delattr__"], body["__hash__"] = object.__setattr__, object.__delattr__, None
        return super().__new__(cls, name, bases, body)

    @property
    def __dataclass_fields__(cls) -> dict[str, Any]:
        """What the functions of ``dataclasses`` ask for: of a dataclass with the same fields."""
        import dataclasses

        fields: list[Any] = []
        for name in cls._names:
            default = cls._defaults.get(name, dataclasses.MISSING)
            is_made = isinstance(default, Made)
            field = dataclasses.field(default_factory=default.make) if is_made else dataclasses.field(default=default)
            fields.append((name, Any, field))
        twin = dataclasses.make_dataclass(cls.__name__, fields, kw_only=True)
        return {field.name: field for field in dataclasses.fields(twin)}


class Record(metaclass=RecordType):
    """Base of a class of values: frozen, hashable, equal where the class and every field are.

    ``class Name(Record, frozen=False)`` can be changed, and then has no hash. ``__post_init__`` may refuse a value.
    """

    def __init__(self, *values: object, **named: object) -> None:
        names, defaults = type(self)._names, type(self)._defaults
        if len(values) > len(names):
            raise TypeError(f"{type(self).__name__} has {len(names)} fields, not {len(values)}")
        for name, value in zip(names, values, strict=False):
            _set(self, name, value)
        for name in names[len(values) :]:
            if name in named:
                value = named.pop(name)
            elif name in defaults:
                value = defaults[name]
                if isinstance(value, Made):
                    value = value.make()
            else:
                raise TypeError(f"{type(self).__name__} needs {name}")
            _set(self, name, value)
        if named:
            raise TypeError(f"{type(self).__name__} takes no {', '.join(named)}, or has it already")
        self.__post_init__()

    def __post_init__(self) -> None:
        """For subclasses."""

    @property
    def __dataclass_fields__(self) -> dict[str, Any]:
        return type(self).__dataclass_fields__

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen: {name} cannot be set")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen: {name} cannot be deleted")

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return _values(self) == _values(other)

    def __hash__(self) -> int:
        return hash(_values(self))

    def __repr__(self) -> str:
        return f"{type(self).__qualname__}({', '.join(f'{name}={value!r}' for name, value in as_dict(self).items())})"

    def __reduce__(self) -> tuple[Any, ...]:
        """For ``copy`` and ``pickle``, which would set the fields one by one."""
        return type(self), _values(self)


_set = object.__setattr__


def _values(record: Record) -> tuple[Any, ...]:
    return tuple([getattr(record, name) for name in type(record)._names])


def as_dict(record: Record) -> dict[str, Any]:
    """The fields by name; values that are records stay what they are."""
    return {name: getattr(record, name) for name in type(record)._names}


def replace(record: _R, **changes: Any) -> _R:
    """A new value of the same class with some fields changed. Raises what making one raises."""
    return type(record)(**{**as_dict(record), **changes})
