"""The faults that are planted: each is one line, deadly where `{t}` is 1 and sound where it is 0.

The line that ends in the mark is the origin. `primitives` are all that are rightly named for it, mostly one.
"""

from __future__ import annotations

from typing import NamedTuple

from generated.ops import FULL

MARK = "# <-- origin"

# What overflows when it is squared, and not before.
BIG = {"float16": "6e3", "bfloat16": "1e30", "float32": "1e30", "float64": "1e200"}


class Fault(NamedTuple):
    """`lines` of source, in which `<<` ends the origin; `gradient` where only a derivative is broken.

    With `scalar`, `{t}` must be one number. `derivative` are the primitives of the line's derivative that break by themselves: they are
    right where nobody sees the value. `outer` goes to the module, before the function; without `forward`, it is for reverse mode alone.
    """

    name: str
    lines: str
    primitives: tuple[str, ...]
    gradient: bool = False
    dtypes: tuple[str, ...] = ()
    scalar: bool = False
    derivative: str = ""
    outer: str = ""
    forward: bool = True

    def suits(self, dtype: str) -> bool:
        """Whether it can be written in this type."""
        return not self.dtypes or dtype in self.dtypes


def _fault(name: str, lines: str, primitives: str, **options) -> Fault:
    return Fault(name, lines, tuple(primitives.split()), **options)


# A number between 1 and 2, and one that the fault makes zero.
P = "(1.5 + 0.5 * jnp.tanh({a}))"
Z = P + " * (1.0 - {t})"
SINGLE = ("bfloat16", *FULL)

