"""What nandetect knows of JAX's primitives: one record each, by name. No JAX here."""

from __future__ import annotations

import functools

from nandetect.primitives.record import Depends, Equation, Primitive, Use
from nandetect.primitives.table import BY_NAME

__all__ = ["Depends", "Primitive", "Use", "is_known", "named", "of"]


@functools.cache
def named(name: str) -> Primitive:
    """The record of a primitive by any of its names; the defaults for one that the table does not have."""
    return BY_NAME.get(name) or Primitive(name=name)


def is_known(name: str) -> bool:
    """Whether the table has a record of the primitive."""
    return name in BY_NAME


@functools.cache
def _strange(name: str) -> Primitive:
    return Primitive(name=name)


def of(eqn: Equation) -> Primitive:
    """The record of an equation's primitive; the defaults for one of another library's that has the name of one of JAX's."""
    record = named(eqn.primitive.name)
    return record if record.carries <= eqn.params.keys() else _strange(record.name)
