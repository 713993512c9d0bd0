"""How large the signal is at every kernel's product, and the gradient there, on one batch: the program run once with taps in it.

At each site `q` is the mean of the product's squares, and `g` the sum over the outputs of the squares of the loss's derivative by them:
with weights of variance 2/fan_in between ReLUs (He et al. 2015, eq. 10 and 14), or 1/fan_in without, neither changes from layer to layer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nandetect import compat, primitives
from nandetect.annotations import Array
from nandetect.audit.reading import Event, Key, Reading
from nandetect.nonfinite import widened

# Saturated is an input of tanh or the logistic function beyond this: their derivatives are below 2e-4 and 7e-3 there.
SATURATED = 5.0
# How a unit of each activation is called where it has no gradient.
_FLAT: dict[Event, str] = {"relu": "dead", "tanh": "saturated", "sigmoid": "saturated"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """One site: `forward` and `backward` are the second moments `q` and `g` of above, `backward` NaN where no loss was given.

    `idle` is the share of units that are dead on the whole batch (ReLU) or of values that are saturated (tanh, sigmoid), `seen` the number
    of values of each unit that it was judged on: NaN and 0 where the activation is another. `inputs` is the mean square of what the kernel
    meets.
    """

    forward: float
    inputs: float = math.nan
    backward: float = math.nan
    idle: float = math.nan
    seen: int = 0


class _Moments(NamedTuple):
    """What the taps show, by the place of the site: `forward` and `inputs` are mean squares, `idle` a share of units."""

    forward: dict[Key, Array]
    inputs: dict[Key, Array]
    idle: dict[Key, Array]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Taps:
    """What is collected while the program is traced. `acts` are the activations to look at, each with its site, the number of the operand
    and the kind; `seen` counts the values of each unit; `added` is added to the products; `products` have their shapes."""

    reading: Reading
    acts: Mapping[Key, tuple[Key, int, Event]]
    seen: dict[Key, int]
    added: Mapping[Key, Array]
    moments: _Moments = field(default_factory=lambda: _Moments({}, {}, {}))
    products: dict[Key, Array] = field(default_factory=dict)


def measure(
    jaxpr: compat.Jaxpr, consts: Sequence[Array], args: Sequence[Array], reading: Reading, differentiate: bool
) -> tuple[list[Array], dict[Key, Signal]]:
    """Run the program with taps at the sites of its reading: what it returns, and the signal at each site that was reached.

    With `differentiate` its first result must be one float, which is differentiated by every product.
    """
    acts = {place: (key, *operand) for key, site in reading.sites.items() for place, operand in site.acts.items() if operand[1] in _FLAT}
    seen: dict[Key, int] = {}

    def run(added: Mapping[Key, Array], args: Sequence[Array]) -> tuple[list[Array], _Taps]:
        taps = _Taps(reading=reading, acts=acts, seen=seen, added=added)
        return _walk(taps, jaxpr, consts, args, ()), taps

    def plain(args: Sequence[Array]) -> tuple[list[Array], _Moments, dict[Key, Array]]:
        outs, taps = run({}, args)
        return outs, taps.moments, {}

    def derived(args: Sequence[Array]) -> tuple[list[Array], _Moments, dict[Key, Array]]:
        shapes = jax.eval_shape(lambda args: run({}, args)[1].products, args)
        zeros = {key: jnp.zeros(product.shape, product.dtype) for key, product in shapes.items()}

        def value(zeros: Mapping[Key, Array]) -> tuple[Array, tuple[list[Array], _Moments]]:
            outs, taps = run(zeros, args)
            return outs[0], (outs, taps.moments)

        grads, (outs, moments) = jax.grad(value, has_aux=True)(zeros)
        return outs, moments, {key: jnp.sum(jnp.square(widened(grad))) for key, grad in grads.items()}

    outs, moments, backward = jax.jit(derived if differentiate else plain)(list(args))
    return outs, {key: _signal(key, moments, backward, seen) for key in moments.forward}


def _signal(key: Key, moments: _Moments, backward: Mapping[Key, Array], seen: Mapping[Key, int]) -> Signal:
    """What the taps showed at one site, as numbers on the host."""
    return Signal(
        forward=float(np.asarray(moments.forward[key])),
        inputs=float(np.asarray(moments.inputs[key])),
        backward=float(np.asarray(backward[key])) if key in backward else math.nan,
        idle=float(np.asarray(moments.idle[key])) if key in moments.idle else math.nan,
        seen=seen.get(key, 0),
    )


def _moment(x: Array) -> Array:
    """The mean of the squares."""
    return jnp.mean(jnp.square(widened(x)))


def _walk(taps: _Taps, jaxpr: compat.Jaxpr, consts: Sequence[Array], args: Sequence[Array], path: Key) -> list[Array]:
    """Run the equations in order, tapping the sites and the activations among them."""
    env: dict[compat.Var, Array] = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))

    def read(atom: compat.Atom) -> Array:
        return atom.val if isinstance(atom, compat.Literal) else env[atom]

    for number, eqn in enumerate(jaxpr.eqns):
        key = (*path, number)
        ins = [read(atom) for atom in eqn.invars]
        if key in taps.acts:
            _look(taps, key, ins)
        outs = _run(taps, eqn, ins, key)
        if key in taps.reading.sites:
            taps.moments.inputs[key] = _moment(ins[taps.reading.sites[key].signal])
            outs = [_tapped(taps, key, outs[0])]
        env.update(zip(eqn.outvars, outs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _run(taps: _Taps, eqn: compat.JaxprEqn, ins: Sequence[Array], key: Key) -> list[Array]:
    """An equation's outputs. Only what holds sites is entered: a function with a derivative of its own and no site inside keeps it."""
    inside = any(site[: len(key)] == key and len(site) > len(key) for site in (*taps.reading.sites, *taps.acts))
    if not inside:
        return compat.bind(eqn, ins)
    if eqn.primitive.name == "scan":
        return _scan(taps, eqn, ins, key)
    subs = compat.sub_jaxprs(eqn)
    if len(subs) != 1 or primitives.of(eqn).loops or eqn.primitive.name == "cond":
        return compat.bind(eqn, ins)
    jaxpr, consts = compat.open_jaxpr(subs[0][1])
    if len(jaxpr.invars) != len(ins):
        return compat.bind(eqn, ins)
    return _walk(taps, jaxpr, consts, ins, key)


