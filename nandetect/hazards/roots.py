"""Square roots, norms, standard deviations and powers at zero, where their derivative is infinite; and variances below zero."""

from __future__ import annotations

from nandetect.hazards.hazard import Hazard

HAZARDS = (
    Hazard(
        code="ND221",
        name="sqrt-at-zero",
        why="the derivative of sqrt is infinite at 0, and inf * 0 is nan; a `where` inside and one outside keep the 0 out of it",
        before="jnp.sqrt(x)",
        after="jnp.where(x > 0, jnp.sqrt(jnp.where(x > 0, x, 1.0)), 0.0)",
        breaks_on={"x": (0.0, 4.0)},
        ordinary={"x": (0.25, 4.0)},
        fails="gradient",
    ),
    Hazard(
        code="ND222",
        name="norm-at-zero",
        why="the norm has no derivative at the zero vector, and 0 / 0 is nan; a `where` inside and one outside keep it out",
        before="jnp.linalg.norm(x)",
        after="jnp.where(jnp.any(x != 0), jnp.linalg.norm(jnp.where(jnp.any(x != 0), x, 1.0)), 0.0)",
        breaks_on={"x": (0.0, 0.0)},
        ordinary={"x": (3.0, -4.0)},
        fails="gradient",
    ),
    Hazard(
        code="ND223",
        name="std-of-a-constant",
        why="the standard deviation has no derivative where the variance is 0; a `where` inside and one outside keep the 0 out of it",
        before="jnp.std(x)",
        after="jnp.where(jnp.var(x) > 0, jnp.sqrt(jnp.where(jnp.var(x) > 0, jnp.var(x), 1.0)), 0.0)",
        breaks_on={"x": (2.0, 2.0)},
        ordinary={"x": (0.5, -1.0, 2.0)},
        fails="gradient",
    ),
    Hazard(
        code="ND224",
        name="variance-by-difference",
        why="mean(x**2) - mean(x)**2 cancels, and rounding may leave it below 0; take the mean of the squared deviations",
        before="jnp.sqrt(jnp.mean(x**2) - jnp.mean(x) ** 2)",
        after="jnp.sqrt(jnp.mean((x - jnp.mean(x)) ** 2))",
        breaks_on={"x": (300.1, 300.1, 300.1)},
        ordinary={"x": (0.5, -1.0, 2.0)},
    ),
    Hazard(
        code="ND225",
        name="sqrt-below-zero-by-rounding",
        why="a difference that should be 0 is a little below 0 after rounding; bound it by 0 before the square root",
        before="jnp.sqrt(1 - x)",
        after="jnp.sqrt(jnp.maximum(1 - x, 0.0))",
        breaks_on={"x": 1.0000004},
        ordinary={"x": (0.5, -1.0)},
    ),
    Hazard(
        code="ND226",
        name="power-at-zero",
        why="the derivative of x**p is infinite at 0 for p < 1; a `where` inside and one outside keep the 0 out of it",
        before="x**0.4",
        after="jnp.where(x > 0, jnp.where(x > 0, x, 1.0) ** 0.4, 0.0)",
        breaks_on={"x": (0.0, 4.0)},
        ordinary={"x": (0.25, 4.0)},
        fails="gradient",
    ),
    Hazard(
        code="ND227",
        name="root-of-a-rounded-eigenvalue",
        why="a matrix that should have no negative eigenvalue has one after rounding; bound the eigenvalues by 0 before the square root",
        before="jnp.sqrt(jnp.linalg.eigh(x)[0])",
        after="jnp.sqrt(jnp.maximum(jnp.linalg.eigh(x)[0], 0.0))",
        breaks_on={"x": ((1.0, 1.0), (1.0, 0.9999999))},
        ordinary={"x": ((2.0, 0.5), (0.5, 1.0))},
    ),
    Hazard(
        code="ND228",
        name="power-of-a-negative-number",
        why="a fractional power of a negative number is no real number; say which is meant: that of its size, with its sign",
        before="x**0.7",
        after="jnp.sign(x) * jnp.abs(x) ** 0.7",
        breaks_on={"x": (-0.5, 0.5)},
        ordinary={"x": (0.25, 4.0)},
    ),
)
