"""The way back of one element through a loop: to the iteration that made it what it is, which alone is replayed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from nandetect import compat, nonfinite, primitives
from nandetect.compat import Atom
from nandetect.interpret import loops
from nandetect.interpret.loops import Loop
from nandetect.interpret.walk import Run
from nandetect.locating.trail import Node

Index = tuple[int, ...]
# An element of a variable or literal in a run.
Place = tuple[Run, Atom, Index]
# Whether a carried element is still what is being explained: negative, or this very number.
Holds = Callable[[np.generic], bool]


class Loops:
    """The loops that were opened on the way, each once: by their equations, or as a trail has opened them before."""

    def __init__(self, before: Mapping[tuple[int, int], Loop] | None = None):
        self._before, self._opened = before or {}, dict[Node, Loop]()

    def of(self, node: Node) -> Loop:
        """The loop that an equation is."""
        if node not in self._opened:
            before = self._before.get((id(node.run), node.number))
            self._opened[node] = before or loops.opened(node.run, node.number)
        return self._opened[node]


def around(run: Run, atom: Atom) -> Node | None:
    """The loop whose iteration a run is, for one of its arguments; else None."""
    inside = run.parent is not None and run.entry is not None and primitives.named(run.entry[0]).loops
    given = not isinstance(atom, compat.Literal) and atom in run.jaxpr.invars
    return Node(run.parent, run.path[-2]) if inside and given and run.parent is not None else None


def into(node: Node, result: int, index: Index, holds: Holds, opened: Loops) -> Place:
    """From an element of a loop's result into the iteration that made it, or to what the loop began with."""
    loop = opened.of(node)
    if result < loop.carry:
        return _carried(node, result, index, loop.ran(), holds, opened)
    run = loops.iteration(node.run, node.number, loop, loop.step(index[loop.axis])).run
    return run, run.jaxpr.outvars[result], (*index[: loop.axis], *index[loop.axis + 1 :])


def before(run: Run, atom: Atom, index: Index, holds: Holds, opened: Loops) -> Place | None:
    """From an element of an argument of an iteration out of the loop, or into the iteration that made it; None where it is none."""
    node = around(run, atom)
    if node is None:
        return None
    loop, argument, step = opened.of(node), list[Atom](run.jaxpr.invars).index(atom), run.order[-1]
    position = argument - len(loop.consts)
    if position < 0:
        return node.run, node.eqn.invars[loop.first_const + argument], index
    if position < loop.carry:
        return _carried(node, position, index, step, holds, opened)
    outside = node.eqn.invars[loop.first_carry + position]
    return node.run, outside, (*index[: loop.axis], loop.row(step), *index[loop.axis :])


def _carried(node: Node, position: int, index: Index, stop: int, holds: Holds, opened: Loops) -> Place:
    """Where a carried element came to be what it is before an iteration: in an earlier one, or before the loop."""
    loop = opened.of(node)
    step = _since(loop, position, index, stop, holds) - 1
    if step < 0:
        return node.run, node.eqn.invars[loop.first_carry + position], index
    run = loops.iteration(node.run, node.number, loop, step).run
    return run, run.jaxpr.outvars[position], index


def _since(loop: Loop, position: int, index: Index, stop: int, holds: Holds) -> int:
    """The first iteration before which a carried element was what it is before `stop`: nearer and nearer steps back are looked at."""
    width, held = 1, stop
    while held > 0:
        earlier = max(stop - width, 0)
        if not holds(nonfinite.host(loop.at(earlier)[0][position])[index]):
            break
        held, width = earlier, 2 * width
    else:
        return 0
    while held - earlier > 1:
        middle = (held + earlier) // 2
        if holds(nonfinite.host(loop.at(middle)[0][position])[index]):
            held = middle
        else:
            earlier = middle
    return held


def began_with(run: Run, atom: Atom, index: Index, opened: Loops) -> float | None:
    """What a loop began with in the place of an element that it carries; None for an argument that is not carried."""
    node = around(run, atom)
    loop = opened.of(node) if node is not None else None
    position = -1 if loop is None else list[Atom](run.jaxpr.invars).index(atom) - len(loop.consts)
    if loop is None or not 0 <= position < loop.carry:
        return None
    first = nonfinite.host(loop.init[position])[index]
    return float(np.abs(first)) if np.iscomplexobj(first) else float(first)
