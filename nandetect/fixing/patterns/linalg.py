"""Matrices without the factor that is asked for, or with equal eigenvalues: moved a little, they have it."""

from __future__ import annotations

from collections.abc import Iterator

import jax.numpy as jnp
from jax import Array
from jax.core import Tracer

from nandetect.fixing.forms import Env, Form, Found
from nandetect.fixing.look import Look, Patterns

# A part of the mean of the diagonal; and what parts equal eigenvalues.
JITTER, PARTED = 1e-5, 1e-3


def indefinite(look: Look) -> Iterator[Found]:
    """A Cholesky factor of a matrix that rounding left an eigenvalue at or below 0."""
    node = look.node
    if (operands := look.origin.operands) and node in look.anchors and operands[0].min == operands[0].max == 0:
        # A part of nothing is nothing.
        yield look.advised("ND271", "the matrix is 0 and so is its trace, so add a number")
        return
    look.begin()
    x = look.leaf(node.ins[0], node)

    def value(env: Env) -> Array:
        matrix = env[x]
        size = matrix.shape[-1]
        mean = jnp.trace(matrix, axis1=-2, axis2=-1)[..., None, None] / size
        return look.rebound(env, [node.ins[0]], [matrix + JITTER * mean * jnp.eye(size, dtype=matrix.dtype)])

    n = f"{{{x}}}.shape[-1]"
    text = f"jnp.linalg.cholesky({{{x}}} + {JITTER:g} * jnp.trace({{{x}}}) / {n} * jnp.eye({n}))"
    yield look.found(Form(value, text), "shift", "ND271")


def equal_values(look: Look) -> Iterator[Found]:
    """The slope of eigenvalues or singular values of which two are equal."""
    yield from _parted(look, "ND274" if look.node.name == "svd" else "ND273")


def _parted(look: Look, code: str) -> Iterator[Found]:
    """A factorization of the matrix with its columns parted a little."""
    node = look.node
    look.begin()
    x = look.leaf(node.ins[0], node)

    def value(env: Env) -> list[Array]:
        matrix = env[x]
        parted = jnp.eye(*matrix.shape[-2:], dtype=matrix.dtype) * (PARTED * jnp.arange(matrix.shape[-1]))
        return look.rebound_all(env, [node.ins[0]], [matrix + parted.astype(matrix.dtype)])

    text = f"{{{x}}} + jnp.eye(*{{{x}}}.shape[-2:]) * ({PARTED:g} * jnp.arange({{{x}}}.shape[-1]))"
    yield look.found(Form(value, text), "shift", edits={x: text}, at_anchor=node, code=code)


def inverse(look: Look) -> Iterator[Found]:
    """The inverse of a matrix that has none: what is solved for is the identity."""
    node = look.node
    if not any(event.primitive == "lu" for event in look.cause) and look.origin.primitive != "lu":
        return
    if _is_identity(look, node.ins[-1]):
        yield look.advised("ND277")


def _is_identity(look: Look, value: Array) -> bool:
    """Whether a value is made of nothing but counts that are compared, as `eye` makes it."""
    made = look.graph.upstream(value, (), most=10)
    return any(node.name == "eq" for node in made) and all(
        isinstance(x, Tracer) is False or look.graph.maker(x) for n in made for x in n.ins
    )


def dependent_columns(look: Look) -> Iterator[Found]:
    """The slope of QR where R is singular."""
    if look.origin.phase == "forward" and look.origin.derivative_of is None:
        return
    yield from _parted(look, "ND276")


def log_of_determinant(look: Look) -> Iterator[Found]:
    """log(det(x)): the determinant leaves the range long before its logarithm does."""
    made = look.graph.maker(look.graph.moved(look.node.ins[0]))
    if made is None or made.called not in ("det", "_det"):
        return
    look.begin()
    x = look.leaf(made.ins[0])

    def value(env: Env) -> Array:
        sign, logarithm = jnp.linalg.slogdet(env[x])
        # Of a negative determinant there is no logarithm, and there is to be none.
        return jnp.where(sign >= 0, logarithm, jnp.nan)

    yield look.found(Form(value, f"jnp.linalg.slogdet({{{x}}})[1]"), "same", "ND275")


PATTERNS: Patterns = {
    "cholesky": (indefinite,),
    "eigh": (equal_values,),
    "svd": (equal_values,),
    "qr": (dependent_columns,),
    "custom_linear_solve": (inverse,),
    "log": (log_of_determinant,),
}
