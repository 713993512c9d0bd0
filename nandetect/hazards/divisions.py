"""Divisions by zero: masked ones, empty means, zero norms; and inverse trigonometry at the ends of its range."""

from __future__ import annotations

from nandetect.hazards.hazard import Hazard

NEAR_ONE = "jnp.clip(x, -1 + 1e-6, 1 - 1e-6)"
FLAT_AT_ENDS = (
    "jnp.where(jnp.abs(x) < 1, jnp.arccos(jnp.where(jnp.abs(x) < 1, x, 0.0)), jnp.arccos(jax.lax.stop_gradient(jnp.clip(x, -1, 1))))"
)


HAZARDS = (
    Hazard(
        code="ND231",
        name="division-in-a-masked-branch",
        why="`where` drops the value of the masked branch, but not its derivative: 0 * inf is nan; give the branch a harmless operand",
        before="jnp.where(x > 0, 1.0 / x, 0.0)",
        after="jnp.where(x > 0, 1.0 / jnp.where(x > 0, x, 1.0), 0.0)",
        breaks_on={"x": (0.0, 4.0)},
        ordinary={"x": (0.25, 4.0)},
        fails="gradient",
    ),
    Hazard(
        code="ND232",
        name="mean-of-nothing",
        why="where the mask selects nothing the mean is 0 / 0; divide by a count of at least 1",
        before="jnp.sum(jnp.where(m, x, 0.0)) / jnp.sum(m)",
        after="jnp.sum(jnp.where(m, x, 0.0)) / jnp.maximum(jnp.sum(m), 1)",
        breaks_on={"m": (False, False), "x": (0.5, 2.0)},
        ordinary={"m": (True, False), "x": (0.5, 2.0)},
    ),
    Hazard(
        code="ND233",
        name="normalising-a-zero-vector",
        why="the norm of a zero vector is 0, and 0 / 0 is nan; divide by 1 there",
        before="x / jnp.linalg.norm(x)",
        after="x / jnp.where(jnp.any(x != 0), jnp.linalg.norm(jnp.where(jnp.any(x != 0), x, 1.0)), 1.0)",
        breaks_on={"x": (0.0, 0.0)},
        ordinary={"x": (3.0, -4.0)},
    ),
    Hazard(
        code="ND234",
        name="standardising-a-constant",
        why="the standard deviation of a constant is 0, and 0 / 0 is nan; divide by 1 there",
        before="(x - jnp.mean(x)) / jnp.std(x)",
        after="(x - jnp.mean(x)) / jnp.where(jnp.var(x) > 0, jnp.sqrt(jnp.where(jnp.var(x) > 0, jnp.var(x), 1.0)), 1.0)",
        breaks_on={"x": (2.0, 2.0)},
        ordinary={"x": (0.5, -1.0, 2.0)},
    ),
    Hazard(
        code="ND235",
        name="atan2-at-the-origin",
        why="the angle of the zero vector has no derivative: it is 0 / 0; give arctan2 a harmless point there",
        before="jnp.arctan2(y, x)",
        after="jnp.arctan2(y, jnp.where((x == 0) & (y == 0), 1.0, x))",
        breaks_on={"x": 0.0, "y": 0.0},
        ordinary={"x": (-1.0, 2.0), "y": (0.5, -1.0)},
        fails="gradient",
    ),
    Hazard(
        code="ND236",
        name="slope-of-arccos-at-one",
        why="the derivative of arccos and arcsin is infinite at -1 and 1; take the value there, and no slope",
        before="jnp.arccos(jnp.clip(x, -1.0, 1.0))",
        after=FLAT_AT_ENDS,
        breaks_on={"x": (-1.0, 1.0)},
        ordinary={"x": (-0.5, 0.75)},
        fails="gradient",
    ),
    Hazard(
        code="ND237",
        name="arccos-outside-by-rounding",
        why="a cosine computed in floating point may exceed 1 by a rounding error, where arccos is nan; take the value at 1, and no slope",
        before="jnp.arccos(x)",
        after=FLAT_AT_ENDS,
        breaks_on={"x": 1.0000002},
        ordinary={"x": (-0.5, 0.75)},
    ),
    Hazard(
        code="ND238",
        name="arctanh-at-one",
        why="arctanh is infinite at -1 and 1, and tanh rounds to them; clip a little inside, or keep the value from before the tanh",
        before="jnp.arctanh(x)",
        after=f"jnp.arctanh({NEAR_ONE})",
        breaks_on={"x": (-1.0, 1.0)},
        ordinary={"x": (-0.5, 0.75)},
    ),
    Hazard(
        code="ND239",
        name="zero-divisor",
        why="the divisor is 0 where this broke; say which number is meant there",
        before="1 / x",
        after="jnp.where(x != 0, 1 / jnp.where(x != 0, x, 1), 0)",
        breaks_on={"x": (0.0, 4.0)},
        ordinary={"x": (0.25, -4.0)},
    ),
    Hazard(
        code="ND240",
        name="share-of-nothing",
        why="the total that this is a share of is 0, and 0 / 0 is nan; divide by 1 where there is nothing to share",
        before="x / jnp.sum(x)",
        after="x / jnp.where(jnp.sum(x) != 0, jnp.sum(x), 1)",
        breaks_on={"x": (0.0, 0.0)},
        ordinary={"x": (0.25, 4.0)},
    ),
)
