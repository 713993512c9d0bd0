"""What nandetect knows of JAX's primitives: one record each, by name. No JAX here."""

from __future__ import annotations

import functools

from nandetect.primitives.record import Depends, Equation, Primitive, Use
from nandetect.primitives.table import BY_NAME

__all__ = ["Depends", "Primitive", "Use", "named", "of"]


@functools.cache
def named(name: str) -> Primitive:
    """The record of a primitive by any of its names; the defaults for one that the table does not have."""
    return BY_NAME.get(name) or Primitive(name=name)


def of(eqn: Equation) -> Primitive:
    """The record of an equation's primitive."""
    return named(eqn.primitive.name)
