"""Masks of -inf: rows in which nothing is left, and products of 0 and -inf."""

from __future__ import annotations

from nandetect.hazards.hazard import Facts, Hazard


def _minus_inf(facts: Facts) -> bool:
    return any(operand.value == float("-inf") for operand in facts.origin.operands)


HAZARDS = (
    Hazard(
        code="ND261",
        name="softmax-of-a-masked-row",
        why="in a row that is all masked the maximum is -inf, and -inf - -inf is nan; mask with a finite number, and the result once more",
        before="jax.nn.softmax(jnp.where(m, x, -jnp.inf))",
        after="jnp.where(m, jax.nn.softmax(jnp.where(m, x, jnp.finfo(x.dtype).min)), 0.0)",
        breaks_on={"m": (False, False), "x": (0.5, 2.0)},
        ordinary={"m": (True, True, False), "x": (0.5, -1.0, 2.0)},
        matches=lambda facts: (
            facts.made("sub", saying="inf minus inf") and _minus_inf(facts) and not facts.written(r"logsumexp|log\(", facts.line)
        ),
    ),
    Hazard(
        code="ND262",
        name="mask-times-inf",
        why="0 * -inf is nan where the mask is 0; choose between the numbers with `where` instead of multiplying",
        before="jax.nn.softmax(x + (1.0 - w) * -jnp.inf)",
        after="jax.nn.softmax(jnp.where(w > 0, x, jnp.finfo(x.dtype).min))",
        breaks_on={"w": (1.0, 1.0, 0.0), "x": (0.5, -1.0, 2.0)},
        matches=lambda facts: (
            facts.made("mul", saying="zero times inf") and facts.written(r"\* *-?\(?-?(jnp|np|math)\.inf|inf\b.* \* ", facts.line)
        ),
    ),
    Hazard(
        code="ND263",
        name="masked-probability-times-its-log",
        why="where a logit is masked by -inf the probability is 0 and its logarithm -inf, and 0 * -inf is nan; leave those terms out",
        before="jnp.exp(x) * x",
        after="jnp.where(x > -jnp.inf, jnp.exp(jnp.where(x > -jnp.inf, x, 0.0)) * jnp.where(x > -jnp.inf, x, 0.0), 0.0)",
        breaks_on={"x": (float("-inf"), -0.5)},
        ordinary={"x": (-0.5, -1.0)},
        matches=lambda facts: (
            facts.made("mul", saying="zero times inf") and _minus_inf(facts) and facts.written(r"exp\((\w+)\) \* \1\b", facts.expression)
        ),
        values=lambda facts: {"x": float("-inf")},
    ),
    Hazard(
        code="ND264",
        name="logsumexp-of-nothing",
        why="where every term is -inf the maximum is -inf, and -inf - -inf is nan; bound the terms by a finite number",
        before="jnp.max(x) + jnp.log(jnp.sum(jnp.exp(x - jnp.max(x))))",
        after="jax.nn.logsumexp(jnp.maximum(x, -1e30))",
        breaks_on={"x": (float("-inf"), float("-inf"))},
        ordinary={"x": (-0.5, 2.0)},
        matches=lambda facts: (
            facts.made("sub", saying="inf minus inf") and _minus_inf(facts) and facts.written(r"log\(.*sum\(.*exp\(", facts.line)
        ),
    ),
    Hazard(
        code="ND265",
        name="slope-of-logsumexp-of-nothing",
        why="where every term is -inf the weights of the terms are 0 / 0; bound the terms by a finite number",
        before="jax.nn.logsumexp(x)",
        after="jax.nn.logsumexp(jnp.maximum(x, -1e30))",
        breaks_on={"x": (float("-inf"), float("-inf"))},
        ordinary={"x": (-0.5, 2.0)},
        fails="gradient",
        matches=lambda facts: facts.made("div", phase="backward", saying="zero") and facts.derives("logsumexp"),
        values=lambda facts: {"x": (float("-inf"), float("-inf"))},
    ),
)