def _scan(taps: _Taps, eqn: compat.JaxprEqn, ins: Sequence[Array], key: Key) -> list[Array]:
    """A loop with taps inside hands out what each iteration shows; its moments are means over the iterations."""
    jaxpr, consts = compat.open_jaxpr(eqn.params["jaxpr"])
    fixed, carried = compat.scan_parts(eqn)
    constants, carry, rows = ins[:fixed], ins[fixed : fixed + carried], ins[fixed + carried :]
    added = {site: extra for site, extra in taps.added.items() if site[: len(key)] == key}

    def body(
        carry: list[Array], given: tuple[list[Array], dict[Key, Array]]
    ) -> tuple[list[Array], tuple[list[Array], _Moments, dict[Key, Array]]]:
        row, added = given
        inner = _Taps(reading=taps.reading, acts=taps.acts, seen=taps.seen, added=added)
        outs = _walk(inner, jaxpr, consts, [*constants, *carry, *row], key)
        return outs[:carried], (outs[carried:], inner.moments, inner.products)

    params = eqn.params
    carry, (outs, moments, products) = lax.scan(
        body, list(carry), (list(rows), added), length=params["length"], reverse=params["reverse"], unroll=params["unroll"]
    )
    for whole, by_iteration in zip(taps.moments, moments, strict=True):
        whole.update({site: jnp.mean(moment) for site, moment in by_iteration.items()})
    taps.products.update(products)
    return [*carry, *outs]


def _tapped(taps: _Taps, key: Key, product: Array) -> Array:
    """The product of a site with what is added to it."""
    taps.moments.forward[key] = _moment(product)
    taps.products[key] = jnp.zeros_like(product)
    return product + taps.added[key] if key in taps.added else product


def _look(taps: _Taps, place: Key, ins: Sequence[Array]) -> None:
    """The idle units of the activation at a place, the first that a site's product goes into."""
    key, operand, kind = taps.acts[place]
    x = ins[operand]
    units = _units(taps, key, x.shape)
    if key in taps.moments.idle or units is None:
        return
    others = tuple(axis for axis in range(x.ndim) if axis != units)
    taps.seen[key] = math.prod(x.shape[axis] for axis in others)
    if _FLAT[kind] == "dead":
        taps.moments.idle[key] = jnp.mean(jnp.all(x <= 0, axis=others).astype(jnp.float32))
    else:
        taps.moments.idle[key] = jnp.mean((jnp.abs(x) > SATURATED).astype(jnp.float32))


def _units(taps: _Taps, key: Key, shape: tuple[int, ...]) -> int | None:
    """The axis of the units where a product has come to an activation, its axes perhaps in another order."""
    units = taps.reading.sites[key].units
    if units is None or key not in taps.products:
        return None
    before = taps.products[key].shape
    if shape == before:
        return units
    alike = [axis for axis, size in enumerate(shape) if size == before[units]]
    return alike[0] if len(alike) == 1 else None
