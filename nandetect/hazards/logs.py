"""Logarithms of what underflowed or rounded, and of zeros that were there."""

from __future__ import annotations

from nandetect.hazards.hazard import Facts, Hazard, Inputs, own_value

SOFTMAX = r"softmax\(|/ *\w*\.?sum\(|/ *\w+\.sum\(|/ *\(\w+\.sum\("
OWN_SIGMOID = r"1\.?0? */ *\(1\.?0? *\+ *\w*\.?exp\("


def _log_of_zero(facts: Facts) -> bool:
    return (
        facts.made("log", saying="zero")
        or facts.because("log", saying="zero")
        or (facts.derives("log") and facts.made("div", "integer_pow", saying="zero"))
    )


def _one_minus(facts: Facts) -> bool:
    return (_log_of_zero(facts) and facts.because("sub", saying="cancels")) or facts.made("log1p", saying="-1")


def _two_logits(facts: Facts) -> Inputs | None:
    below = facts.at_cause("exp")
    return None if below is None else {"x": (0.0, below)}


def _labels_and_logits(facts: Facts) -> Inputs | None:
    below = facts.at_cause("exp")
    return None if below is None else {"t": (1.0, 0.0), "x": (0.0, below)}


def _overflowing_logit(facts: Facts) -> Inputs | None:
    above = facts.at_origin() if facts.origin.primitive == "exp" else None
    return {"x": (above, 0.0)} if above else None


def _sigmoid_input(facts: Facts) -> Inputs | None:
    value = facts.at_cause("logistic")
    return None if value is None else {"x": value}


def _tanh_input(facts: Facts) -> Inputs | None:
    value = facts.at_cause("tanh")
    return None if value is None else {"x": value}


