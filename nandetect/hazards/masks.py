"""Masks of -inf: rows in which nothing is left, and products of 0 and -inf."""

from __future__ import annotations

from nandetect.hazards.hazard import Hazard

HAZARDS = (
    Hazard(
        code="ND261",
        name="softmax-of-a-masked-row",
        why="in a row that is all masked the maximum is -inf, and -inf - -inf is nan; mask with a finite number, and the result once more",
        before="jax.nn.softmax(jnp.where(m, x, -jnp.inf))",
        after="jnp.where(m, jax.nn.softmax(jnp.where(m, x, jnp.finfo(x.dtype).min)), 0.0)",
        breaks_on={"m": (False, False), "x": (0.5, 2.0)},
        ordinary={"m": (True, True, False), "x": (0.5, -1.0, 2.0)},
    ),
    Hazard(
        code="ND262",
        name="mask-times-inf",
        why="0 * -inf is nan where the mask is 0; choose between the numbers with `where` instead of multiplying",
        before="jax.nn.softmax(x + (1.0 - w) * -jnp.inf)",
        after="jax.nn.softmax(jnp.where(w > 0, x, jnp.finfo(x.dtype).min))",
        breaks_on={"w": (1.0, 1.0, 0.0), "x": (0.5, -1.0, 2.0)},
    ),
    Hazard(
        code="ND263",
        name="masked-probability-times-its-log",
        why="where a logit is masked by -inf the probability is 0 and its logarithm -inf, and 0 * -inf is nan; leave those terms out",
        before="jnp.exp(x) * x",
        after="jnp.where(x > -jnp.inf, jnp.exp(jnp.where(x > -jnp.inf, x, 0.0)) * jnp.where(x > -jnp.inf, x, 0.0), 0.0)",
        breaks_on={"x": (float("-inf"), -0.5)},
        ordinary={"x": (-0.5, -1.0)},
    ),
    Hazard(
        code="ND264",
        name="logsumexp-of-nothing",
        why="where every term is -inf the maximum is -inf, and -inf - -inf is nan; bound the terms by a finite number",
        before="jnp.max(x) + jnp.log(jnp.sum(jnp.exp(x - jnp.max(x))))",
        after="jax.nn.logsumexp(jnp.maximum(x, -1e30))",
        breaks_on={"x": (float("-inf"), float("-inf"))},
        ordinary={"x": (-0.5, 2.0)},
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
    ),
    Hazard(
        code="ND266",
        name="pole-in-a-masked-branch",
        why="`where` drops the value of the masked branch, but not its derivative: 0 * inf is nan; give the function a harmless operand",
        before="jnp.where(x > 0, jax.lax.lgamma(x), 0.0)",
        after="jnp.where(x > 0, jax.lax.lgamma(jnp.where(x > 0, x, 1.0)), 0.0)",
        breaks_on={"x": (0.0, 4.0)},
        ordinary={"x": (0.25, 4.0)},
        fails="gradient",
    ),
    Hazard(
        code="ND267",
        name="zero-times-infinite",
        why="0 * inf is nan; where the factor is 0 the product is meant to be 0: choose it with `where`",
        before="x * y",
        after="jnp.where(x != 0, x * jnp.where(x != 0, y, 0.0), 0.0)",
        breaks_on={"x": (0.0, 1.0), "y": (float("-inf"), 2.0)},
        ordinary={"x": (0.0, 1.0), "y": (3.0, 2.0)},
    ),
    Hazard(
        code="ND268",
        name="difference-of-infinities",
        why="-inf - -inf is nan; where two log-probabilities are both -inf, say which difference is meant",
        before="x - y",
        after="jnp.where(x == y, 0.0, x - jnp.where(x == y, 0.0, y))",
        breaks_on={"x": (float("-inf"), -1.0), "y": (float("-inf"), -2.0)},
        ordinary={"x": (-0.5, -1.0), "y": (-3.0, -2.0)},
    ),
)
