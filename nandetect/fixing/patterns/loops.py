"""What a loop made, round by round, or a running sum or product: probabilities that underflow, factors that overflow."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from jax import Array

from nandetect import compat, primitives, wording
from nandetect.fixing.forms import Found
from nandetect.fixing.graph import Node
from nandetect.fixing.look import Look, Patterns

MULTIPLIES = ("mul", "dot_general", "reduce_prod")
# The most equations of a body that are looked at for one result.
MOST = 12


def underflowing_product(look: Look) -> Iterator[Found]:
    """A logarithm or a quotient of a 0 that a loop multiplied together: no form of one operation mends that."""
    node = look.node
    operand = node.ins[-1] if node.name == "div" else node.ins[0]
    if node not in look.anchors or not _is_zero(look) or (loop := made_by_a_product(look, operand)) is None:
        return
    yield look.advised("ND299", _rounds(loop))


def overflowing_product(look: Look) -> Iterator[Found]:
    """Many factors whose product leaves the range."""
    operands = look.origin.operands
    if look.node not in look.anchors or look.origin.value == "nan" or not operands:
        return
    shape, largest = look.node.ins[0].shape, operands[0].max
    axes = look.node.params.get("axes", (look.node.params.get("axis"),))
    count = math.prod(shape[axis] for axis in axes if axis is not None)
    yield look.advised("ND287", f"{count:,} factors of up to {wording.short(largest)}" if isinstance(largest, float) else "")


def divided_decay(look: Look) -> Iterator[Found]:
    """exp(A) * cumsum(x * exp(-A)) of an A that is a running sum itself."""
    total = look.negated(look.node.ins[0])
    if look.node not in look.anchors or total is None or look.op(total, "cumsum") is None:
        return
    for node in look.graph.descendants(look.node):
        factors = [look.op(x, "exp") for x in node.ins] if node.name == "mul" else []
        if any(factor is not None and look.is_same(factor.ins[0], total) for factor in factors):
            yield look.advised("ND288")
            return


def _is_zero(look: Look) -> bool:
    operands = look.origin.operands
    return bool(operands) and operands[-1 if look.node.name == "div" else 0].value == 0


def made_by_a_product(look: Look, value: Array) -> Node | None:
    """The loop that a value came out of, where what the loop hands on is multiplied with something each round."""
    for node in look.graph.upstream(value, (), most=12):
        if primitives.named(node.name).loops and any(_multiplies(*body) for body in _bodies(node)):
            return node
    return None


def _bodies(node: Node) -> list[tuple[compat.Jaxpr, list[compat.Var], list[compat.Atom]]]:
    """The bodies of a loop, each with the arguments and the results that are carried."""
    found = []
    for name in ("jaxpr", "body_jaxpr"):
        if name in node.params:
            body, _ = compat.open_jaxpr(node.params[name])
            first = int(node.params.get("num_consts", node.params.get("body_nconsts", 0)))
            count = int(node.params.get("num_carry", len(body.outvars)))
            found.append((body, list(body.invars[first : first + count]), list(body.outvars[:count])))
    return found


def _multiplies(body: compat.Jaxpr, carried: Sequence[compat.Var], results: Sequence[compat.Atom]) -> bool:
    """Whether a result is a product in which something that is carried is a factor."""
    made = {var: eqn for eqn in body.eqns for var in eqn.outvars}
    for result in results:
        open_ends = [result]
        for _ in range(MOST):
            atom = open_ends.pop() if open_ends else None
            eqn = made.get(atom) if isinstance(atom, compat.Var) else None
            if eqn is None:
                continue
            if eqn.primitive.name in MULTIPLIES:
                if any(_before_moves(x, made) in carried for x in eqn.invars if not isinstance(x, compat.Literal)):
                    return True
                open_ends += eqn.invars
            elif any(_before_moves(x, made) in carried for x in eqn.invars if not isinstance(x, compat.Literal)):
                inner = [compat.open_jaxpr(sub)[0] for _, sub in compat.sub_jaxprs(eqn)]
                if any(_multiplies(one, one.invars, one.outvars) for one in inner):
                    return True
    return False


def _before_moves(atom: compat.Atom, made: Mapping[compat.Var, compat.JaxprEqn]) -> compat.Atom:
    while isinstance(atom, compat.Var) and (eqn := made.get(atom)) is not None and primitives.of(eqn).reshapes:
        atom = eqn.invars[0]
    return atom


def _rounds(loop: Node) -> str:
    length = loop.params.get("length")
    return f"the product of {wording.counted(length, 'round')} is 0" if isinstance(length, int) else ""


PATTERNS: Patterns = {
    "log": (underflowing_product,),
    "div": (underflowing_product,),
    "reduce_prod": (overflowing_product,),
    "cumprod": (overflowing_product,),
    "exp": (divided_decay,),
}
