"""The last yes or no that a program asked of its values: where it ends of an error then, a NaN compared for the answer has ended it."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

import jax
import jax.numpy as jnp

from nandetect import effects, nonfinite
from nandetect.annotations import Array
from nandetect.guarding import finite
from nandetect.run.eager_origin import Held
from nandetect.run.operation_log import OperationLog
from nandetect.run.operations import Operation, run_through

# Through whose code an answer is read.
_READERS = frozenset({"jax", "jaxlib", "nandetect", "numpy"})


class Asked:
    """The array of the last answer that was read, and the code that read it."""

    def __init__(self) -> None:
        self._answer: Any = None
        self._by: types.CodeType | None = None

    def note(self, array: jax.Array) -> None:
        """The program reads an array; whatever that is, it must be able to."""
        with suppress(Exception):
            if array.dtype == jnp.bool_:
                self._answer, self._by = array, _reader()

    def compared(self, log: OperationLog, error: BaseException) -> list[Held]:
        """The NaNs that were compared for the last answer, if the program asked for it in a function that the error came out of."""
        token = None if self._answer is None else log.token_of(self._answer)
        if token is None or self._by not in _codes(error):
            return []
        # Where the operations cannot be run again, nobody knows.
        with suppress(Exception), effects.replay_settings(), effects.muted_effects():
            return _compared(run_through(log.origins([token]), log.kept()))
        return []


def _compared(again: Iterable[tuple[Operation, Sequence[Array]]]) -> list[Held]:
    """The NaNs of which one of these operations makes what is none and cannot be."""
    nans: dict[int, Held] = {}
    for operation, results in again:
        taken = [nans[id(operand)] for operand in operation.operands if id(operand) in nans]
        if taken and not any(map(nonfinite.is_inexact, results)):
            return taken
        made = zip(operation.results, results, strict=True)
        nans |= {id(of): (of, value) for of, value in made if finite.can_be_bad(value) and finite.state(value) == finite.NAN}
    return []


def _reader() -> types.CodeType | None:
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None and str(frame.f_globals.get("__name__")).partition(".")[0] in _READERS:
        frame = frame.f_back
    return frame.f_code if frame is not None else None


def _codes(error: BaseException) -> set[types.CodeType]:
    codes, place = set(), error.__traceback__
    while place is not None:
        codes.add(place.tb_frame.f_code)
        place = place.tb_next
    return codes
