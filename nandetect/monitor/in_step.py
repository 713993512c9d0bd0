"""The measures of a step: pure functions of its arrays, traced into the program that holds them.

XLA's CPU code makes one pass over an array for each reduction, so a full measure takes a quarter of a short step and a light one a
hundredth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nandetect.annotations import Array, Pytree
from nandetect.errors import UsageError
from nandetect.history import Leaf
from nandetect.monitor.vitals import LAYERS, LEAST, MISSING, WHOLE
from nandetect.nonfinite import widened

LARGEST = float(np.finfo(np.float32).max)
# A metric or a step's number, one for each step.
Metric = jax.Array | np.ndarray | np.number | int | float
# A number that was measured, on the device, or None where there was nothing to measure.
Number = jax.Array | None
_NAMES = (*LAYERS, *WHOLE)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Vitals:
    """What was measured of a step, as an optimizer's state carries it: `numbers` as `full` gives them, `step` (int32) counted from 0.

    `scan` and `vmap` stack both.
    """

    numbers: jax.Array
    step: jax.Array
    leaves: tuple[Leaf, ...] = field(metadata={"static": True})


class LeafArrays(NamedTuple):
    """The arrays of a step that belong to one leaf of the parameters, each of its shape, or None where it was not given.

    `update` is added to `param` by this step, `before` was added by the step before. A caller who has no updates may give parameters in
    their place: `new`, those after this step, and `old`, those before the step before. `last` are the parameters seen a step ago: the size
    of an update is taken from them where neither `update` nor `new` is given.
    """

    grad: Array | None = None
    param: Array | None = None
    update: Array | None = None
    before: Array | None = None
    new: Array | None = None
    old: Array | None = None
    last: Array | None = None


def of_state(opt_state: Pytree) -> Vitals:
    """The vitals in the state of an optimizer. Raises `UsageError` where it holds none, or more than one."""
    state = getattr(opt_state, "vitals", opt_state)
    nodes = [state] if isinstance(state, Vitals) else jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, Vitals))
    vitals = [node for node in nodes if isinstance(node, Vitals)]
    if len(vitals) != 1:
        raise UsageError(f"`opt_state` holds {len(vitals)} states of `optax_health.watch`: give a part of it that holds one")
    return vitals[0]


def light(leaves: Sequence[LeafArrays]) -> jax.Array:
    """The square of each gradient's norm: float32[L]; -1 where it is not finite, the largest float32 where it would not fit."""
    squares = [jnp.float32(MISSING) if leaf.grad is None else _square(lax.stop_gradient(leaf.grad)) for leaf in leaves]
    return jnp.stack(squares) if squares else jnp.zeros(0, jnp.float32)


def full(leaves: Sequence[LeafArrays]) -> jax.Array:
    """All vitals: float32[2 + K * L], the `WHOLE` and then a column of each of the `LAYERS`; `MISSING` where there is nothing."""
    return _packed([_row(lax.stop_gradient(leaf)) for leaf in leaves])


def sometimes(leaves: Sequence[LeafArrays], is_full: Array | np.bool_ | bool) -> jax.Array:
    """What `full` gives; where `is_full`, a bool on the device, is false, with only the gradients' norms in it."""
    # A `cond` for each leaf, not one for all: the program can free a gradient as soon as it is measured.
    rows = [lax.cond(is_full, _full_row, _light_row, lax.stop_gradient(leaf)) for leaf in leaves]
    return _packed([dict(zip(_NAMES, row, strict=True)) for row in rows])


def with_metrics(metrics: Sequence[Metric], vitals: jax.Array) -> jax.Array:
    """Metrics and then vitals in one array, along its last axis."""
    columns = [lax.stop_gradient(jnp.asarray(metric)).astype(jnp.float32)[..., None] for metric in metrics]
    return jnp.concatenate([*columns, vitals], axis=-1)


def _full_row(leaf: LeafArrays) -> jax.Array:
    row = _row(leaf)
    return _column([row.get(name) for name in _NAMES])


def _light_row(leaf: LeafArrays) -> jax.Array:
    square = jnp.float32(MISSING) if leaf.grad is None else _square(leaf.grad)
    row = {"gradient": jnp.where(square > LEAST, jnp.sqrt(square), MISSING), "gradient_nonfinite": jnp.where(square == -1, 1.0, 0.0)}
    return _column([None if leaf.grad is None else row.get(name) for name in _NAMES])


def _packed(rows: Sequence[Mapping[str, Number]]) -> jax.Array:
    along, before = (_total([number for row in rows if (number := row.get(name)) is not None]) for name in WHOLE)
    # A product of exactly 0 with the update before: there was no step before, or it did nothing.
    whole = along, None if before is None else jnp.where(before == 0, MISSING, before)
    layers = [_column([row.get(name) for row in rows]) for name in LAYERS]
    return jnp.concatenate([_column(whole), *layers])