FORWARD = (
    _fault("log of a negative", "{out} = jnp.log(2.0 + 0.5 * jnp.tanh({a}) - 4.0 * {t}) <<", "log"),
    _fault("log of zero", f"{{out}} = jnp.log({Z}) <<", "log", derivative="div"),
    _fault(
        "log of zero, times zero",
        f"p{{n}} = {Z}\n{{out}} = jnp.array([0, 1, 0, 0], {{a}}.dtype) * jnp.log(p{{n}}) <<",
        "log",
        derivative="div",
    ),
    _fault("log1p below -1", "{out} = jnp.log1p(0.5 * jnp.tanh({a}) - 3.0 * {t}) <<", "log1p"),
    _fault("sqrt of a negative", "{out} = jnp.sqrt(2.0 + 0.5 * jnp.tanh({a}) - 4.0 * {t}) <<", "sqrt"),
    _fault("rsqrt of zero", f"{{out}} = 0.5 * lax.rsqrt({Z}) <<", "rsqrt"),
    _fault(
        "division by zero",
        f"top{{n}} = 1.0 + 0.5 * jnp.tanh({{b}})\n{{out}} = top{{n}} / ({Z}) <<",
        "div",
        derivative="integer_pow div mul square",
    ),
    _fault(
        "zero by zero",
        f"top{{n}} = {{b}} * (1.0 - {{t}})\n{{out}} = 0.5 * (top{{n}} / ({Z})) <<",
        "div",
        derivative="integer_pow div mul square",
    ),
    _fault("reciprocal of zero", f"{{out}} = 0.5 * jnp.reciprocal({Z}) <<", "div integer_pow", derivative="integer_pow div mul square"),
    _fault("exp overflows", "{out} = 0.5 * jnp.exp(jnp.tanh({a}) + 2000.0 * {t}) <<", "exp"),
    _fault("exp2 overflows", "{out} = 0.5 * jnp.exp2(jnp.tanh({a}) + 3000.0 * {t}) <<", "exp2"),
    _fault("expm1 overflows", "{out} = 0.5 * jnp.expm1(jnp.tanh({a}) + 2000.0 * {t}) <<", "expm1"),
    _fault("cosh overflows", "{out} = 0.5 * jnp.cosh(jnp.tanh({a}) + 2000.0 * {t}) <<", "cosh", derivative="sinh"),
    _fault("sinh overflows", "{out} = 0.5 * jnp.sinh(jnp.tanh({a}) + 2000.0 * {t}) <<", "sinh", derivative="cosh"),
    _fault("inf minus inf", "{out} = 0.3 * (jnp.exp(jnp.tanh({a}) + 2000.0 * {t}) - jnp.exp(2000.0 * {t})) <<", "exp"),
    _fault("softmax by hand", "e{n} = jnp.exp({a} + 2000.0 * {t}) <<\n{out} = e{n} / jnp.sum(e{n})", "exp"),
    _fault("arccos beyond 1", "{out} = 0.5 * jnp.arccos(0.5 * jnp.tanh({a}) + 2.0 * {t}) <<", "acos", derivative="rsqrt sqrt div"),
    _fault("arcsin beyond 1", "{out} = 0.5 * jnp.arcsin(0.5 * jnp.tanh({a}) + 2.0 * {t}) <<", "asin", derivative="rsqrt sqrt div"),
    _fault("arctanh beyond 1", "{out} = jnp.arctanh(0.5 * jnp.tanh({a}) + 2.0 * {t}) <<", "atanh"),
    _fault("arccosh below 1", "{out} = 0.5 * jnp.arccosh(2.0 + 0.5 * jnp.tanh({a}) - 3.0 * {t}) <<", "acosh", derivative="rsqrt sqrt div"),
    _fault("power of a negative", "{out} = (1.5 + 0.5 * jnp.tanh({a}) - 4.0 * {t}) ** 0.7 <<", "pow"),
    _fault("power overflows", "{out} = jnp.power(1.5 + 0.4 * jnp.tanh({a}), 1.0 + 20000.0 * {t}) <<", "pow", derivative="pow mul log"),
    _fault("power of a negative, twice", "q{n} = -1.0 + 2.5 * (1.0 - {t}) + 0.2 * {b}\n{out} = 0.3 * jnp.power(q{n}, 1.5) <<", "pow"),
    _fault("cube overflows", "{out} = 0.1 * (1.0 + 0.1 * {a} + BIG * {t}) ** 3 <<", "integer_pow"),
    _fault("square overflows", "{out} = 0.5 * jnp.square(1.0 + 0.1 * {a} + BIG * {t}) <<", "square integer_pow mul"),
    _fault("product overflows", f"big{{n}} = {P} * (1.0 + BIG * {{t}})\n{{out}} = 0.5 * (big{{n}} * (1.0 + BIG * {{t}})) <<", "mul"),
    _fault(
        "cast overflows",
        "{out} = (0.5 * jnp.tanh({a}) + 1e6 * {t}).astype(jnp.float16).astype({a}.dtype) <<",
        "convert_element_type",
        dtypes=SINGLE,
    ),
    _fault(
        "sum overflows in float16",
        "h{n} = (0.75 + 0.2 * jnp.tanh({a})).astype(jnp.float16) * (1.0 + 6e4 * t.astype(jnp.float16))\n"
        "s{n} = jnp.sum(h{n}) <<\n"
        "{out} = 0.25 * s{n}.astype({a}.dtype) * (1.5 + 0.5 * jnp.tanh({b}))",
        "reduce_sum convert_element_type",
        scalar=True,
    ),
    _fault("dot overflows", f"u{{n}} = {P} * (1.0 + BIG * {{t}})\n{{out}} = 0.05 * jnp.dot(u{{n}}, u{{n}}) * {{b}} <<", "dot_general mul"),
    _fault(
        "product of all overflows",
        "{out} = 0.1 * jnp.prod(1.2 + 0.3 * jnp.tanh({a}) + BIG * t) * {b} <<",
        "reduce_prod convert_element_type",
        scalar=True,
    ),
    _fault("cumulative product overflows", "{out} = 0.1 * jnp.cumprod(1.2 + 0.3 * jnp.tanh({a}) + BIG * t) <<", "cumprod", scalar=True),
    _fault(
        "convolution overflows",
        f"u{{n}} = {P} * (1.0 + BIG * t)\n{{out}} = 0.1 * jnp.convolve(u{{n}}, u{{n}}, mode='same') <<",
        "conv_general_dilated",
        scalar=True,
    ),
    _fault(
        "Cholesky of an indefinite matrix",
        "{out} = jnp.linalg.cholesky((2.0 - 5.0 * t) * EYE + 0.1 * jnp.outer({a}, {a}))[:, 0] <<",
        "cholesky",
        dtypes=FULL,
        scalar=True,
    ),
    _fault(
        "gather out of bounds",
        "at{n} = jnp.array([0, 1, 2, 3]) + (10.0 * {t}).astype(jnp.int32)\n{out} = jnp.take({a}, at{n}, mode='fill') <<",
        "gather",
    ),
    _fault(
        "gather out of bounds by at",
        "at{n} = jnp.array([3, 1, 2, 0]) + (10.0 * {t}).astype(jnp.int32)\n{out} = {a}.at[at{n}].get(mode='fill', fill_value=jnp.nan) <<",
        "gather",
    ),
    _fault(
        "log of an underflow",
        "e{n} = jnp.exp({a} - 2000.0 * {t})\nq{n} = e{n} / (1.0 + e{n})\n{out} = 0.3 * jnp.log(q{n}) <<",
        "log",
        derivative="div",
    ),
    _fault(
        "log of an integer that overflowed",
        "count{n} = jnp.int32(2147483000) + (1000.0 * t).astype(jnp.int32)\n"
        "{out} = 0.05 * jnp.log(count{n}.astype({a}.dtype)) * (1.5 + 0.5 * jnp.tanh({b})) <<",
        "log",
        dtypes=SINGLE,
        scalar=True,
    ),
    _fault(
        "softmax of nothing", "seen{n} = MASK & (t < 0.5)\n{out} = jax.nn.softmax(jnp.where(seen{n}, {a}, -jnp.inf)) <<", "sub", scalar=True
    ),
    _fault(
        "mean of nothing",
        "seen{n} = MASK * (1.0 - t)\n{out} = {b} * (jnp.sum({a} * seen{n}) / jnp.sum(seen{n})) <<",
        "div",
        scalar=True,
        derivative="div",
    ),
    _fault(
        "a zero vector normalised",
        "u{n} = (2.5 + jnp.tanh({a})) * (1.0 - t)\n{out} = u{n} / jnp.linalg.norm(u{n}) <<",
        "div",
        scalar=True,
        derivative="div integer_pow square mul",
    ),
    _fault("pole of gammaln", f"{{out}} = 0.2 * jax.scipy.special.gammaln({Z}) <<", "lgamma", dtypes=FULL, derivative="digamma"),
    _fault("pole of digamma", f"{{out}} = 0.2 * jax.scipy.special.digamma({Z}) <<", "digamma", dtypes=FULL, derivative="polygamma div"),
    _fault(
        "erfinv beyond 1",
        "{out} = 0.5 * jax.scipy.special.erfinv(0.5 * jnp.tanh({a}) + 2.0 * {t}) <<",
        "erf_inv",
        dtypes=FULL,
        derivative="exp",
    ),
    _fault("remainder by zero", f"{{out}} = 0.5 * lax.rem({{b}}, {Z}) <<", "rem", derivative="div"),
    _fault("mod by zero", f"{{out}} = 0.5 * jnp.mod({{b}}, {Z}) <<", "rem", derivative="div"),
    _fault(
        "complex log of zero",
        f"c{{n}} = lax.complex({Z}, 0.5 * {{b}} * (1.0 - {{t}}))\n{{out}} = 0.3 * jnp.real(jnp.log(c{{n}})) <<",
        "log",
        dtypes=FULL,
        derivative="div",
    ),
    _fault(
        "complex division by zero",
        f"c{{n}} = lax.complex({Z}, {{b}} * (1.0 - {{t}}))\n{{out}} = jnp.real(1.0 / c{{n}}) <<",
        "div",
        dtypes=FULL,
        derivative="integer_pow div mul",
    ),
    _fault(
        "scatter multiplies beyond",
        f"big{{n}} = {P} * (1.0 + BIG * t * jnp.array([0, 0, 1, 0], {{a}}.dtype))\n"
        "{out} = 0.5 * big{n}.at[2].multiply(1.0 + BIG * t) <<",
        "scatter_mul scatter-mul mul",
        scalar=True,
    ),
    _fault(
        "cross entropy",
        "p{n} = jax.nn.softmax({a}) * (1.0 - {t})\n{out} = -0.3 * jnp.where(MASK, 1.0, 0.0) * jnp.log(p{n}) <<",
        "log",
        derivative="div",
    ),
)

