"""What grows past the largest number of its type: exponentials, squares, recursions, and anything in half precision."""

from __future__ import annotations

from nandetect.hazards.hazard import Facts, Hazard, Inputs, own_value
from nandetect.hazards.logs import OWN_SIGMOID

HALF = "float16"
SMALL_EPSILON = r"\b1e-(0?[89]|1\d)\b"


def _exp_overflows(facts: Facts) -> bool:
    return facts.made("exp", "exp2", saying="overflow")


def _half(facts: Facts) -> bool:
    return facts.origin.dtype == HALF


def _is_half_mask(facts: Facts) -> bool:
    return _half(facts) and facts.made("convert_element_type") and (facts.at_origin() or 0.0) <= -1e5


def _overflowing_logit(facts: Facts) -> Inputs | None:
    above = facts.at_origin()
    return None if above is None else {"x": (0.0, above)}


HAZARDS = (
    Hazard(
        code="ND241",
        name="overflow-in-a-masked-branch",
        why="`where` drops the value of the masked branch, but not its derivative: 0 * inf is nan; give the branch a harmless operand",
        before="jnp.where(x > 0, x, jnp.exp(x) - 1.0)",
        after="jnp.where(x > 0, x, jnp.exp(jnp.where(x > 0, 0.0, x)) - 1.0)",
        breaks_on={"x": (-1.0, 200.0)},
        ordinary={"x": (-1.0, 0.5, 2.0)},
        fails="gradient",
        matches=lambda facts: (
            facts.made("exp", "exp2", "cosh", "sinh", phase="backward", saying="overflow")
            and facts.written(r"\bwhere\([^,]+,.*(exp2?|cosh|sinh)\(", facts.line)
        ),
    ),
    Hazard(
        code="ND242",
        name="own-sigmoid",
        why="exp(-x) overflows for large negative x; the value is still 0, but its derivative is inf * 0; jax.nn.sigmoid is safe in both",
        before="1.0 / (1.0 + jnp.exp(-x))",
        after="jax.nn.sigmoid(x)",
        breaks_on={"x": (-200.0, 1.0)},
        ordinary={"x": (-1.0, 0.5, 2.0)},
        fails="gradient",
        matches=lambda facts: _exp_overflows(facts) and facts.written(OWN_SIGMOID, facts.line),
        values=lambda facts: None if facts.at_origin() is None else {"x": -(facts.at_origin() or 0.0)},
    ),
    Hazard(
        code="ND243",
        name="own-softplus",
        why="exp overflows from about 89 (float32) on, although log(1 + exp(x)) is then x",
        before="jnp.log(1 + jnp.exp(x))",
        after="jax.nn.softplus(x)",
        breaks_on={"x": (-1.0, 200.0)},
        ordinary={"x": (-1.0, 0.5, 2.0)},
        matches=lambda facts: _exp_overflows(facts) and facts.written(r"log1p\(\w*\.?exp\(|log\(1\.?0? *\+ *\w*\.?exp\(", facts.line),
        values=own_value,
    ),
    Hazard(
        code="ND244",
        name="softmax-without-max",
        why="exp overflows from about 89 (float32) on, and inf / inf is nan; jax.nn.softmax subtracts the maximum first",
        before="jnp.exp(x) / jnp.sum(jnp.exp(x))",
        after="jax.nn.softmax(x)",
        breaks_on={"x": (0.0, 200.0)},
        ordinary={"x": (-1.0, 0.5, 2.0)},
        matches=lambda facts: (
            _exp_overflows(facts)
            and facts.then("div")
            and not facts.then("log")
            and facts.written(r"/ *\w*\.?sum\(|/ *\w+\.sum\(", _way(facts))
        ),
        values=_overflowing_logit,
    ),
    Hazard(
        code="ND245",
        name="log-of-cosh",
        why="cosh overflows from about 89 (float32) on, although log(cosh(x)) is then |x| - log(2)",
        before="jnp.log(jnp.cosh(x))",
        after="jnp.abs(x) + jax.nn.softplus(-2 * jnp.abs(x)) - jnp.log(2.0)",
        breaks_on={"x": (-250.0, 1.0)},
        ordinary={"x": (-1.0, 0.5, 2.0)},
        matches=lambda facts: facts.made("cosh", saying="overflow") and facts.then("log"),
        values=own_value,
    ),
    Hazard(
        code="ND246",
        name="log-of-bessel-i0",
        why="i0 grows like exp and overflows from about 91 (float32) on; i0e is i0 scaled by exp(-|x|), which the logarithm gives back",
        before="jnp.log(jax.scipy.special.i0(x))",
        after="jnp.log(jax.scipy.special.i0e(x)) + jnp.abs(x)",
        breaks_on={"x": (120.0, 1.0)},
        ordinary={"x": (-1.0, 0.5, 2.0)},
        matches=lambda facts: _exp_overflows(facts) and facts.then("log") and facts.written(r"\bi0\(", facts.line),
        values=own_value,
    ),
    Hazard(
        code="ND247",
        name="square-in-half-precision",
        why="float16 ends at 65504, so that 256 squared overflows; square and average in float32",
        before="jnp.mean(x**2)",
        after="jnp.mean(x.astype(jnp.float32) ** 2)",
        breaks_on={"x": (300.0, 1.0)},
        ordinary={"x": (0.5, 2.0)},
        dtype=HALF,
        matches=lambda facts: (
            _half(facts) and facts.made("integer_pow", "square", "mul") and facts.written(r"\*\*|square\(|(\w+) \* \1\b", facts.expression)
        ),
        values=own_value,
    ),
    Hazard(
        code="ND248",
        name="epsilon-in-half-precision",
        why="the smallest positive float16 is 6e-8, so that an epsilon of 1e-8 is 0 and protects nothing; add it in float32",
        before="jnp.log(x + 1e-8)",
        after="jnp.log(x.astype(jnp.float32) + 1e-8)",
        breaks_on={"x": (0.0, 0.5)},
        ordinary={"x": (0.25, 0.5)},
        dtype=HALF,
        matches=lambda facts: _half(facts) and "zero" in facts.origin.reason and facts.written(SMALL_EPSILON, facts.line),
        values=lambda facts: {"x": 0.0},
    ),
    Hazard(
        code="ND249",
        name="mask-in-half-precision",
        why="float16 ends at 65504, so that a mask of -1e9 becomes -inf, and a row all masked nan; use the type's own minimum",
        before="jnp.where(m, 0.0, -1e9).astype(jnp.float16)",
        after="jnp.where(m, 0.0, jnp.finfo(jnp.float16).min).astype(jnp.float16)",
        breaks_on={"m": (True, False)},
        matches=_is_half_mask,
        values=lambda facts: {"m": (False,)},
    ),
    Hazard(
        code="ND250",
        name="matrix-product-in-half-precision",
        why="float16 ends at 65504, which a sum of products soon passes; let the product accumulate and return float32",
        before="x @ y",
        after="jnp.matmul(x, y, preferred_element_type=jnp.float32)",
        breaks_on={"x": (300.0, 300.0), "y": (300.0, 300.0)},
        ordinary={"x": (0.5, 2.0), "y": (-1.0, 4.0)},
        dtype=HALF,
        matches=lambda facts: _half(facts) and facts.made("dot_general"),
    ),
    Hazard(
        code="ND251",
        name="cast-to-half-precision",
        why="float16 ends at 65504; bfloat16 has the range of float32 in the same 16 bits",
        before="x.astype(jnp.float16)",
        after="x.astype(jnp.bfloat16)",
        breaks_on={"x": (1e6, 1.0)},
        ordinary={"x": (0.5, 2.0)},
        matches=lambda facts: _half(facts) and facts.made("convert_element_type", "reduce_precision") and not _is_half_mask(facts),
        values=own_value,
    ),
    Hazard(
        code="ND252",
        name="exploding-recursion",
        why="a carried value that every iteration makes larger overflows in the end; bound it, or normalise it in the loop",
        before="jax.lax.fori_loop(0, 200, lambda _, h: x * h, jnp.ones_like(x))",
        after="jax.lax.fori_loop(0, 200, lambda _, h: x * h / jnp.maximum(1.0, jnp.abs(x * h)), jnp.ones_like(x))",
        breaks_on={"x": (0.5, 2.0)},
        ordinary={"x": (0.5, -1.0)},
        matches=lambda facts: "overflow" in facts.origin.reason and facts.because("scan", "while", saying="carried"),
        general=True,
    ),
    Hazard(
        code="ND253",
        name="unbounded-exponent",
        why="exp overflows from about 89 (float32) on; where a network makes the exponent, bound it",
        before="jnp.exp(x)",
        after="jnp.exp(jnp.minimum(x, 80.0))",
        breaks_on={"x": (0.5, 200.0)},
        ordinary={"x": (0.5, -1.0)},
        matches=lambda facts: (
            facts.made("exp", saying="overflow")
            and facts.origin.dtype in ("float32", "bfloat16")
            and facts.because("dot_general", "conv_general_dilated", "scan")
        ),
        values=own_value,
        general=True,
    ),
)


def _way(facts: Facts) -> str:
    """The lines that the value passed on its way to the symptom."""
    return "\n".join(dict.fromkeys(event.source.code for event in facts.chain if event.source))
