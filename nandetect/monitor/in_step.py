"""The measuring itself: pure functions of a step's own arrays, traced into whatever program holds them.

XLA's CPU code makes one pass over an array for each reduction, so a full measure takes a quarter of a short step and a light one a
hundredth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nandetect.errors import UsageError
from nandetect.history import Leaf
from nandetect.monitor.vitals import LAYERS, LEAST, MISSING, WHOLE
from nandetect.nonfinite import widened

LARGEST = float(np.finfo(np.float32).max)
_NAMES = (*LAYERS, *WHOLE)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Vitals:
    """What was measured of a step, as an optimizer's state carries it: `numbers` as `full` gives them, `step` (int32) counted from 0.

    `scan` and `vmap` stack both.
    """

    numbers: Any
    step: Any
    leaves: tuple[Leaf, ...] = field(metadata={"static": True})


class Given(NamedTuple):
    """What there is to measure of one leaf, each an array of its shape or None.

    `update` is what is added to `param`; `new` stands in for it where only the parameters after the step are at hand, and
    `old` for `before`, the update of the step before, where only the parameters are that it began with. `last` are the parameters as
    they were seen a step ago, from which comes the size of an update, where nothing is known of it but that.
    """

    grad: Any = None
    param: Any = None
    update: Any = None
    before: Any = None
    new: Any = None
    old: Any = None
    last: Any = None


def found(opt_state: Any) -> Vitals:
    """The vitals in the state of an optimizer. Raises `UsageError` where it holds none, or more than one."""
    own = getattr(opt_state, "vitals", opt_state)
    nodes = [own] if isinstance(own, Vitals) else jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, Vitals))
    every = [node for node in nodes if isinstance(node, Vitals)]
    if len(every) != 1:
        raise UsageError(f"`opt_state` holds {len(every)} states of `optax_health.watch`: give a part of it that holds one")
    return every[0]


def light(leaves: Sequence[Given]) -> jax.Array:
    """The square of each gradient's norm: float32[L]; -1 where it is not finite, the largest float32 where it would not fit."""
    squares = [jnp.float32(MISSING) if leaf.grad is None else _square(lax.stop_gradient(leaf.grad)) for leaf in leaves]
    return jnp.stack(squares) if squares else jnp.zeros(0, jnp.float32)


def full(leaves: Sequence[Given]) -> jax.Array:
    """All vitals: float32[2 + K * L], the `WHOLE` and then a column of each of the `LAYERS`; `MISSING` where there is nothing."""
    return _packed([_row(lax.stop_gradient(leaf)) for leaf in leaves])


def sometimes(leaves: Sequence[Given], is_full: Any) -> jax.Array:
    """What `full` gives; where `is_full`, a bool on the device, is false, with only the gradients' norms in it."""
    # A choice for each leaf, and not one for all: the program can let go of a gradient as soon as it is measured.
    rows = [lax.cond(is_full, _full_row, _light_row, lax.stop_gradient(leaf)) for leaf in leaves]
    return _packed([dict(zip(_NAMES, row, strict=True)) for row in rows])


def together(metrics: Sequence[Any], numbers: Any) -> jax.Array:
    """Metrics and vitals in one array, along its last axis."""
    own = [lax.stop_gradient(jnp.asarray(metric)).astype(jnp.float32)[..., None] for metric in metrics]
    return jnp.concatenate([*own, numbers], axis=-1)


def _full_row(leaf: Given) -> jax.Array:
    row = _row(leaf)
    return _column([row.get(name) for name in _NAMES])


def _light_row(leaf: Given) -> jax.Array:
    square = jnp.float32(MISSING) if leaf.grad is None else _square(leaf.grad)
    row = {"gradient": jnp.where(square > LEAST, jnp.sqrt(square), MISSING), "gradient_nonfinite": jnp.where(square == -1, 1.0, 0.0)}
    return _column([None if leaf.grad is None else row.get(name) for name in _NAMES])


