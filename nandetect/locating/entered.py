"""The way back through what a walk entered: calls and branches, equation by equation, and the shards of a `shard_map`."""

from __future__ import annotations

from nandetect import compat
from nandetect.compat import Var
from nandetect.interpret import shards
from nandetect.interpret.walk import Run
from nandetect.locating.tracked import Asked, Wanted, merge
from nandetect.locating.trail import ENTERED, RULES, Led, Node, Trail


@RULES.rule("shard_map")
def through_shards(trail: Trail, node: Node, asked: Asked, asker: Node | None) -> list[Led] | None:
    """Into the body of a `shard_map`, over elements stacked by shard; not where other processes hold some of the shards."""
    eqn, key = node.eqn, (id(node.run), node.number)
    if not shards.can_enter(eqn):
        return None
    if key not in trail.shards:
        trail.shards[key] = shards.opened(node.run, node.number)
    stacked = {output: {use: shards.split(eqn, mask, output) for use, mask in elements.items()} for output, elements in asked.items()}
    left = into(trail, trail.shards[key], stacked, asker)
    return [(slot, {use: shards.join(eqn, mask, slot) for use, mask in elements.items()}, reader) for slot, elements, reader in left]


@RULES.rule(ENTERED)
def through_call(trail: Trail, node: Node, asked: Asked, asker: Node | None) -> list[Led] | None:
    """Into the jaxpr of an equation that the walk ran equation by equation; None where it ran whole."""
    child = node.run.inner.get(node.number)
    return None if child is None else into(trail, child, asked, asker)


def into(trail: Trail, child: Run, asked: Asked, asker: Node | None) -> list[Led]:
    """Follow the wanted results of a run back to the operands of the equation that it ran for."""
    wanted: dict[Var, Wanted] = {}
    for output, elements in asked.items():
        atom = child.jaxpr.outvars[output]
        if isinstance(atom, compat.Literal):
            trail.written(child, atom, elements, _around(child))
        else:
            merge(wanted.setdefault(atom, {}), elements)
    left = trail.follow(child, wanted, dict.fromkeys(wanted, asker))
    slots = dict(zip(child.jaxpr.invars, child.operands, strict=True))
    for var, (elements, reader) in left.items():
        if var not in slots:
            trail.arrived(child, var, elements, reader)
    return [(slots[var], elements, reader) for var, (elements, reader) in left.items() if var in slots]


def _around(child: Run) -> Node | None:
    """The equation that a run was entered from."""
    return Node(child.parent, child.path[-2]) if child.parent is not None else None
