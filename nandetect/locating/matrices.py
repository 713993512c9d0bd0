"""What is wrong with a whole matrix: where it stopped being positive definite, why it is singular."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from nandetect import nonfinite, primitives, wording
from nandetect.compat import Atom
from nandetect.interpret.walk import Run
from nandetect.locating import iterations
from nandetect.locating.iterations import Loops
from nandetect.locating.made import Deadly, Element, Made, maker
from nandetect.locating.trail import Node
from nandetect.program import sources

# The largest matrix whose eigenvalues are computed, the largest whose rows are compared, the most equations that are looked at on the way.
LARGEST, LARGEST_COMPARED = 512, 64
MOST_STEPS = 80
# Matrices whose halves differ by more than this share of their largest element are no covariances; rounding alone can make 0.1 of it.
SYMMETRIC = 0.3


@dataclass(frozen=True)
class Found:
    """An equation that made a matrix, an element of it, and what is wrong with the matrix."""

    node: Node
    output: int
    index: tuple[int, ...] | None
    reason: str


def indefinite(made: Made, opened: Loops) -> Found:
    """The matrix that was the first on the way to a Cholesky factor which has none: the factored one, or one that it was computed from."""
    run, batch = made.node.run, made.index[:-2]
    least, share = _smallest(nonfinite.host(made.ins[0])[batch]) or (0.0, 0.0)
    found = Found(*made.place, _reason("its matrix", least, share, made.dtype))
    # The library makes a matrix symmetric before it takes it apart.
    own_place = _place(made.node)
    pending, left = [(run, made.eqn.invars[0], 0.0)], MOST_STEPS
    while pending and left:
        left -= 1
        run, atom, bound = pending.pop(0)
        node = _maker(run, atom, opened)
        if node is None:
            continue
        matrix = nonfinite.host(node.run.read(node.eqn.outvars[0]))
        own = batch if matrix.ndim == len(batch) + 2 else ()
        known = _smallest(matrix[own]) if matrix.ndim == len(own) + 2 else None
        # What rounding alone makes negative, beside what was found, is no cause of it.
        if known is not None and known[0] <= bound and known[1] <= share / 2 and _place(node) != own_place:
            # Whatever else was to be looked at is farther from this one than its own operands.
            found, pending, share = Found(node, 0, None, _reason("the matrix", *known, made.dtype)), [], known[1]
        # What is subtracted may be singular; of a sum one has at most half of its smallest eigenvalue (Weyl).
        operands = node.eqn.invars[: 1 if node.eqn.primitive.name == "sub" else None] if _keeps_signs(node) else []
        bound = min(known[0] / 2, 0.0) if known is not None and primitives.of(node.eqn).adds else 0.0
        pending += [(node.run, operand, bound) for operand in operands if np.ndim(node.run.read(operand)) == matrix.ndim]
    return found


def _keeps_signs(node: Node) -> bool:
    """Whether an equation makes what is positive definite of what is: a sum, a product with another such (Schur), a congruence, a move."""
    record = primitives.of(node.eqn)
    return record.adds or record.multiplies or record.hands_on or record.reshapes or record.casts


def _place(node: Node) -> sources.Expression | None:
    source = sources.source(node.eqn, node.run.eqns)
    return sources.place(source) if source is not None else None


def _reason(of: str, least: float, share: float, dtype: str) -> str:
    rounding = least and abs(share) < 4 * float(jnp.finfo(dtype).eps)
    return f"the smallest eigenvalue of {of} is {wording.short(least)}" + (", 0 but for rounding" if rounding else "")


def _maker(run: Run, atom: Atom, opened: Loops) -> Node | None:
    """The equation that makes a matrix, out of the loop that carried it; None where none is known."""
    run, atom, number = maker(run, atom)
    if number is None and not run.shards and iterations.around(run, atom) is not None:
        corner = nonfinite.host(run.read(atom)).flat[0]
        place = iterations.before(run, atom, (0,) * np.ndim(run.read(atom)), lambda other: bool(other == corner), opened)
        run, atom, number = maker(*place[:2]) if place is not None else (run, atom, None)
    node = Node(run, number) if number is not None else None
    unknown = node is None or primitives.of(node.eqn).loops or len(node.eqn.outvars) != 1 or not run.knows_ins(node.eqn)
    return None if unknown else node


@dataclass(frozen=True)
class Singular:
    """Why a matrix is singular, and an element of a row or column that is all 0, to go on with; or the equation that made the matrix."""

    reason: str
    element: Element | None = None
    node: Node | None = None


def singular(made: Made, opened: Loops) -> Singular | None:
    """What is wrong with the matrix that an equation took apart; None where it has full rank."""
    whole, batch = nonfinite.host(made.ins[0]), made.index[: np.ndim(made.ins[0]) - 2]
    matrix = nonfinite.in_double(whole[batch])
    if matrix.size > LARGEST**2 or not np.isfinite(matrix).all():
        return None
    # What rounding in the matrix's own precision leaves of a singular value that is 0.
    rank = int(np.linalg.matrix_rank(matrix, rtol=max(matrix.shape) * float(jnp.finfo(whole.dtype).eps)))
    if rank == min(matrix.shape):
        return None
    for axis, side in ((1, "row"), (0, "column")):
        empty = np.flatnonzero(~matrix.any(axis=axis))
        # Rows of 0 say it all where nothing else is wrong.
        if empty.size == min(matrix.shape) - rank:
            beside = np.zeros(whole.shape, bool)
            beside[batch][empty[0] if axis else (slice(None), empty[0])] = True
            element = Element(made.node.run, made.eqn.invars[0], nonfinite.first(beside), Deadly.ZERO, beside)
            return Singular(f"{side} {empty[0]} of it is 0", element)
    node = _computed(made, opened)
    for lines, side in ((matrix, "rows"), (matrix.T, "columns")):
        equal = np.triu((lines[:, None] == lines[None]).all(axis=2), 1) if len(lines) <= LARGEST_COMPARED else np.zeros((0, 0), bool)
        if equal.any() and rank == min(matrix.shape) - 1:
            first, second = nonfinite.first(equal)
            return Singular(f"{side} {first} and {second} of it are equal", node=node)
    return Singular(f"it has rank {rank} of {min(matrix.shape)}", node=node)


def _computed(made: Made, opened: Loops) -> Node | None:
    """The equation that computed the matrix that another one took apart; None where it was given, or made by the same call."""
    node = _maker(made.node.run, made.eqn.invars[0], opened)
    while node is not None and (primitives.of(node.eqn).hands_on or primitives.of(node.eqn).reshapes):
        node = _maker(node.run, node.eqn.invars[0], opened)
    return node if node is not None and _place(node) != _place(made.node) else None


def _smallest(matrix: np.ndarray) -> tuple[float, float] | None:
    """The smallest eigenvalue of a covariance and its share of the largest; None of what is none, and of what is too large."""
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not 1 < matrix.shape[0] <= LARGEST or matrix.dtype.kind not in "fc":
        return None
    if not np.isfinite(matrix).all() or np.abs(matrix - matrix.conj().T).max() > SYMMETRIC * np.abs(matrix).max():
        return None
    values = np.linalg.eigvalsh(nonfinite.in_double(matrix))
    return float(values.min()), float(values.min() / (np.abs(values).max() or 1.0))