def _packed(rows: list[dict[str, Any]]) -> jax.Array:
    along, before = (_total([row[name] for row in rows if row.get(name) is not None]) for name in WHOLE)
    # Exactly 0: there was no step before, or it did nothing.
    whole = along, None if before is None else jnp.where(before == 0, MISSING, before)
    layers = [_column([row.get(name) for row in rows]) for name in LAYERS]
    return jnp.concatenate([_column(whole), *layers])


def _column(numbers: Sequence[Any]) -> jax.Array:
    if all(number is None for number in numbers):
        return jnp.full(len(numbers), MISSING, jnp.float32)
    return jnp.stack([jnp.float32(MISSING) if one is None else jnp.minimum(one, LARGEST).astype(jnp.float32) for one in numbers])


def _total(numbers: Sequence[Any]) -> Any:
    """The sum of what was measured, if anything was."""
    if not numbers:
        return None
    column = jnp.stack(numbers).astype(jnp.float32)
    known = column != MISSING
    return jnp.where(jnp.any(known), jnp.clip(jnp.sum(column, where=known), -LARGEST / 2, LARGEST), MISSING)


def _row(given: Given) -> dict[str, Any]:
    if all(array is None or not array.size for array in given):
        return {}
    update = given.update if given.new is None else _minus(given.new, given.param)
    before = given.before if given.old is None else _minus(given.param, given.old)
    return {
        "along": _dot(given.grad, update),
        "along_before": _dot(given.grad, before),
        **_gradient(given.grad),
        **_weight(given.param),
        **(_update(update, given.param if given.new is None else None) or _update(_minus(given.param, given.last), None)),
    }


def _gradient(leaf: Any) -> dict[str, Any]:
    if leaf is None:
        return {}
    real = _magnitude(leaf)
    finite = _is_finite(real)
    known = jnp.where(finite, real, 0)
    # The largest of each slice along the last axis says which of them are idle, and the largest of these is the largest of all.
    slices = jnp.max(known, tuple(range(leaf.ndim - 1)))
    largest = jnp.max(slices)
    # Scaled, no square overflows or underflows.
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


def _weight(leaf: Any) -> dict[str, Any]:
    if leaf is None:
        return {}
    real = _magnitude(leaf)
    largest = jnp.max(real)
    bad = ~_is_finite(largest)
    return {"weight": _norm(real), "weight_max": jnp.where(bad, MISSING, largest), "weight_nonfinite": bad}


def _update(update: Any, param: Any) -> dict[str, Any]:
    if update is None:
        return {}
    real = _magnitude(update)
    # What is added may be lost in rounding: then the parameter stays as it is.
    still = real == 0 if param is None else (param + update).astype(param.dtype) == param
    return {"update": _norm(real), "update_zero": _share(still)}


def _minus(one: Any, other: Any) -> Any:
    return None if one is None or other is None else widened(one) - widened(other)


def _dot(one: Any, other: Any) -> Any:
    """The change of the loss along a step: of a complex leaf the real part of the product, as JAX defines the gradient."""
    return None if one is None or other is None else jnp.sum(jnp.real(widened(one) * widened(other)))


def _square(leaf: Any) -> Any:
    wide = widened(leaf)
    total = jnp.sum(jnp.square(jnp.real(wide)) + jnp.square(jnp.imag(wide)) if jnp.iscomplexobj(wide) else wide * wide)
    # In float32 only a square too large for it is infinite; a narrower number must itself have been.
    bad = jnp.isnan(total) if leaf.dtype.itemsize >= 4 else ~jnp.isfinite(total)
    return jnp.where(bad, -1, jnp.minimum(total, LARGEST)).astype(jnp.float32)


def _norm(real: Any) -> Any:
    return jnp.sqrt(jnp.sum(jnp.where(_is_finite(real), real * real, 0)))


def _is_finite(real: Any) -> Any:
    return real <= jnp.finfo(real.dtype).max


def _magnitude(leaf: Any) -> Any:
    return jnp.abs(widened(leaf))


def _share(mask: Any) -> Any:
    return _count(mask) / mask.size


def _count(mask: Any) -> Any:
    return jnp.sum(mask, dtype=jnp.float32)
