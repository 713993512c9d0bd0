"""Records again from the plain data that `records.plain` made of them."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

Record = TypeVar("Record")
_NUMBERS = {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf")}


def recall(kind: type[Record], told: Mapping[str, Any]) -> Record:
    """The record of this kind; what it has no field for is left out, what was not told has its default."""
    hints = _hints(kind)
    return kind(**{name: _value(hints[name], value) for name, value in told.items() if name in hints})


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _value(kind: Any, told: Any) -> Any:
    options = get_args(kind)
    if get_origin(kind) in (Union, types.UnionType):
        return None if told is None else _value(next(option for option in options if option is not type(None)), told)
    if get_origin(kind) is tuple:
        each = options[0] if len(options) == 2 and options[1] is Ellipsis else None
        return tuple(_value(each or options[at], item) for at, item in enumerate(told))
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return recall(kind, told)
    return _number(told) if kind in (Any, float) else told


def _number(told: Any) -> Any:
    """JSON has no word for a number that is not finite, nor for a complex one."""
    if isinstance(told, str):
        return _NUMBERS.get(told, told)
    if isinstance(told, dict) and told.keys() == {"real", "imag"}:
        return complex(_number(told["real"]), _number(told["imag"]))
    return [_number(item) for item in told] if isinstance(told, list) else told
