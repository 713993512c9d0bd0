"""Records, made again from the plain data that `records.plain` made of them."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeAlias, TypeVar, Union, cast, get_args, get_origin, get_type_hints

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
Record = TypeVar("Record")
_NUMBERS = {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf")}


def recall(kind: type[Record], data: Mapping[str, Json]) -> Record:
    """The record of this kind. Data without a field is left out, a field without data has its default."""
    hints = _hints(kind)
    return kind(**{name: _value(hints[name], value) for name, value in data.items() if name in hints})


@cache
def _hints(kind: type) -> dict[str, object]:
    return get_type_hints(kind)


def _value(kind: object, data: Json) -> object:
    """The value of a field whose type hint is `kind`."""
    options = get_args(kind)
    if get_origin(kind) in (Union, types.UnionType):
        return None if data is None else _value(next(option for option in options if option is not type(None)), data)
    if get_origin(kind) is tuple and isinstance(data, list):
        each = options[0] if len(options) == 2 and options[1] is Ellipsis else None
        return tuple(_value(each or options[index], item) for index, item in enumerate(data))
    if dataclasses.is_dataclass(kind) and isinstance(kind, type) and isinstance(data, dict):
        return recall(kind, data)
    return _number(data) if kind in (Any, float) else data


def _number(data: Json) -> object:
    """The number that the data stand for: JSON has no word for one that is not finite, or complex."""
    if isinstance(data, str):
        return _NUMBERS.get(data, data)
    if isinstance(data, dict) and data.keys() == {"real", "imag"}:
        return complex(_part(data["real"]), _part(data["imag"]))
    return [_number(item) for item in data] if isinstance(data, list) else data


def _part(data: Json) -> float:
    return _NUMBERS[data] if isinstance(data, str) else cast(float, data)
