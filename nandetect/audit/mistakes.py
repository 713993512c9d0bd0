"""The mistakes that people make in writing an initialiser, as data: each with the code that makes it and the code that was meant.

A mistake's variance is a function of the kernel's fans, as a scheme's is. Its two snippets are run by one parametrised test.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from nandetect.audit.schemes import ANY, Fans
from nandetect.audit.weight_statistics import CUT, Form


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """`cause` names the mistake in one phrase, `formula` is the standard deviation that it gives; `wrote` and `meant` are code that draws a
    kernel of m inputs and n outputs with a `key`. `wants` is the scheme that was meant. `rank` is lower for the more usual mistakes."""

    cause: str
    formula: str
    variance: Callable[[Fans], float]
    wrote: str
    meant: str
    wants: str = "He"
    forms: frozenset[Form] = ANY
    rank: int = 1
    applies: Callable[[Fans], bool] = lambda f: True

    @property
    def has_no_fans(self) -> bool:
        """Whether the scale is the same for every kernel, and so does not say which scheme was meant."""
        return not {"m", "n"} & set(re.findall(r"[a-z]+", self.formula))


_HE = "jax.random.normal(key, (m, n)) * jnp.sqrt(2 / m)"
_LECUN = "jax.random.normal(key, (m, n)) * jnp.sqrt(1 / m)"
_GLOROT = "jax.random.normal(key, (m, n)) * jnp.sqrt(2 / (m + n))"
_UNIFORM: frozenset[Form] = frozenset({"uniform"})
_TRUNCATED: frozenset[Form] = frozenset({"truncated"})


def _not_square(f: Fans) -> bool:
    return f.fan_in != f.fan_out


def _spatial(f: Fans) -> bool:
    return f.window > 1


def _axes(f: Fans) -> bool:
    """Whether JAX's initialisers would read another fan-in off the shape than the true one."""
    return len(f.shape) > 2 and _shape_fan(f) != f.fan_in


def _shape_fan(f: Fans) -> int:
    return math.prod(f.shape[:-1])