HAZARDS = (
    Hazard(
        code="ND201",
        name="log-of-softmax",
        why="softmax underflows to 0 once logits differ by about 88 (float32), and log(0) is -inf; take the log-softmax of the logits",
        before="jnp.log(jax.nn.softmax(x))",
        after="jax.nn.log_softmax(x)",
        breaks_on={"x": (0.0, 200.0)},
        ordinary={"x": (0.5, -1.0, 2.0)},
        matches=lambda facts: _log_of_zero(facts) and facts.because("exp", "div", saying="underflows") and facts.written(SOFTMAX),
        values=_two_logits,
    ),
    Hazard(
        code="ND202",
        name="xlogy-of-softmax",
        why="xlogy(0, 0) is 0, but its derivative is 0 / 0 where the softmax underflowed; multiply the labels with the log-softmax",
        before="jax.scipy.special.xlogy(t, jax.nn.softmax(x))",
        after="t * jax.nn.log_softmax(x)",
        breaks_on={"t": (0.0, 1.0), "x": (0.0, 200.0)},
        ordinary={"t": (0.25, 0.75), "x": (0.5, -1.0)},
        fails="gradient",
        matches=lambda facts: facts.derives("xlogy") and facts.because("exp", "div", saying="underflows") and facts.written(SOFTMAX),
        values=_labels_and_logits,
    ),
    Hazard(
        code="ND203",
        name="log-of-one-minus-sigmoid",
        why="sigmoid rounds to 1 from about 17 on (float32; 6 in bfloat16), and log(1 - 1) is -inf; 1 - sigmoid(x) is sigmoid(-x)",
        before="jnp.log(1 - jax.nn.sigmoid(x))",
        after="jax.nn.log_sigmoid(-x)",
        breaks_on={"x": 40.0},
        ordinary={"x": (-3.0, 0.5, 2.0)},
        matches=lambda facts: (
            _one_minus(facts) and (facts.because("logistic", saying="rounds") or (facts.because("add") and facts.written(OWN_SIGMOID)))
        ),
        values=_sigmoid_input,
    ),
    Hazard(
        code="ND204",
        name="log-of-sigmoid",
        why="sigmoid underflows to 0 below about -88 (float32), and log(0) is -inf",
        before="jnp.log(jax.nn.sigmoid(x))",
        after="jax.nn.log_sigmoid(x)",
        breaks_on={"x": -200.0},
        ordinary={"x": (-3.0, 0.5, 2.0)},
        matches=lambda facts: _log_of_zero(facts) and facts.because("logistic", saying="underflows") and not facts.written(r"\w - \w+\)"),
        values=_sigmoid_input,
    ),
    Hazard(
        code="ND205",
        name="log-of-difference-of-sigmoids",
        why="far from the centre both sigmoids are the same number, and log(0) is -inf; the difference factorises without cancelling",
        before="jnp.log(jax.nn.sigmoid(x) - jax.nn.sigmoid(y))",
        after="jax.nn.log_sigmoid(x) + jax.nn.log_sigmoid(-y) + jnp.log(-jnp.expm1(y - x))",
        breaks_on={"x": -119.0, "y": -120.0},
        ordinary={"x": (0.5, 2.0), "y": (-0.5, 1.0)},
        matches=lambda facts: (
            _log_of_zero(facts)
            and facts.written(r"log\(\w+ - \w+\)", facts.expression)
            and facts.written(r"sigmoid\(.*sigmoid\(")
            and facts.because("logistic", "sub")
        ),
    ),
    Hazard(
        code="ND206",
        name="log-of-one-minus-tanh-squared",
        why="tanh rounds to 1 from about 9 (float32) on, and log(1 - 1) is -inf; this is the same number from the pre-activation",
        before="jnp.log(1 - jnp.tanh(x) ** 2)",
        after="2 * (jnp.log(2.0) - x - jax.nn.softplus(-2 * x))",
        breaks_on={"x": (-20.0, 20.0)},
        ordinary={"x": (-2.0, 0.5, 1.0)},
        matches=lambda facts: _one_minus(facts) and facts.because("tanh", saying="rounds"),
        values=_tanh_input,
    ),
    Hazard(
        code="ND207",
        name="log-sum-exp",
        why="the exponentials overflow, or all underflow to 0, before the logarithm can bring them back; logsumexp shifts by the maximum",
        before="jnp.log(jnp.sum(jnp.exp(x)))",
        after="jax.nn.logsumexp(x)",
        breaks_on={"x": (1000.0, 0.0)},
        ordinary={"x": (0.5, -1.0, 2.0)},
        matches=lambda facts: (
            facts.written(r"log\(.*sum\(.*exp\(|log\(.*exp\(.*\.sum\(", facts.line)
            and (facts.made("exp", saying="overflow") or (facts.made("log", saying="zero") and facts.because("exp", saying="underflows")))
        ),
        values=_overflowing_logit,
    ),
    Hazard(
        code="ND208",
        name="log-of-normal-cdf",
        why="the normal distribution function underflows to 0 below about -14 (float32), and log(0) is -inf",
        before="jnp.log(jax.scipy.stats.norm.cdf(x))",
        after="jax.scipy.stats.norm.logcdf(x)",
        breaks_on={"x": -20.0},
        ordinary={"x": (-2.0, 0.5, 1.0)},
        matches=lambda facts: _log_of_zero(facts) and facts.written(r"norm\.cdf\(|ndtr\(|erfc?\(") and facts.because("erfc", "erf"),
    ),
    Hazard(
        code="ND209",
        name="probability-times-its-log",
        why="0 * log(0) is nan, although p * log(p) tends to 0; give the logarithm a harmless operand where p is 0",
        before="x * jnp.log(x)",
        after="jnp.where(x > 0, x * jnp.log(jnp.where(x > 0, x, 1.0)), 0.0)",
        breaks_on={"x": (0.0, 1.0)},
        ordinary={"x": (0.25, 0.75)},
        matches=lambda facts: _log_of_zero(facts) and facts.written(r"\b(\w+) \* *\(?(jnp\.|jax\.numpy\.|np\.)?log\(\1\b", facts.line),
        values=lambda facts: {"x": 0.0},
    ),
    Hazard(
        code="ND210",
        name="log-of-a-uniform-draw",
        why="a uniform draw from [0, 1) may be exactly 0; draw with minval=jnp.finfo(dtype).tiny, or use jax.random.gumbel",
        before="jnp.log(x)",
        after="jnp.log(jnp.maximum(x, jnp.finfo(x.dtype).tiny))",
        breaks_on={"x": 0.0},
        ordinary={"x": (0.25, 0.75)},
        matches=lambda facts: (
            facts.made("log", saying="zero")
            and (facts.because("random_bits", "threefry2x32") or facts.written(r"log\(-(jnp\.)?log\(", facts.line))
        ),
        values=own_value,
    ),
    Hazard(
        code="ND211",
        name="log-of-product",
        why="the product of many small numbers underflows to 0, and log(0) is -inf; add the logarithms up instead",
        before="jnp.log(jnp.prod(x))",
        after="jnp.sum(jnp.log(x))",
        breaks_on={"x": (1e-20, 1e-20, 1e-20)},
        ordinary={"x": (0.25, 0.75, 2.0)},
        matches=lambda facts: _log_of_zero(facts) and facts.because("reduce_prod", "cumprod", "mul", saying="underflows"),
    ),
    Hazard(
        code="ND212",
        name="logit-of-one",
        why="logit is infinite at 0 and at 1; keep its argument inside by more than a rounding error",
        before="jax.scipy.special.logit(x)",
        after="jax.scipy.special.logit(jnp.clip(x, 1e-6, 1 - 1e-6))",
        breaks_on={"x": (0.0, 1.0)},
        ordinary={"x": (0.25, 0.75)},
        matches=lambda facts: facts.written(r"\blogit\(", facts.expression),
    ),
    Hazard(
        code="ND213",
        name="log-of-zero",
        why="log(0) is -inf; where 0 is a value that may occur, bound the operand from below",
        before="jnp.log(x)",
        after="jnp.log(jnp.maximum(x, jnp.finfo(x.dtype).tiny))",
        breaks_on={"x": 0.0},
        ordinary={"x": (0.25, 0.75)},
        matches=lambda facts: (
            facts.made("log", phase="forward", saying="zero")
            and facts.written(r"\blog\(", facts.expression)
            and not facts.because("lu", "exp", "logistic", "sub")
        ),
        values=own_value,
        general=True,
    ),
)
