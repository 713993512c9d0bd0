"""How large the signal is at every kernel's product, and the gradient there, on one batch: the program run once with taps in it.

At each site `q` is the mean of the product's squares, and `g` the sum over the outputs of the squares of the loss's derivative by them:
with weights of variance 2/fan_in between ReLUs (He et al. 2015, eq. 10 and 14), or 1/fan_in without, neither changes from layer to layer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nandetect import compat
from nandetect.audit.reading import Key, Reading
from nandetect.nonfinite import widened

# Beyond it the derivative of tanh is below 2e-4, and that of the logistic function below 7e-3.
SATURATED = 5.0
# What the activations do with units that have nothing left to say.
_FLAT = {"relu": "dead", "tanh": "saturated", "sigmoid": "saturated"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """One site: `forward` and `backward` are the second moments told above, `backward` NaN where no loss was given.

    `idle` is the share of units that are dead on the whole batch (ReLU) or of values that are saturated (tanh, sigmoid), `seen` on how many
    values of each unit that was judged; NaN and 0 where the activation is another. `inputs` is the mean square of what the kernel meets.
    """

    forward: float
    inputs: float = math.nan
    backward: float = math.nan
    idle: float = math.nan
    seen: int = 0


@dataclass(slots=True)
class _Taps:
    """What is collected while the program is traced: by place, the moments forward, the idle units, and what is added to each product."""

    reading: Reading
    added: dict[Key, Any]
    acts: dict[Key, tuple[Key, int, str]]
    forward: dict[Key, Any]
    inputs: dict[Key, Any]
    idle: dict[Key, Any]
    seen: dict[Key, int]
    shapes: dict[Key, Any]


def measure(
    jaxpr: Any, consts: Sequence[Any], args: Sequence[Any], reading: Reading, differentiate: bool
) -> tuple[list[Any], dict[Key, Signal]]:
    """Run the program with taps at the sites of its reading: what it returns, and the signal at each site that was reached.

    With `differentiate` its first result must be one float, which is differentiated by every product.
    """
    acts = {place: (key, *operand) for key, site in reading.sites.items() for place, operand in site.acts.items() if operand[1] in _FLAT}
    seen: dict[Key, int] = {}

    def run(added: dict[Key, Any], args: Sequence[Any]) -> tuple[list[Any], dict[str, Any], dict[Key, Any]]:
        taps = _Taps(reading, added, acts, {}, {}, {}, seen, {})
        outs = _walk(taps, jaxpr, consts, args, ())
        return outs, {"forward": taps.forward, "inputs": taps.inputs, "idle": taps.idle}, taps.shapes

    def plain(args: Sequence[Any]) -> Any:
        outs, told, _ = run({}, args)
        return outs, told, {}

    def derived(args: Sequence[Any]) -> Any:
        shapes = jax.eval_shape(lambda args: run({}, args)[2], args)
        zeros = {key: jnp.zeros(one.shape, one.dtype) for key, one in shapes.items()}

        def value(zeros: dict[Key, Any]) -> tuple[Any, Any]:
            outs, told, _ = run(zeros, args)
            return outs[0], (outs, told)

        grads, (outs, told) = jax.grad(value, has_aux=True)(zeros)
        return outs, told, {key: jnp.sum(jnp.square(widened(grad))) for key, grad in grads.items()}

    outs, told, backward = jax.jit(derived if differentiate else plain)(list(args))
    found = {
        key: Signal(
            forward=float(np.asarray(moment)),
            inputs=float(np.asarray(told["inputs"][key])),
            backward=float(np.asarray(backward[key])) if key in backward else math.nan,
            idle=float(np.asarray(told["idle"][key])) if key in told["idle"] else math.nan,
            seen=seen.get(key, 0),
        )
        for key, moment in told["forward"].items()
    }
    return outs, found


def _moment(x: Any) -> Any:
    return jnp.mean(jnp.square(widened(x)))


def _walk(taps: _Taps, jaxpr: Any, consts: Sequence[Any], args: Sequence[Any], path: Key) -> list[Any]:
    env: dict[Any, Any] = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, compat.Literal) else env[atom]

    for number, eqn in enumerate(jaxpr.eqns):
        key = (*path, number)
        ins = [read(atom) for atom in eqn.invars]
        if key in taps.acts:
            _look(taps, key, ins)
        outs = _run(taps, eqn, ins, key)
        if key in taps.reading.sites:
            taps.inputs[key] = _moment(ins[taps.reading.sites[key].signal])
            outs = [_tap(taps, key, outs[0])]
        env.update(zip(eqn.outvars, outs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _run(taps: _Taps, eqn: Any, ins: list[Any], key: Key) -> list[Any]:
    """An equation is entered where there are sites inside; a function with a derivative of its own and none inside keeps it."""
    inside = any(site[: len(key)] == key and len(site) > len(key) for site in (*taps.reading.sites, *taps.acts))
    if not inside:
        return compat.bind(eqn, ins)
    if eqn.primitive.name == "scan":
        return _scan(taps, eqn, ins, key)
    found = compat.sub_jaxprs(eqn)
    if len(found) != 1 or eqn.primitive.name in ("while", "cond"):
        return compat.bind(eqn, ins)
    jaxpr, consts = compat.open_jaxpr(found[0][1])
    if len(jaxpr.invars) != len(ins):
        return compat.bind(eqn, ins)
    return _walk(taps, jaxpr, consts, ins, key)


def _scan(taps: _Taps, eqn: Any, ins: list[Any], key: Key) -> list[Any]:
    """A loop with taps inside hands out what each iteration shows; its moments are means over the iterations."""
    jaxpr, consts = compat.open_jaxpr(eqn.params["jaxpr"])
    fixed, carried = compat.scan_parts(eqn)
    constants, carry, rows = ins[:fixed], ins[fixed : fixed + carried], ins[fixed + carried :]
    below = [one for one in taps.added if one[: len(key)] == key]

    def body(carry: list[Any], given: tuple[list[Any], dict[Key, Any]]) -> tuple[list[Any], Any]:
        row, added = given
        inner = _Taps(taps.reading, added, taps.acts, {}, {}, {}, taps.seen, {})
        outs = _walk(inner, jaxpr, consts, [*constants, *carry, *row], key)
        return outs[:carried], (outs[carried:], inner.forward, inner.inputs, inner.idle, inner.shapes)

    given = (list(rows), {one: taps.added[one] for one in below})
    params = eqn.params
    carry, (outs, forward, inputs, idle, shapes) = lax.scan(
        body, list(carry), given, length=params["length"], reverse=params["reverse"], unroll=params["unroll"]
    )
    for mine, theirs in ((taps.forward, forward), (taps.inputs, inputs), (taps.idle, idle)):
        mine.update({one: jnp.mean(moments) for one, moments in theirs.items()})
    taps.shapes.update(shapes)
    return [*carry, *outs]


def _tap(taps: _Taps, key: Key, product: Any) -> Any:
    taps.forward[key] = _moment(product)
    taps.shapes[key] = jnp.zeros_like(product)
    return product + taps.added[key] if key in taps.added else product


def _look(taps: _Taps, place: Key, ins: list[Any]) -> None:
    """The idle units of the activation at a place, the first that a site's product goes into."""
    key, operand, kind = taps.acts[place]
    x = ins[operand]
    units = _units(taps, key, x.shape)
    if key in taps.idle or units is None:
        return
    others = tuple(axis for axis in range(x.ndim) if axis != units)
    taps.seen[key] = math.prod(x.shape[axis] for axis in others)
    if _FLAT[kind] == "dead":
        taps.idle[key] = jnp.mean(jnp.all(x <= 0, axis=others).astype(jnp.float32))
    else:
        taps.idle[key] = jnp.mean((jnp.abs(x) > SATURATED).astype(jnp.float32))


def _units(taps: _Taps, key: Key, shape: tuple[int, ...]) -> int | None:
    """The axis of the units where a product has come to an activation, its axes perhaps in another order."""
    units = taps.reading.sites[key].units
    if units is None or key not in taps.shapes:
        return None
    before = taps.shapes[key].shape
    if shape == before:
        return units
    alike = [axis for axis, size in enumerate(shape) if size == before[units]]
    return alike[0] if len(alike) == 1 else None
