"""Whether a form is the function that it stands in for: both run on numbers of many sizes, in their own width and in double."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from nandetect import effects, nonfinite, widths
from nandetect.fixing.forms import OTHERS, WIDER, Found, shaped
from nandetect.fixing.graph import Graph, Node
from nandetect.fixing.rebind import doubled, rebind

# The sizes of the numbers that are tried. The largest exponents still have an exponential in double precision.
SCALES = (0.3, 1.0, 4.0, 30.0, 100.0)
# How far two forms may be apart, in parts of the largest: of one function in double precision, and in single against double.
SAME_IN_DOUBLE, SLOPE_IN_DOUBLE, SAME_IN_SINGLE = 1e-6, 1e-4, 2e-3
# How far double precision may be from itself past the edge, where the old form loses its digits in it too: wrong forms are at 0.2 and more.
LOST = 0.1
# The largest scale at which single precision judges by itself.
AT_EASE = 1.0
# What is smaller is no size to compare with.
SMALLEST, SMALLEST_SLOPE = 1e-10, 1e-5
# How XLA compiles what is run a few times alone.
SOON = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
# Elements of all leaves together beyond which nothing is tried.
MOST = 1 << 22


@dataclass(frozen=True)
class Judged:
    """What trying showed: on so many numbers the old form was sound, and the two were apart by `apart` at most, in parts of the largest.

    With `of_positive`, they are the same function of positive numbers alone.
    """

    is_same: bool
    numbers: int = 0
    apart: float = 0.0
    with_slopes: bool = False
    of_positive: bool = False


def judge(graph: Graph, found: Found) -> Judged | None:
    """Compare a form with what it stands in for; None where that cannot be run by itself."""
    nodes, others = graph.cone(found.root, list(found.leaves.values()))
    leaves = {**found.leaves, **{f"other {number}": x for number, x in enumerate(others)}}
    if sum(np.size(x) for x in leaves.values()) > MOST:
        return None
    try:
        with effects.replay_settings():
            return _compared(found, nodes, leaves)
    except Exception:
        return None


def _compared(found: Found, nodes: Sequence[Node], leaves: Mapping[str, Array]) -> Judged | None:
    names = list(leaves)
    inner = [leaves[name] for name in names]

    def old(values: Sequence[Array], wide: bool) -> Array:
        return rebind(nodes, inner, values, doubled if wide else None)[0]

    def new(values: Sequence[Array], wide: bool) -> Array:
        env: dict[str, Any] = dict(zip(names, values, strict=True))
        if wide:
            env[WIDER] = doubled
        env[OTHERS] = [(x, v) for name, x, v in zip(names, inner, values, strict=True) if name not in found.leaves]
        return shaped(found.form.value(env), found.root.outs[0].shape)

    floating = [jnp.issubdtype(x.dtype, jnp.floating) for x in inner]
    with_slopes = any(floating) and jnp.issubdtype(found.root.outs[0].dtype, jnp.floating)

    def measured(form: Callable[..., Array], wide: bool, values: Sequence[Array]) -> Any:
        moving = [v for v, is_float in zip(values, floating, strict=True) if is_float]

        def value(moving: Sequence[Array]) -> Array:
            rest = iter(moving)
            return form([next(rest) if is_float else v for v, is_float in zip(values, floating, strict=True)], wide)

        if not with_slopes:
            return value(moving), []
        out, pull = jax.vjp(value, moving)
        return out, pull(jnp.asarray(_weights(out.shape), out.dtype))[0]

    def both(wide: bool) -> Callable[[Sequence[Array]], list[list[np.ndarray]]]:
        # Run ten times on little: what compiles soonest is done soonest.
        run = jax.jit(lambda values: [measured(form, wide, values) for form in (old, new)], compiler_options=SOON)
        return lambda values: [_host(result) for result in run(values)]

    # Every second sample is of positive numbers.
    scales = [scale for scale in SCALES for _ in range(2)]
    bounds = [_bound(leaf, nodes) for leaf in inner]
    rows = [_sample(inner, bounds, scale, number % 2 == 1, number // 2) for number, scale in enumerate(scales)]
    narrow = list(map(both(False), rows))
    try:
        with widths.double():
            wide = list(map(both(True), [[_wide(value) for value in row] for row in rows]))
        double = SAME_IN_DOUBLE
    # A function of JAX's own with a derivative rule may be there in one width alone: then the two are compared where both are at ease.
    except Exception:
        wide, double = narrow, SAME_IN_SINGLE
        scales = [scale for scale in scales if scale <= AT_EASE]
    # What is beyond the type of the result is not sound in it, whatever double makes of it.
    largest = float(jnp.finfo(found.root.outs[0].dtype).max) / 2
    rows_of = zip(scales, narrow, wide, strict=False)
    compared = [_row(found.kind != "same", scale, double, largest, *few, *many) for scale, few, many in rows_of]
    everywhere, positive = _are_same(compared), _are_same(compared[1::2])
    if everywhere is None:
        return None
    if not everywhere and positive:
        compared = [row if number % 2 else _Row(0) for number, row in enumerate(compared)]
    seen = [row for row in compared if row.numbers]
    return Judged(
        bool(everywhere or positive),
        sum(row.numbers for row in seen),
        max((row.apart for scale, row in zip(scales, compared, strict=False) if row.is_trusted and scale <= AT_EASE), default=0.0),
        with_slopes,
        of_positive=bool(positive and not everywhere),
    )


def _are_same(rows: Sequence[_Row]) -> bool | None:
    """Whether two forms are one function by these samples; None where the old one is sound in none of them."""
    seen = [row for row in rows if row.numbers]
    return all(row.is_same for row in seen) and any(row.is_trusted for row in seen) if seen else None


@dataclass(frozen=True)
class _Row:
    numbers: int
    is_same: bool = True
    is_trusted: bool = False
    apart: float = 0.0


def _row(only_sound: bool, scale: float, same: float, largest: float, *results: Sequence[np.ndarray]) -> _Row:
    """One sample: the old and the new form in their own width, then in double, which is trusted in nothing where it has lost its digits."""
    value, *slopes = zip(*results, strict=True)
    if not only_sound and scale <= AT_EASE and (np.isnan(value[2]) & ~np.isnan(value[3])).any():
        # Where the old form has no value, and not for want of digits, the new one makes one up.
        return _Row(1, is_same=False)
    numbers, double, single, own = _errors(only_sound, SMALLEST, largest, *value)
    if not numbers:
        return _Row(0)
    if not (
        double <= (same if scale <= AT_EASE else max(same, LOST)) and single <= max(LOST if double > same else SAME_IN_SINGLE, 4 * own)
    ):
        return _Row(numbers, is_same=False)
    if double > same or numbers < value[2].size:
        # The slope of a whole in which one element is not sound may be no slope.
        return _Row(numbers, is_trusted=double <= same, apart=single)
    for slope in slopes:
        count, double, slope_single, own = _errors(only_sound, SMALLEST_SLOPE, largest, *slope)
        if count and not (double <= max(SLOPE_IN_DOUBLE, same) and slope_single <= max(SAME_IN_SINGLE, 4 * own)):
            return _Row(numbers, is_same=False)
        single = max(single, slope_single)
    return _Row(numbers, True, True, single)


def _errors(
    only_sound: bool, least: float, largest: float, old: np.ndarray, new: np.ndarray, old64: np.ndarray, new64: np.ndarray
) -> tuple[int, float, float, float]:
    """How many elements are sound, and how far the new form in double, in its own width, and the old one in its own are from the truth."""
    sound = (np.abs(old64) < largest) & (np.isfinite(old) if only_sound else True)
    if not sound.any():
        return 0, 0.0, 0.0, 0.0
    size = max(float(np.abs(old64[sound]).max()), least)

    def off(values: np.ndarray) -> float:
        return float(np.where(np.isfinite(values), np.abs(values - old64), np.inf)[sound].max()) / size

    with np.errstate(invalid="ignore"):
        own = np.abs(old - old64)[sound & np.isfinite(old)].max(initial=0.0) / size
        return int(sound.sum()), off(new64), off(new), float(own)


def _host(result: tuple[Array, list[Array]]) -> list[np.ndarray]:
    out, slopes = result
    return [nonfinite.in_double(x) for x in (out, *slopes)]


def _bound(leaf: Array, nodes: Sequence[Node]) -> int:
    """The number that an integer leaf is to stay below: where it chooses between cases, there are only so many."""
    return min((len(node.ins) - 1 for node in nodes if node.name == "select_n" and node.ins[0] is leaf), default=6)


def _sample(leaves: Sequence[Array], bounds: Sequence[int], scale: float, positive: bool, seed: int) -> list[Array]:
    """Numbers for the leaves: normal ones of this size, or their magnitudes; truth values mostly true; integers from 0."""
    rng = np.random.default_rng(seed)
    row = []
    for leaf, bound in zip(leaves, bounds, strict=True):
        if jnp.issubdtype(leaf.dtype, jnp.inexact):
            drawn = rng.normal(size=leaf.shape) * scale
            drawn = np.abs(drawn) if positive else drawn
            if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
                drawn = drawn + 1j * scale * rng.normal(size=leaf.shape)
        elif leaf.dtype == bool:
            drawn = rng.random(leaf.shape) < 0.7
        else:
            drawn = rng.integers(0, bound, leaf.shape)
        row.append(jnp.asarray(drawn, leaf.dtype))
    return row


def _weights(shape: tuple[int, ...]) -> np.ndarray:
    """A cotangent that is no constant, along which a sum of probabilities would have no slope."""
    return np.random.default_rng(0).normal(size=shape)


def _wide(value: Array) -> Array:
    return jnp.asarray(np.asarray(value).astype(doubled(value.dtype)))
