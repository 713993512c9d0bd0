"""The way back through a loop: each carried element leads to the iteration that made it bad, which alone is replayed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nandetect import compat, nonfinite, primitives
from nandetect.compat import Atom, Var
from nandetect.interpret import compiled, loops
from nandetect.interpret.loops import Loop
from nandetect.interpret.walk import Run
from nandetect.locating.tracked import Asked, Wanted, merge
from nandetect.locating.trail import RULES, Led, Node, Trail
from nandetect.nonfinite import Mask
from nandetect.primitives import Use

# The most replays for one loop: a carried value that wanders from element to element asks for one at each.
REPLAYS = 256
# The most iterations that one result's elements are followed into; from so many pending on, the earliest is replayed first.
AT_ONCE = 4


class Back:
    """One loop on one trail: the iterations still to be replayed, each with the elements of its results that are wanted."""

    def __init__(self, trail: Trail, node: Node):
        self.trail, self.node = trail, node
        key = (id(node.run), node.number)
        if key not in trail.loops:
            trail.loops[key] = loops.opened(node.run, node.number)
        self.loop: Loop = trail.loops[key]
        self.pending: dict[int, dict[int, Wanted]] = {}
        self.askers: dict[tuple[int, int], Node | None] = {}
        self.led: list[Led] = []

    def want(self, step: int, result: int, elements: Wanted, asker: Node | None) -> None:
        """Ask for elements of a result of the body at an iteration."""
        merge(self.pending.setdefault(step, {}).setdefault(result, {}), elements)
        self.askers.setdefault((step, result), asker)

    def want_carried(self, position: int, elements: Wanted, since: np.ndarray, asker: Node | None) -> None:
        """Send each carried element to the iteration since which it is bad, or out to the loop's operand."""
        for use, mask in elements.items():
            for step in np.unique(since[mask])[:AT_ONCE]:
                of_step = mask & (since == step)
                if step < 0:
                    self.led.append((self.loop.first_carry + position, {use: of_step}, asker))
                else:
                    self.want(int(step), position, {use: of_step}, asker)

    def replay_all(self) -> None:
        """Replay what is pending, and what that leads to."""
        for _ in range(REPLAYS):
            if not self.pending:
                break
            self.replay(max(self.pending) if len(self.pending) < AT_ONCE else min(self.pending))

    def replay(self, step: int) -> None:
        """Run one iteration equation by equation and follow what is wanted of it."""
        loop, wanted = self.loop, self.pending.pop(step)
        iteration = loops.iteration(self.node.run, self.node.number, loop, step)
        child = iteration.run
        if not child.shards and not _shows(child, wanted):
            child = compiled.run(child, iteration.args)
            self.trail.compiled_only = True
        atoms: dict[int, Atom] = {result: child.jaxpr.outvars[result] for result in wanted}
        asked: dict[Var, Wanted] = {}
        for result, atom in atoms.items():
            if isinstance(atom, compat.Literal):
                self.trail.written(child, atom, wanted[result], self.node)
            else:
                merge(asked.setdefault(atom, {}), wanted[result])
        askers = {atom: self.askers[step, result] for result, atom in atoms.items() if not isinstance(atom, compat.Literal)}
        for var, (elements, asker) in self.trail.follow(child, asked, askers).items():
            if var in child.jaxpr.invars:
                self.leave(child.jaxpr.invars.index(var), elements, asker, iteration.since, loop.row(step))
            else:
                self.trail.arrived(child, var, elements, asker)

    def leave(self, argument: int, elements: Wanted, asker: Node | None, since: Sequence[np.ndarray], row: int) -> None:
        """Go on from an argument of the body: to the loop's operand, or to the iteration that carried it there."""
        loop = self.loop
        consts = len(loop.consts)
        if argument < consts:
            self.led.append((loop.first_const + argument, elements, asker))
        elif argument < consts + loop.carry:
            self.want_carried(argument - consts, elements, since[argument - consts], asker)
        else:
            slot = loop.first_carry + argument - consts
            for use, mask in elements.items():
                self.led.append((slot, {use: loop.as_row(mask, row)}, asker))


@RULES.rule("scan", "while")
def through_iterations(trail: Trail, node: Node, asked: Asked, asker: Node | None) -> list[Led] | None:
    """Follow the wanted results of a loop back to its operands, through the iterations that carried them."""
    if not primitives.of(node.eqn).loops:
        return None
    back = Back(trail, node)
    loop = back.loop
    if any(result < loop.carry for result in asked):
        _, since = loop.at(loop.length)
        for result, elements in asked.items():
            if result < loop.carry:
                back.want_carried(result, elements, since[result], asker)
    for result, elements in asked.items():
        if result >= loop.carry:
            for use, mask in elements.items():
                rows = np.flatnonzero(np.moveaxis(mask, loop.axis, 0).reshape(loop.length, -1).any(axis=1))
                for step in sorted(loop.step(int(row)) for row in rows)[:AT_ONCE]:
                    back.want(step, result, {use: loop.of_row(mask, loop.row(step))}, asker)
    back.replay_all()
    # Results that are still pending are not passed over in silence: a trail without births has the loop as their birthplace.
    trail.unfollowed += [(node, result, elements) for wanted in back.pending.values() for result, elements in wanted.items()]
    return back.led


def out_of_the_loop(trail: Trail, iteration: Run, argument: int, mask: Mask, asker: Node | None) -> list[tuple[int, Mask]]:
    """From elements of an argument of an iteration to the loop's operands that they came from, through the iterations that carried them."""
    assert iteration.parent is not None
    back, step = Back(trail, Node(iteration.parent, iteration.path[-2])), iteration.order[-1]
    since = loops.iteration(back.node.run, back.node.number, back.loop, step).since
    back.leave(argument, {Use.COMPUTED: mask}, asker, since, back.loop.row(step))
    back.replay_all()
    return [(slot, np.logical_or.reduce(list(elements.values()))) for slot, elements, _ in back.led]


def _shows(run: Run, wanted: Asked) -> bool:
    """Whether a replay has something non-finite among the wanted elements of each result."""
    return all(
        bool((nonfinite.bad(run.read(run.jaxpr.outvars[result])) & mask).any())
        for result, elements in wanted.items()
        for mask in elements.values()
    )
