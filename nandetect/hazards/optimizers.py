"""Optimizers at their first step, and with gradients that are zero."""

from __future__ import annotations

from nandetect.hazards.hazard import Hazard

HAZARDS = (
    Hazard(
        code="ND281",
        name="bias-correction-at-step-zero",
        why="at t = 0 the correction 1 - beta**t is 0; count the steps from 1",
        before="x / (1.0 - 0.9**t)",
        after="x / (1.0 - 0.9 ** (t + 1))",
        breaks_on={"x": 0.5, "t": 0},
    ),
    Hazard(
        code="ND282",
        name="dividing-by-the-gradient-norm",
        why="a gradient that is all 0 has norm 0; bound the norm from below",
        before="x / jnp.linalg.norm(x)",
        after="x / jnp.maximum(jnp.linalg.norm(x), 1e-12)",
        breaks_on={"x": (0.0, 0.0)},
        ordinary={"x": (3.0, -4.0)},
    ),
    Hazard(
        code="ND283",
        name="schedule-at-step-zero",
        why="0 to a negative power is inf; count the steps from 1, or bound the count by 1",
        before="t**-0.5",
        after="jnp.maximum(t, 1.0) ** -0.5",
        breaks_on={"t": 0.0},
        ordinary={"t": (1.0, 4.0)},
    ),
    Hazard(
        code="ND284",
        name="derivative-of-an-adam-step",
        why="the root of Adam's second moment has no derivative at 0; give the optimizer eps_root=1e-8",
        before="x / (jnp.sqrt(x**2) + 1e-8)",
        after="x / (jnp.sqrt(x**2 + 1e-8) + 1e-8)",
        breaks_on={"x": (0.0, 4.0)},
        ordinary={"x": (0.5, -1.0)},
        fails="gradient",
    ),
    Hazard(
        code="ND285",
        name="stretch-of-no-length",
        why="how much of a stretch of no steps is over is 0 / 0; say what is meant: all of it",
        before="(t - x) / (y - x)",
        after="jnp.where(y != x, (t - x) / jnp.where(y != x, y - x, 1), 1)",
        breaks_on={"t": 0.0, "x": 0.0, "y": 0.0},
        ordinary={"t": (0.5, 2.0), "x": (0.0, 1.0), "y": (3.0, 4.0)},
    ),
)
