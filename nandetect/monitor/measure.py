"""The measuring itself: pure functions of the step's own arrays, traced into whatever program holds them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nandetect.monitor.vitals import ALONG, DENSE, EVERY, FULL, LAYERS, LIGHT, MISSING, WHOLE

LARGEST = float(np.finfo(np.float32).max)
# A sum of squares below this may have lost elements whose squares are 0 in float32.
_LEAST = 1e-30


class Given(NamedTuple):
    """What of a step there is to measure: for each of the L leaves an array or None.

    `updates` are what is added to the `params`; `new` stands in for them where only the parameters after the step are at hand, and
    `old` for `before`, the updates of the step before, where only the parameters are that it began with.
    """

    params: Sequence[Any]
    grads: Sequence[Any]
    updates: Sequence[Any]
    before: Sequence[Any]
    new: Sequence[Any] = ()
    old: Sequence[Any] = ()


def level_at(step: Any) -> jax.Array:
    """`vitals.level` of a step whose number is known on the device only (int32)."""
    full = (step < DENSE) | (step % EVERY == 0)
    return jnp.where(full, FULL, jnp.where((step + 1) % EVERY == 0, ALONG, LIGHT)).astype(jnp.int32)


def measure(given: Given, level: Any) -> jax.Array:
    """The vitals of a step: float32[2 + L * K], the `WHOLE` first and then K `LAYERS` for each leaf; `MISSING` where nothing was measured.

    `level` is a Python int, or an int32 on the device. Where a gradient is not finite or hardly more than 0 everything is measured.
    """
    given = jax.tree.map(lax.stop_gradient, given)
    squares = [None if leaf is None or not leaf.size else _squares(leaf) for leaf in given.grads]
    sums = [one for one in squares if one is not None]
    if isinstance(level, int):
        if level == FULL:
            return _full(given)
        if not sums:
            return _along(given) if level == ALONG else _pack(len(given.params), {}, {})
        level = jnp.int32(level)
    if sums:
        total = sum(sums)
        level = jnp.where((total < LARGEST) & (total > _LEAST), level, FULL)
    empty = _pack(len(given.params), {}, {})
    light = _light(given, squares)
    return lax.switch(level, [lambda: light, lambda: _merged(light, _along(given)), lambda: _full(given)]) if sums else empty


def _merged(one: jax.Array, other: jax.Array) -> jax.Array:
    return jnp.where(other == MISSING, one, other)


def _pack(leaves: int, whole: dict[str, Any], layers: dict[str, Sequence[Any]]) -> jax.Array:
    """One vector of all numbers, columns of leaves side by side."""
    missing = jnp.float32(MISSING)
    none = [None] * leaves
    columns = [layers.get(name, none) for name in LAYERS]
    numbers = [whole.get(name) for name in WHOLE] + [column[at] for at in range(leaves) for column in columns]
    return jnp.stack([missing if number is None else _number(number) for number in numbers])


def _number(number: Any) -> jax.Array:
    return jnp.clip(number, MISSING, LARGEST).astype(jnp.float32)


def _light(given: Given, squares: Sequence[Any]) -> jax.Array:
    """The norms of the gradients. That of a leaf whose squares may have underflowed is left out."""
    norms = [None if one is None else jnp.where(one > _LEAST, jnp.sqrt(one), MISSING) for one in squares]
    sound = [None if one is None else 0.0 for one in squares]
    return _pack(len(given.params), {}, {"gradient": norms, "gradient_nonfinite": sound})


def _along(given: Given) -> jax.Array:
    return _pack(len(given.params), {"along": _dot(given.grads, _updates(given))}, {})


def _full(given: Given) -> jax.Array:
    updates, before = _updates(given), _before(given)
    grads = [_grad(leaf) for leaf in given.grads]
    params = [_weight(leaf) for leaf in given.params]
    moved = [_update(leaf, param) for leaf, param in zip(updates, given.params, strict=True)]
    names = iter(LAYERS)
    layers = {}
    for columns, count in ((grads, 6), (params, 3), (moved, 2)):
        for at in range(count):
            layers[next(names)] = [None if column is None else column[at] for column in columns]
    return _pack(len(given.params), {"along": _dot(given.grads, updates), "along_before": _dot(given.grads, before)}, layers)


def _updates(given: Given) -> Sequence[Any]:
    return [_minus(*pair) for pair in zip(given.new, given.params, strict=True)] if given.new else given.updates


def _before(given: Given) -> Sequence[Any]:
    return [_minus(*pair) for pair in zip(given.params, given.old, strict=True)] if given.old else given.before


def _minus(one: Any, other: Any) -> Any:
    return None if one is None or other is None else _wide(one) - _wide(other)


def _grad(leaf: Any) -> tuple[Any, ...] | None:
    if leaf is None or not leaf.size:
        return None
    size, real = leaf.size, _magnitude(leaf)
    finite = jnp.isfinite(real)
    norm, largest = _norm(real, finite)
    tiny = (real < jnp.finfo(leaf.dtype).smallest_normal.astype(real.dtype)) & (real != 0)
    idle = None if leaf.ndim < 2 else jnp.mean(~jnp.any(real != 0, tuple(range(leaf.ndim - 1))), dtype=jnp.float32)
    return norm, largest, _count(real == 0) / size, _count(tiny) / size, idle, _count(~finite)


def _weight(leaf: Any) -> tuple[Any, ...] | None:
    if leaf is None or not leaf.size:
        return None
    real = _magnitude(leaf)
    finite = jnp.isfinite(real)
    return *_norm(real, finite), _count(~finite)


def _update(leaf: Any, param: Any) -> tuple[Any, ...] | None:
    if leaf is None or not leaf.size:
        return None
    real = _magnitude(leaf)
    # What is added may be lost in rounding: then the parameter stays as it is.
    still = real == 0 if param is None else (param + leaf).astype(param.dtype) == param
    return _norm(real, jnp.isfinite(real))[0], _count(still) / leaf.size


def _dot(one: Sequence[Any], other: Sequence[Any]) -> Any:
    """The change of the loss along a step: of a complex leaf the real part of the product, as JAX defines the gradient."""
    pairs = [(a, b) for a, b in zip(one, other, strict=True) if a is not None and b is not None and a.size]
    return jnp.maximum(sum(jnp.sum(jnp.real(_wide(a) * _wide(b))) for a, b in pairs), -LARGEST / 2) if pairs else None


def _norm(real: Any, finite: Any) -> tuple[Any, Any]:
    """The l2 norm of the finite elements and the largest of them; no square overflows or underflows on the way."""
    real = jnp.where(finite, real, 0)
    largest = jnp.max(real)
    scaled = real / jnp.where(largest > 0, largest, 1)
    return largest * jnp.sqrt(jnp.sum(scaled * scaled)), largest


def _squares(leaf: Any) -> Any:
    wide = _wide(leaf)
    return jnp.sum(jnp.real(wide * jnp.conj(wide)) if jnp.iscomplexobj(wide) else wide * wide)


def _magnitude(leaf: Any) -> Any:
    return jnp.abs(_wide(leaf))


def _wide(leaf: Any) -> Any:
    """In float32 at least."""
    return lax.convert_element_type(leaf, jnp.promote_types(leaf.dtype, jnp.float32)) if leaf.dtype.itemsize < 4 else leaf


def _count(mask: Any) -> Any:
    return jnp.sum(mask, dtype=jnp.float32)