MISTAKES = (
    Mistake(
        cause="missing sqrt",
        formula="2 / m",
        variance=lambda f: (2 / f.fan_in) ** 2,
        wrote="jax.random.normal(key, (m, n)) * (2 / m)",
        meant=_HE,
    ),
    Mistake(
        cause="missing sqrt",
        formula="1 / m",
        variance=lambda f: (1 / f.fan_in) ** 2,
        wrote="jax.random.normal(key, (m, n)) / m",
        meant=_LECUN,
        wants="LeCun",
    ),
    Mistake(
        cause="missing sqrt",
        formula="2 / (m + n)",
        variance=lambda f: (2 / (f.fan_in + f.fan_out)) ** 2,
        wrote="jax.random.normal(key, (m, n)) * (2 / (m + n))",
        meant=_GLOROT,
        wants="Glorot",
    ),
    Mistake(
        cause="`2/sqrt(m*n)`",
        formula="2/sqrt(m*n)",
        variance=lambda f: 4 / (f.fan_in * f.fan_out),
        wrote="jax.random.normal(key, (m, n)) * 2 / jnp.sqrt(m * n)",
        meant=_HE,
    ),
    Mistake(
        cause="`sqrt(2/(m*n))`: the product of the fans for fan-in",
        formula="sqrt(2/(m*n))",
        variance=lambda f: 2 / (f.fan_in * f.fan_out),
        wrote="jax.random.normal(key, (m, n)) * jnp.sqrt(2 / (m * n))",
        meant=_HE,
        rank=2,
    ),
    Mistake(
        cause="`1/sqrt(m*n)`: the product of the fans for fan-in",
        formula="1/sqrt(m*n)",
        variance=lambda f: 1 / (f.fan_in * f.fan_out),
        wrote="jax.random.normal(key, (m, n)) / jnp.sqrt(m * n)",
        meant=_LECUN,
        wants="LeCun",
        rank=2,
    ),
    Mistake(
        cause="fan-out for fan-in, or swapped axes",
        formula="sqrt(2/n)",
        variance=lambda f: 2 / f.fan_out,
        wrote="jax.random.normal(key, (n, m)).T * jnp.sqrt(2 / n)",
        meant=_HE,
        applies=_not_square,
    ),
    Mistake(
        cause="fan-out for fan-in, or swapped axes",
        formula="sqrt(1/n)",
        variance=lambda f: 1 / f.fan_out,
        wrote="jax.random.normal(key, (n, m)).T * jnp.sqrt(1 / n)",
        meant=_LECUN,
        wants="LeCun",
        applies=_not_square,
    ),
    Mistake(
        cause="swapped axes",
        formula="sqrt(2/prod(shape[:-1]))",
        variance=lambda f: 2 / _shape_fan(f),
        wrote="jax.random.normal(key, (n, m)).T * jnp.sqrt(2 / n)",
        meant=_HE,
        applies=_axes,
    ),
    Mistake(
        cause="swapped axes",
        formula="sqrt(1/prod(shape[:-1]))",
        variance=lambda f: 1 / _shape_fan(f),
        wrote="jax.random.normal(key, (n, m)).T * jnp.sqrt(1 / n)",
        meant=_LECUN,
        wants="LeCun",
        applies=_axes,
    ),
    Mistake(
        cause="the convolution's window left out of fan-in",
        formula="sqrt(2/channels)",
        variance=lambda f: 2 * f.window / f.fan_in,
        wrote="jax.random.normal(key, (m, n)) * jnp.sqrt(2 * 9 / m)",
        meant=_HE,
        applies=_spatial,
    ),
    Mistake(
        cause="std 1: the draw was never scaled",
        formula="1",
        variance=lambda f: 1.0,
        wrote="jax.random.normal(key, (m, n))",
        meant=_HE,
    ),
    Mistake(
        cause="uncorrected truncation: a normal cut at two deviations has 0.88 of its std",
        formula="0.88 * sqrt(2/m)",
        variance=lambda f: CUT * 2 / f.fan_in,
        wrote="jax.random.truncated_normal(key, -2, 2, (m, n)) * jnp.sqrt(2 / m)",
        meant="jax.random.truncated_normal(key, -2, 2, (m, n)) * jnp.sqrt(2 / m) / 0.87962566",
        forms=_TRUNCATED,
    ),
    Mistake(
        cause="uncorrected truncation: a normal cut at two deviations has 0.88 of its std",
        formula="0.88 * sqrt(2/(m+n))",
        variance=lambda f: CUT * 2 / (f.fan_in + f.fan_out),
        wrote="jax.random.truncated_normal(key, -2, 2, (m, n)) * jnp.sqrt(2 / (m + n))",
        meant="jax.random.truncated_normal(key, -2, 2, (m, n)) * jnp.sqrt(2 / (m + n)) / 0.87962566",
        wants="Glorot",
        forms=_TRUNCATED,
    ),
    Mistake(
        cause="the std as a uniform's bound, which has 0.58 of it",
        formula="sqrt(2/m) / sqrt(3)",
        variance=lambda f: 2 / f.fan_in / 3,
        wrote="jax.random.uniform(key, (m, n), minval=-1, maxval=1) * jnp.sqrt(2 / m)",
        meant="jax.random.uniform(key, (m, n), minval=-1, maxval=1) * jnp.sqrt(6 / m)",
        forms=_UNIFORM,
    ),
    Mistake(
        cause="the std as a uniform's bound, which has 0.58 of it",
        formula="sqrt(2/(m+n)) / sqrt(3)",
        variance=lambda f: 2 / (f.fan_in + f.fan_out) / 3,
        wrote="jax.random.uniform(key, (m, n), minval=-1, maxval=1) * jnp.sqrt(2 / (m + n))",
        meant="jax.random.uniform(key, (m, n), minval=-1, maxval=1) * jnp.sqrt(6 / (m + n))",
        wants="Glorot",
        forms=_UNIFORM,
    ),
    Mistake(
        cause="a uniform from -1 to 1 that was never scaled",
        formula="1 / sqrt(3)",
        variance=lambda f: 1 / 3,
        wrote="jax.random.uniform(key, (m, n), minval=-1, maxval=1)",
        meant="jax.random.uniform(key, (m, n), minval=-1, maxval=1) * jnp.sqrt(6 / m)",
        forms=_UNIFORM,
    ),
    Mistake(
        cause="`2/sqrt(m)`: the 2 outside of the root",
        formula="2/sqrt(m)",
        variance=lambda f: 4 / f.fan_in,
        wrote="jax.random.normal(key, (m, n)) * 2 / jnp.sqrt(m)",
        meant=_HE,
        rank=2,
    ),
    Mistake(
        cause="`sqrt(1/(2*m))`: the 2 below the line",
        formula="sqrt(1/(2*m))",
        variance=lambda f: 1 / (2 * f.fan_in),
        wrote="jax.random.normal(key, (m, n)) / jnp.sqrt(2 * m)",
        meant=_HE,
        rank=2,
    ),
    Mistake(
        cause="the root taken twice",
        formula="(2/m)**(1/4)",
        variance=lambda f: math.sqrt(2 / f.fan_in),
        wrote="jax.random.normal(key, (m, n)) * jnp.sqrt(jnp.sqrt(2 / m))",
        meant=_HE,
        rank=2,
    ),
    *(
        Mistake(
            cause=f"a fixed std of {fixed:g}, whatever the fan-in",
            formula=f"{fixed:g}",
            variance=lambda f, fixed=fixed: fixed**2,
            wrote=f"jax.random.normal(key, (m, n)) * {fixed:g}",
            meant=_HE,
            rank=2,
        )
        for fixed in (0.1, 0.05, 0.02, 0.01, 0.001)
    ),
)

# Schemes that are a mistake only before a rectifier: it halves the signal, and they do not make up for that.
FOR_RELU = (
    Mistake(
        cause="LeCun for ReLU",
        formula="sqrt(1/m)",
        variance=lambda f: 1 / f.fan_in,
        wrote=_LECUN,
        meant=_HE,
        rank=0,
    ),
    Mistake(
        cause="Glorot for ReLU",
        formula="sqrt(2/(m+n))",
        variance=lambda f: 2 / (f.fan_in + f.fan_out),
        wrote=_GLOROT,
        meant=_HE,
        rank=0,
    ),
    Mistake(
        cause="torch's default for ReLU",
        formula="sqrt(1/(3*m))",
        variance=lambda f: 1 / (3 * f.fan_in),
        wrote="jax.random.uniform(key, (m, n), minval=-1, maxval=1) / jnp.sqrt(m)",
        meant="jax.random.uniform(key, (m, n), minval=-1, maxval=1) * jnp.sqrt(6 / m)",
        forms=_UNIFORM,
        rank=0,
    ),
    Mistake(
        cause="uncorrected truncation of LeCun, before ReLU",
        formula="0.88 * sqrt(1/m)",
        variance=lambda f: CUT / f.fan_in,
        wrote="jax.random.truncated_normal(key, -2, 2, (m, n)) / jnp.sqrt(m)",
        meant="jax.random.truncated_normal(key, -2, 2, (m, n)) * jnp.sqrt(2 / m) / 0.87962566",
        forms=_TRUNCATED,
        rank=0,
    ),
)