GRADIENT = tuple(
    fault._replace(gradient=True)
    for fault in (
        _fault("gradient of sqrt at zero", f"{{out}} = jnp.sqrt({Z}) <<", "div"),
        _fault(
            "gradient of a masked log",
            f"s{{n}} = {Z}\n{{out}} = jnp.where(s{{n}} > 0, jnp.log(s{{n}}), 0.0) <<",
            "div",
            derivative="integer_pow",
        ),
        _fault(
            "gradient of a masked sqrt",
            f"s{{n}} = {Z}\n{{out}} = jnp.where(s{{n}} > 0, jnp.sqrt(s{{n}}), 0.0) <<",
            "div",
            derivative="integer_pow",
        ),
        _fault(
            "gradient of a masked division",
            f"s{{n}} = {Z}\n{{out}} = 0.5 * jnp.where(s{{n}} > 0, {{b}} / s{{n}}, 0.0) <<",
            "div integer_pow",
        ),
        _fault(
            "gradient of a masked exp",
            "s{n} = jnp.tanh({a}) + 2000.0 * {t}\n{out} = 0.5 * jnp.where(s{n} < 8.0, jnp.exp(s{n}), 0.0) <<",
            "exp",
        ),
        _fault(
            "gradient of a softplus by hand",
            "s{n} = jnp.tanh({a}) + 2000.0 * {t}\n{out} = 0.5 * jnp.where(s{n} > 20.0, 1.0, jnp.log1p(jnp.exp(s{n}))) <<",
            "exp",
        ),
        _fault(
            "gradient of a norm at zero",
            "u{n} = (2.5 + jnp.tanh({a})) * (1.0 - t)\n{out} = 0.25 * {b} * jnp.linalg.norm(u{n}) <<",
            "div",
            scalar=True,
        ),
        _fault("gradient of arctan2 at zero", f"{{out}} = 0.5 * jnp.arctan2({Z}, (2.5 + jnp.tanh({{b}})) * (1.0 - {{t}})) <<", "div"),
        _fault("gradient of arccos at 1", "{out} = 0.5 * jnp.arccos(0.5 * jnp.tanh({a}) * (1.0 - {t}) + {t}) <<", "rsqrt div"),
        _fault("gradient of arcsin at 1", "{out} = 0.5 * jnp.arcsin(0.5 * jnp.tanh({a}) * (1.0 - {t}) + {t}) <<", "rsqrt div"),
        _fault(
            "division by zero in a rule of custom_vjp",
            "{out} = own{n}({a}, t)",
            "div",
            scalar=True,
            forward=False,
            outer="@jax.custom_vjp\ndef own{n}(y, t):\n    return 0.5 * jnp.tanh(y)\n\n\n"
            "def own{n}_fwd(y, t):\n    return own{n}(y, t), (y, t)\n\n\n"
            "def own{n}_bwd(kept, g):\n    y, t = kept\n    scale = (1.5 + 0.5 * jnp.tanh(y)) * (1.0 - t)\n"
            "    slope = g / scale <<\n    return 0.5 * slope, jnp.zeros_like(t)\n\n\n"
            "own{n}.defvjp(own{n}_fwd, own{n}_bwd)",
        ),
        _fault(
            "log of a negative in a rule of custom_jvp",
            "{out} = own{n}({a}, t)",
            "log",
            scalar=True,
            outer="@jax.custom_jvp\ndef own{n}(y, t):\n    return 0.5 * jnp.tanh(y)\n\n\n"
            "@own{n}.defjvp\ndef own{n}_jvp(primals, tangents):\n    y, t = primals\n"
            "    slope = jnp.log(2.0 + 0.5 * jnp.tanh(y) - 4.0 * t) <<\n    return own{n}(y, t), 0.5 * slope * tangents[0]",
        ),
        _fault("gradient of a power at zero", f"{{out}} = 0.5 * ({Z}) ** 0.7 <<", "pow"),
        _fault(
            "gradient of a deviation of equals",
            "u{n} = (2.5 + jnp.arange(4) + jnp.tanh({a})) * (1.0 - t)\n{out} = 0.25 * jnp.std(u{n}) * {b} <<",
            "div",
            scalar=True,
        ),
        _fault(
            "gradient of a distance to itself",
            "d{n} = (2.5 + jnp.tanh({a}) - {b} * 0.1) * (1.0 - {t})\n{out} = 0.3 * jnp.sqrt(d{n} * d{n}) <<",
            "div",
        ),
    )
)
