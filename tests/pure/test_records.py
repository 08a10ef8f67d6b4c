"""Records are dataclasses in all that anybody asks of one, without the cost of the module."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import subprocess
import sys
from typing import Any

import pytest

from sandboxed_kernel.records import Record, as_dict, made, replace


class Point(Record):
    x: int
    y: int = 2
    names: list[str] = made(default_factory=list)


class Named(Point):
    label: str = "none"


class Open(Record, frozen=False):
    value: int = 0


class Even(Record):
    number: int

    def __post_init__(self) -> None:
        if self.number % 2:
            raise ValueError(f"{self.number} is odd")


@dataclasses.dataclass(frozen=True, slots=True)
class Twin:
    x: int
    y: int = 2
    names: list[str] = dataclasses.field(default_factory=list)


WRONG: tuple[tuple[tuple[Any, ...], dict[str, Any]], ...] = (
    ((), {}),
    ((1, 2, [], 4), {}),
    ((1,), {"x": 1}),
    ((1,), {"z": 1}),
)


@pytest.mark.parametrize("kind", [Point, Twin])
@pytest.mark.parametrize(("values", "named"), WRONG)
def test_a_value_with_other_fields_is_not_made(kind: Any, values: tuple[Any, ...], named: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        kind(*values, **named)


@pytest.mark.parametrize("make", [lambda kind: kind(1), lambda kind: kind(1, 3), lambda kind: kind(y=3, x=1)])
def test_fields_and_text_are_a_dataclass_s(make: Any) -> None:
    mine, twin = make(Point), make(Twin)
    assert (mine.x, mine.y, mine.names) == (twin.x, twin.y, twin.names)
    assert repr(mine) == repr(twin).replace("Twin", "Point")


def test_a_made_default_is_each_value_s_own() -> None:
    first, second = Point(1), Point(1)
    first.names.append("a")
    assert second.names == []


def test_values_are_equal_by_class_and_fields() -> None:
    assert Even(2) == Even(2)
    assert hash(Even(2)) == hash(Even(2))
    assert Even(2) != Even(4)
    assert Point(1) != Named(1)
    assert Open(1) == Open(1)


def test_a_frozen_value_cannot_be_changed() -> None:
    for name in ("x", "other"):
        with pytest.raises(AttributeError):
            setattr(Named(1), name, 3)
        with pytest.raises(AttributeError):
            delattr(Named(1), name)
    assert not hasattr(Named(1), "__dict__")


def test_an_open_value_can_be_changed_and_has_no_hash() -> None:
    value = Open(1)
    value.value = 2
    assert value == Open(2)
    with pytest.raises(TypeError):
        hash(value)
    for name in ("other",):
        with pytest.raises(AttributeError):
            setattr(value, name, 1)


def test_what_is_derived_has_the_fields_of_its_base_first() -> None:
    assert as_dict(Named(1, 3, ["a"], "b")) == {"x": 1, "y": 3, "names": ["a"], "label": "b"}


def test_every_way_to_make_one_is_checked() -> None:
    with pytest.raises(ValueError, match="3 is odd"):
        Even(3)
    with pytest.raises(ValueError, match="5 is odd"):
        replace(Even(2), number=5)


def test_a_copy_is_equal() -> None:
    value = Named(1, 3, ["a"], "b")
    assert copy.deepcopy(value) == pickle.loads(pickle.dumps(value)) == value  # our own
    assert replace(value, x=2) == Named(2, 3, ["a"], "b")


def test_the_functions_of_dataclasses_take_records() -> None:
    value = Named(1, 3, ["a"])
    assert all(dataclasses.is_dataclass(one) for one in (value, Named))
    assert [field.name for field in dataclasses.fields(value)] == ["x", "y", "names", "label"]
    assert dataclasses.asdict(value) == {"x": 1, "y": 3, "names": ["a"], "label": "none"}
    assert dataclasses.replace(value, x=2) == Named(2, 3, ["a"])
    match value:
        case Point(x, y):
            assert (x, y) == (1, 3)


def test_dataclasses_are_not_imported_for_them() -> None:
    code = "import sys, sandboxed_kernel.launcher; print(sorted({'dataclasses', 'inspect'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