def _column(numbers: Sequence[Number]) -> jax.Array:
    if all(number is None for number in numbers):
        return jnp.full(len(numbers), MISSING, jnp.float32)
    return jnp.stack([jnp.float32(MISSING) if number is None else jnp.minimum(number, LARGEST).astype(jnp.float32) for number in numbers])


def _total(numbers: Sequence[jax.Array]) -> Number:
    """The sum of the measured numbers: None where there are no numbers, `MISSING` where none of them was measured."""
    if not numbers:
        return None
    column = jnp.stack(numbers).astype(jnp.float32)
    known = column != MISSING
    return jnp.where(jnp.any(known), jnp.clip(jnp.sum(column, where=known), -LARGEST / 2, LARGEST), MISSING)


def _row(leaf: LeafArrays) -> dict[str, Number]:
    """The measures of one leaf by name; one without elements has none."""
    if all(array is None or not array.size for array in leaf):
        return {}
    update = leaf.update if leaf.new is None else _minus(leaf.new, leaf.param)
    before = leaf.before if leaf.old is None else _minus(leaf.param, leaf.old)
    return {
        "along": _dot(leaf.grad, update),
        "along_before": _dot(leaf.grad, before),
        **_gradient(leaf.grad),
        **_weight(leaf.param),
        **(_update(update, leaf.param if leaf.new is None else None) or _update(_minus(leaf.param, leaf.last), None)),
    }


def _gradient(leaf: Array | None) -> dict[str, Number]:
    if leaf is None:
        return {}
    real = _magnitude(leaf)
    finite = _is_finite(real)
    known = jnp.where(finite, real, 0)
    # A slice along the last axis is idle where its largest magnitude is 0; the largest of the slices is that of the leaf.
    slices = jnp.max(known, tuple(range(leaf.ndim - 1)))
    largest = jnp.max(slices)
    # Elements are divided by the largest: none of their squares overflows then, and none that counts underflows.
    scaled = known / jnp.where(largest > 0, largest, 1)
    tiny = (real < jnp.finfo(leaf.dtype).smallest_normal.astype(real.dtype)) & (real != 0)
    return {
        "gradient": largest * jnp.sqrt(jnp.sum(scaled * scaled)),
        "gradient_max": largest,
        "gradient_zero": _share(real == 0),
        "gradient_tiny": _share(tiny) if leaf.dtype.itemsize < 4 else None,
        "gradient_idle": jnp.mean(slices == 0, dtype=jnp.float32) if leaf.ndim > 1 else None,
        "gradient_nonfinite": _count(~finite),
    }


def _weight(leaf: Array | None) -> dict[str, Number]:
    if leaf is None:
        return {}
    real = _magnitude(leaf)
    largest = jnp.max(real)
    bad = ~_is_finite(largest)
    return {"weight": _norm(real), "weight_max": jnp.where(bad, MISSING, largest), "weight_nonfinite": bad}


def _update(update: Array | None, param: Array | None) -> dict[str, Number]:
    if update is None:
        return {}
    real = _magnitude(update)
    # An update that is lost in rounding leaves the parameter as it is, and counts as none.
    is_still = real == 0 if param is None else (param + update).astype(param.dtype) == param
    return {"update": _norm(real), "update_zero": _share(is_still)}


def _minus(after: Array | None, before: Array | None) -> Number:
    return None if after is None or before is None else widened(after) - widened(before)


def _dot(grad: Array | None, update: Array | None) -> Number:
    """The change of the loss along an update: of a complex leaf the real part of the product, as JAX defines the gradient."""
    return None if grad is None or update is None else jnp.sum(jnp.real(widened(grad) * widened(update)))


def _square(leaf: Array) -> jax.Array:
    wide = widened(leaf)
    total = jnp.sum(jnp.square(jnp.real(wide)) + jnp.square(jnp.imag(wide)) if jnp.iscomplexobj(wide) else wide * wide)
    # An infinite total of float32 comes from squares too large for it; of a narrower type, only from an element that was infinite.
    bad = jnp.isnan(total) if leaf.dtype.itemsize >= 4 else ~jnp.isfinite(total)
    return jnp.where(bad, -1, jnp.minimum(total, LARGEST)).astype(jnp.float32)


def _norm(real: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.sum(jnp.where(_is_finite(real), real * real, 0)))


def _is_finite(real: jax.Array) -> jax.Array:
    return real <= jnp.finfo(real.dtype).max


def _magnitude(leaf: Array) -> jax.Array:
    return jnp.abs(widened(leaf))


def _share(mask: jax.Array) -> jax.Array:
    return _count(mask) / mask.size


def _count(mask: jax.Array) -> jax.Array:
    return jnp.sum(mask, dtype=jnp.float32)
