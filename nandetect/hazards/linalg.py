"""Matrices without the factor that is asked for: not positive definite, singular, or with equal eigenvalues."""

from __future__ import annotations

from nandetect.hazards.hazard import Hazard

HAZARDS = (
    Hazard(
        code="ND271",
        name="cholesky-of-an-indefinite-matrix",
        why="rounding left an eigenvalue at or below 0; add a little of the trace to the diagonal",
        before="jnp.linalg.cholesky(x)",
        after="jnp.linalg.cholesky(x + 1e-5 * jnp.trace(x) / x.shape[-1] * jnp.eye(x.shape[-1]))",
        breaks_on={"x": ((1.0, 1.0), (1.0, 0.9999999))},
        ordinary={"x": ((2.0, 0.5), (0.5, 1.0))},
    ),
    Hazard(
        code="ND272",
        name="solving-a-singular-system",
        why="the matrix has no inverse; least squares has an answer all the same (so has a ridge: x + 1e-3 * jnp.eye(n))",
        before="jnp.linalg.solve(x, y)",
        after="jnp.linalg.lstsq(x, y)[0]",
        breaks_on={"x": ((1.0, 2.0), (2.0, 4.0)), "y": (1.0, 2.0)},
        ordinary={"x": ((2.0, 0.5), (0.5, 1.0)), "y": (1.0, -1.0)},
    ),
    Hazard(
        code="ND273",
        name="slope-of-equal-eigenvalues",
        why="the derivative divides by differences of eigenvalues, and two are equal; part them a little",
        before="jnp.linalg.eigh(x)[1]",
        after="jnp.linalg.eigh(x + jnp.diag(1e-3 * jnp.arange(x.shape[-1])))[1]",
        breaks_on={"x": ((1.0, 0.0), (0.0, 1.0))},
        ordinary={"x": ((2.0, 0.5), (0.5, 1.0))},
        fails="gradient",
    ),
    Hazard(
        code="ND274",
        name="slope-of-equal-singular-values",
        why="the derivative divides by differences of singular values, and two are equal; part them a little",
        before="jnp.linalg.svd(x, full_matrices=False)[0]",
        after="jnp.linalg.svd(x + jnp.diag(1e-3 * jnp.arange(x.shape[-1])), full_matrices=False)[0]",
        breaks_on={"x": ((1.0, 0.0), (0.0, 1.0))},
        ordinary={"x": ((2.0, 0.5), (0.5, 1.0))},
        fails="gradient",
    ),
    Hazard(
        code="ND275",
        name="log-of-determinant",
        why="a determinant leaves the range long before its logarithm does; slogdet never forms it",
        before="jnp.log(jnp.linalg.det(x))",
        after="jnp.linalg.slogdet(x)[1]",
        breaks_on={"x": ((1e-12, 0.0, 0.0, 0.0), (0.0, 1e-12, 0.0, 0.0), (0.0, 0.0, 1e-12, 0.0), (0.0, 0.0, 0.0, 1e-12))},
        ordinary={"x": ((2.0, 0.5), (0.5, 1.0))},
    ),
    Hazard(
        code="ND276",
        name="slope-of-qr-of-dependent-columns",
        why="the derivative of QR solves with R, which is singular where columns depend on one another; part them a little",
        before="jnp.linalg.qr(x)[0]",
        after="jnp.linalg.qr(x + 1e-3 * jnp.eye(*x.shape))[0]",
        breaks_on={"x": ((1.0, 0.0), (2.0, 0.0), (0.5, 0.0))},
        ordinary={"x": ((2.0, 0.5), (0.5, 1.0), (0.0, 3.0))},
        fails="gradient",
    ),
    Hazard(
        code="ND277",
        name="inverse-of-a-singular-matrix",
        why="the matrix has no inverse; a pseudo-inverse there is all the same (or solve, with a ridge: x + 1e-3 * jnp.eye(n))",
        before="jnp.linalg.inv(x)",
        after="jnp.linalg.pinv(x)",
        breaks_on={"x": ((1.0, 2.0), (2.0, 4.0))},
        ordinary={"x": ((2.0, 0.5), (0.5, 1.0))},
    ),
)
