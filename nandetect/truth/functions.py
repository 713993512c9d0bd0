"""Functions of one real variable: value, slope, and what happens at infinity, at the edge of the domain and at poles."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from flint import arb

from nandetect.truth.balls import INF, NAN, NEGATIVE_INF, ONE, ZERO, Unclear, holds_zero, nearest
from nandetect.truth.split import Number, Split, joined

Real = Callable[[arb], arb]


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """A real function. `value` may give anything non-finite where it fails; the other fields say what is true there.

    `below` and `above` are the limits at -inf and inf (None: `value` gives them). `edges` holds points at which `value` fails, with the
    value there (None: it does not fail there, but a little further on); `poles` is the value at 0, -1, -2, ... . Outside of `domain`
    there is no value. At the last precision `tail` gives the value in two parts where a ball would keep only the first, and `rewritten`
    gives the whole function by others that do so. A `positive` function is never zero: a ball of its values that holds zero is too wide.
    """

    value: Real
    slope: Real | None = None
    below: arb | None = NAN
    above: arb | None = NAN
    edges: Mapping[int, arb | None] = field(default_factory=dict)
    poles: arb | None = None
    domain: tuple[arb, arb] = (NEGATIVE_INF, INF)
    tail: Callable[[arb], tuple[arb, arb] | None] = lambda x: None
    rewritten: Callable[[Split], Split] | None = None
    positive: bool = False

    def __call__(self, x: Number) -> Number:
        """The function at a number; raises `Unclear` where its ball is too wide to say."""
        if isinstance(x, Split):
            return self.at_split(x)
        y = self.at_plain(x)
        if y is None:
            raise Unclear
        return y

    def at_split(self, x: Split) -> Split:
        """The function at `high + low`: its value at `high`, and `low` times its slope somewhere between the two (mean value theorem)."""
        if not x.is_finite():
            return self.at_ball(x.high)
        if self.rewritten is not None:
            return self.rewritten(x)
        if self.slope is None or x.low.is_zero():
            return self.at_ball(self.snapped(x.whole()))
        value = self.at_ball(self.snapped(x.high))
        steep = self.slope(x.high.union(x.whole()))
        # A remainder beside a pole or an edge leaves the function unknown.
        return value + Split(steep * x.low) if value.is_finite() and steep.is_finite() else Split(NAN)

    def at_ball(self, x: arb) -> Split:
        """The function at a ball, at the last precision."""
        parts = self.tail(x) if x.is_finite() else None
        if parts is not None:
            return joined(*parts)
        y = self.at_plain(x)
        if y is None:
            return Split(NAN)
        return Split(y) if self.positive else joined(y)

    def at_plain(self, x: arb) -> arb | None:
        """The function at a ball; None where the ball is too wide to say."""
        if x.is_nan():
            return NAN
        if not x.is_finite():
            limit = self.above if x > 0 else self.below
            return self.value(x) if limit is None else limit
        y = self.value(x)
        return y if y.is_finite() else self.at_break(x)

    def at_break(self, x: arb) -> arb | None:
        """The function at a finite ball where `value` fails; None where the ball is too wide to say."""
        for point, value in self.edges.items():
            if x == point and value is not None:
                return value
        if self.poles is not None and x.is_integer() and not x > 0:
            return self.poles
        if x < self.domain[0] or x > self.domain[1]:
            return NAN
        return None

    def snapped(self, x: arb) -> arb:
        """The edge or pole that a ball holds, or the ball itself. A ball that still holds zero here is not zero: see `positive`."""
        if holds_zero(x):
            return x
        for point in self.edges:
            if x.contains(point):
                return arb(point)
        if self.poles is not None and not x > 0 and x.contains(nearest(x)):
            return arb(nearest(x))
        return x


def _logistic(x: arb) -> arb:
    return 1 / (1 + (-x).exp())


def _cbrt(x: arb) -> arb:
    return -(-x).root(3) if x < 0 else x.root(3)


def _lgamma(x: arb) -> arb:
    """log |gamma(x)|, by the reflection formula (DLMF 5.5.3) for negative x."""
    if x > 0:
        return x.lgamma()
    if x.contains_integer():
        return NAN
    return (arb.pi() / abs(x.sin_pi())).log() - (1 - x).lgamma()


def _i0e(x: arb) -> arb:
    return abs(x).bessel_i(0, scaled=True)


def _i1e(x: arb) -> arb:
    if x.is_zero():
        return ZERO
    y = abs(x).bessel_i(1, scaled=True)
    return -y if x < 0 else y if x > 0 else NAN


def _bell(x: arb) -> arb:
    """2 exp(-x^2) / sqrt(pi), the slope of erf."""
    return 2 * (-(x * x)).exp() / arb.const_sqrt_pi()


def _towards_one(remainder: Real) -> Callable[[arb], tuple[arb, arb]]:
    """The `tail` of an odd function that goes to 1: the 1, and the `remainder` that a positive number's value lacks."""
    return lambda x: (ONE, -remainder(x)) if x > 0 else (-ONE, remainder(-x))


def _small(x: arb) -> bool:
    return bool(abs(x) < 1)


