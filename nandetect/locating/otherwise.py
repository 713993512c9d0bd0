"""What a comparison of NaN decides, measured: an infinity is compared in its place, which may be told the one thing or the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from nandetect import compat, nonfinite, primitives
from nandetect.annotations import Array
from nandetect.compat import JaxprEqn
from nandetect.interpret import marks
from nandetect.interpret.walk import Run
from nandetect.locating.trail import Node
from nandetect.program.trace import Program


def changing(program: Program, compared: Sequence[Node], results: Sequence[int], in_all_iterations: bool = False) -> Iterator[Node]:
    """Those comparisons with an infinity in whose NaN's place some of these results are others.

    Of a loop it is put into the one iteration that the comparison stands in, or `in_all_iterations`.
    """
    if not compared:
        return
    steps = [() if in_all_iterations else _steps(node.run) for node in compared]

    def run(infinities: jax.Array, *args: Array) -> list[Array]:
        def otherwise(eqn: JaxprEqn, ins: Sequence[Array], outs: Sequence[Array], within: Sequence[jax.Array]) -> Sequence[Array]:
            for infinity, node, own in zip(infinities, compared, steps, strict=True):
                if node.eqn is eqn:
                    here = jnp.all(jnp.array([now == step for now, step in zip(within, own, strict=False)], bool))
                    given = [jnp.where(here & jnp.isnan(x), infinity.astype(x.dtype), x) if nonfinite.is_inexact(x) else x for x in ins]
                    outs = [jnp.where(here, new, old) for new, old in zip(compat.bind(eqn, given), outs, strict=True)]
            return outs

        outs = marks.results(program.jaxpr, program.consts, args, otherwise)
        return [outs[number] for number in results]

    again = jax.jit(run)
    before = _ran(again, program, np.full(len(compared), np.nan, np.float32))
    for place, node in enumerate(compared):
        for infinity in (np.inf, -np.inf):
            infinities = np.full(len(compared), np.nan, np.float32)
            infinities[place] = infinity
            if not all(map(_are_alike, before, _ran(again, program, infinities))):
                yield node
                break


def _steps(run: Run) -> tuple[int, ...]:
    """The iterations of the loops around a run, outermost first."""
    outer = _steps(run.parent) if run.parent is not None else ()
    return (*outer, run.entry[1]) if run.entry is not None and primitives.of(run.eqns[-1]).loops else outer


def _ran(run: jax.stages.Wrapped, program: Program, infinities: np.ndarray) -> list[Array]:
    if program.tape is not None:
        program.tape.rewind()
    return jax.block_until_ready(run(infinities, *program.args))


def _are_alike(before: Array, after: Array) -> bool:
    if jnp.issubdtype(before.dtype, jax.dtypes.extended):
        return True
    one, other = nonfinite.host(before), nonfinite.host(after)
    return np.array_equal(one, other, equal_nan=nonfinite.is_inexact(one))
