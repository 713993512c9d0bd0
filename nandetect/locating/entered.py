"""The way back through what a walk entered: calls and branches, equation by equation, and the shards of a `shard_map`."""

from __future__ import annotations

from nandetect import compat, primitives
from nandetect.compat import Var
from nandetect.interpret import shards
from nandetect.interpret.walk import Run
from nandetect.locating.tracked import Asked, Wanted, merge
from nandetect.locating.trail import ENTERED, RULES, Led, Node, Trail


@RULES.rule("shard_map")
def through_shards(trail: Trail, node: Node, asked: Asked, asker: Node | None) -> list[Led] | None:
    """Into the body of a `shard_map`, over elements stacked by shard; not where other processes hold some of the shards."""
    key = (id(node.run), node.number)
    if key not in trail.shards:
        body = shards.opened(node.run, node.number)
        trail.shards[key] = [body] if body is not None else []
    for body in trail.shards[key]:
        spread = body.spread
        assert spread is not None
        stacked = {output: {use: spread.split(mask, output) for use, mask in elements.items()} for output, elements in asked.items()}
        left = into(trail, body, stacked, asker)
        return [(slot, {use: spread.join(mask, slot) for use, mask in elements.items()}, reader) for slot, elements, reader in left]
    return None


@RULES.rule("cond")
def through_branches(trail: Trail, node: Node, asked: Asked, asker: Node | None) -> list[Led] | None:
    """Into the branch that ran; inside a `shard_map` into each, with the elements of the shards that took it."""
    if not node.run.shards or not primitives.of(node.eqn).branches:
        return through_call(trail, node, asked, asker)
    key = (id(node.run), node.number)
    if key not in trail.shards:
        trail.shards[key] = shards.branches(node.run, node.number)
    led: list[Led] = []
    for child in trail.shards[key]:
        own = {output: _on(child, elements) for output, elements in asked.items()}
        wanted = {output: elements for output, elements in own.items() if elements}
        led += into(trail, child, wanted, asker) if wanted else []
    return led


def _on(run: Run, elements: Wanted) -> Wanted:
    """Those of some elements that lie on shards which run it."""
    assert run.spread is not None
    own = {use: (mask.T & run.spread.lanes).T for use, mask in elements.items()}
    return {use: mask for use, mask in own.items() if mask.any()}


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
