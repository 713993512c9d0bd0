"""What a comparison of NaN decides, measured: an infinity is compared in its place, which may be told the one thing or the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from nandetect import compat, nonfinite
from nandetect.annotations import Array
from nandetect.compat import JaxprEqn
from nandetect.interpret import marks
from nandetect.program.trace import Program


def changing(program: Program, compared: Sequence[int], results: Sequence[int]) -> Iterator[int]:
    """Those comparisons, by the ids of their equations, with an infinity in whose NaN's place some of these results are others."""
    if not compared:
        return

    def run(infinities: jax.Array, *args: Array) -> list[Array]:
        def otherwise(eqn: JaxprEqn, ins: Sequence[Array], outs: Sequence[Array]) -> Sequence[Array]:
            if id(eqn) not in compared:
                return outs
            infinity = infinities[compared.index(id(eqn))]
            given = [jnp.where(jnp.isnan(x), infinity.astype(x.dtype), x) if nonfinite.is_inexact(x) else x for x in ins]
            return compat.bind(eqn, given)

        outs = marks.results(program.jaxpr, program.consts, args, otherwise)
        return [outs[number] for number in results]

    again = jax.jit(run)
    before = _ran(again, program, np.full(len(compared), np.nan, np.float32))
    for place, number in enumerate(compared):
        for infinity in (np.inf, -np.inf):
            infinities = np.full(len(compared), np.nan, np.float32)
            infinities[place] = infinity
            if not all(map(_are_alike, before, _ran(again, program, infinities))):
                yield number
                break


def _ran(run: jax.stages.Wrapped, program: Program, infinities: np.ndarray) -> list[Array]:
    if program.tape is not None:
        program.tape.rewind()
    return jax.block_until_ready(run(infinities, *program.args))


def _are_alike(before: Array, after: Array) -> bool:
    if jnp.issubdtype(before.dtype, jax.dtypes.extended):
        return True
    one, other = nonfinite.host(before), nonfinite.host(after)
    return np.array_equal(one, other, equal_nan=nonfinite.is_inexact(one))