_log = Function(value=arb.log, slope=lambda x: 1 / x, above=INF, edges={0: NEGATIVE_INF}, domain=(ZERO, INF))

FUNCTIONS: dict[str, Function] = {
    "exp": Function(
        positive=True, value=arb.exp, slope=arb.exp, below=ZERO, above=INF, tail=lambda x: (ONE, x.expm1()) if _small(x) else None
    ),
    "exp2": Function(
        positive=True,
        value=lambda x: arb(2) ** x,
        slope=lambda x: arb(2).log() * arb(2) ** x,
        below=ZERO,
        above=INF,
        tail=lambda x: (ONE, (x * arb(2).log()).expm1()) if _small(x) and not x.is_integer() else None,
    ),
    "expm1": Function(value=arb.expm1, slope=arb.exp, below=-ONE, above=INF, tail=lambda x: (-ONE, x.exp()) if x < -1 else None),
    "log": _log,
    "log2": Function(
        value=lambda x: x.log_base(2), slope=lambda x: 1 / (x * arb(2).log()), above=INF, edges={0: NEGATIVE_INF}, domain=(ZERO, INF)
    ),
    "log1p": Function(
        value=arb.log1p, above=INF, edges={-1: NEGATIVE_INF}, domain=(-ONE, INF), rewritten=lambda x: _log.at_split(Split(1) + x)
    ),
    "logistic": Function(
        positive=True,
        value=_logistic,
        slope=lambda x: 1 / (2 + x.exp() + (-x).exp()),
        below=ZERO,
        above=ONE,
        tail=lambda x: (ONE, -1 / (1 + x.exp())) if x > 1 else None,
    ),
    "tanh": Function(
        value=arb.tanh,
        slope=lambda x: x.sech() ** 2,
        below=-ONE,
        above=ONE,
        tail=lambda x: None if not abs(x) > 1 else _towards_one(lambda x: 2 / ((2 * x).exp() + 1))(x),
    ),
    "sinh": Function(value=arb.sinh, slope=arb.cosh, below=NEGATIVE_INF, above=INF),
    "cosh": Function(positive=True, value=arb.cosh, slope=arb.sinh, below=INF, above=INF),
    "asinh": Function(value=arb.asinh, slope=lambda x: (1 + x * x).rsqrt(), below=NEGATIVE_INF, above=INF),
    "acosh": Function(value=arb.acosh, slope=lambda x: (x * x - 1).rsqrt(), above=INF, edges={1: ZERO}, domain=(ONE, INF)),
    "atanh": Function(
        value=arb.atanh,
        edges={-1: NEGATIVE_INF, 1: INF},
        domain=(-ONE, ONE),
        rewritten=lambda x: (_log.at_split(Split(1) + x) - _log.at_split(Split(1) - x)) / 2,
    ),
    "sin": Function(value=arb.sin, slope=arb.cos),
    "cos": Function(value=arb.cos, slope=lambda x: -x.sin()),
    "tan": Function(value=arb.tan, slope=lambda x: x.sec() ** 2),
    "asin": Function(value=arb.asin, slope=lambda x: (1 - x * x).rsqrt(), edges={-1: None, 1: None}, domain=(-ONE, ONE)),
    "acos": Function(value=arb.acos, slope=lambda x: -(1 - x * x).rsqrt(), edges={-1: None, 1: None}, domain=(-ONE, ONE)),
    "atan": Function(value=arb.atan, slope=lambda x: 1 / (1 + x * x), below=None, above=None),
    "sqrt": Function(value=arb.sqrt, slope=lambda x: x.rsqrt() / 2, above=INF, edges={0: ZERO}, domain=(ZERO, INF)),
    "rsqrt": Function(positive=True, value=arb.rsqrt, slope=lambda x: -x.rsqrt() / (2 * x), above=ZERO, edges={0: INF}, domain=(ZERO, INF)),
    "cbrt": Function(value=_cbrt, slope=lambda x: _cbrt(x) / (3 * x), below=NEGATIVE_INF, above=INF, edges={0: ZERO}),
    "erf": Function(
        value=arb.erf, slope=_bell, below=-ONE, above=ONE, tail=lambda x: None if not abs(x) > 1 else _towards_one(arb.erfc)(x)
    ),
    "erfc": Function(
        positive=True,
        value=arb.erfc,
        slope=lambda x: -_bell(x),
        below=arb(2),
        above=ZERO,
        tail=lambda x: (arb(2), -(-x).erfc()) if x < -1 else None,
    ),
    "erf_inv": Function(value=arb.erfinv, slope=lambda x: 1 / _bell(x.erfinv()), edges={-1: NEGATIVE_INF, 1: INF}, domain=(-ONE, ONE)),
    "lgamma": Function(value=_lgamma, slope=arb.digamma, below=INF, above=INF, poles=INF),
    "digamma": Function(value=arb.digamma, above=INF, poles=NAN),
    "bessel_i0e": Function(value=_i0e, below=ZERO, above=ZERO),
    "bessel_i1e": Function(value=_i1e, below=ZERO, above=ZERO),
}
