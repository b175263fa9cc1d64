"""Parts that are registered by name: found, unknown and duplicate names."""

from __future__ import annotations

import pytest

from deepfake_cls.errors import InputError
from deepfake_cls.registry import Registry


def test_a_part_is_found_by_its_name_and_other_names_are_refused() -> None:
    shape: Registry[str, type] = Registry("shape.name")

    @shape("square")
    class Square:
        pass

    assert shape["square"] is Square
    assert list(shape) == ["square"]
    with pytest.raises(InputError, match=r"shape.name=circle: unknown; expected one of square\. .*plugins="):
        shape["circle"]


def test_a_second_part_with_the_same_name_is_refused_unless_it_is_the_same_object() -> None:
    shape: Registry[str, object] = Registry("shape.name")
    shape("square")(len)
    shape("square")(len)
    with pytest.raises(InputError, match=r"shape.name=square is registered twice, by builtins.len and by builtins.max"):
        shape("square")(max)


def test_a_decorator_without_a_name_is_refused() -> None:
    shape: Registry[str, object] = Registry("shape.name")
    with pytest.raises(InputError, match="registered without a name"):
        shape(len)  # type: ignore[arg-type]
