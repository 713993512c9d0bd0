"""The same hazard elsewhere in the step: the places that are not kept off its edge, and whether each breaks in this run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

from jax import Array

from nandetect import compat
from nandetect.fixing.find import find, is_there
from nandetect.fixing.forms import Found
from nandetect.fixing.graph import Graph, Node
from nandetect.fixing.look import Look
from nandetect.interpret import walk
from nandetect.locating import births
from nandetect.program import sources
from nandetect.program.sources import Expression
from nandetect.program.trace import Program
from nandetect.records import Elsewhere, Event, Report, Source

# The most places that are looked at, and for how many seconds.
MOST, SECONDS = 24, 1.0
# Which operand of an operation brings it to its edge, and what is said of one that can be there.
ROOT = "take `{}` of what can be 0"
END = "take `{}` of what can be 1 or -1"
EDGES: dict[str, tuple[int, str]] = {
    **{name: (0, ROOT) for name in ("sqrt", "cbrt", "log", "log2", "lgamma", "digamma")},
    "pow": (0, "take a power of what can be 0"),
    "div": (1, "divide by what can be 0"),
    "integer_pow": (0, "divide by what can be 0"),
    "rsqrt": (0, "divide by what can be 0"),
    **{name: (0, END) for name in ("acos", "asin", "atanh", "erf_inv")},
    "log1p": (0, "take `log1p` of what can be -1"),
    "exp": (0, "take `exp` of what can be large"),
}
WRITTEN = "are written this way"
# What is never 0 but by underflow, and what is not below 0 where its operands are not.
POSITIVE = ("exp", "exp2", "cosh", "logistic")
PASSES = ("sqrt", "abs", "square", "reduce_sum", "reduce_max", "reduce_min", "cumsum", "neg", "rsqrt")


def elsewhere(program: Program, report: Report, graph: Graph, found: Found) -> tuple[Elsewhere, ...]:
    """The other places of a hazard that was found at the origin, in the order of their lines."""
    key = found.at_anchor or found.root
    if key.name not in EDGES or report.origin.source is None:
        return ()
    sites = _sites(graph, report, found, key)
    if report.origin.derivative_of is not None or report.origin.phase == "backward":
        differentiated = _differentiated(program)
        sites = [site for site in sites if sources.place(site.source) in differentiated]
    if not sites:
        return ()
    broken = _broken(program)
    told = [replace(site, at_edge=sources.place(site.source) in broken) for site in sites]
    return tuple(sorted(told, key=lambda site: (site.source.file, site.source.line, site.source.column or 0)))


def _sites(graph: Graph, report: Report, found: Found, key: Node) -> list[Elsewhere]:
    """Where else the hazard is found, as if an operation of the same kind had broken there."""
    began, kept, seen = time.monotonic(), list[Elsewhere](), set[Expression]()
    is_written_so = found.kind == "same"
    what = WRITTEN if is_written_so else EDGES[key.name][1].format(key.name)
    for node in graph.nodes:
        source = node.source
        if source is None or node.name != key.name or node.is_derivative or sources.place(source) in seen:
            continue
        seen.add(sources.place(source))
        if is_there(source, report.origin.source) or is_there(source, key.source) or (not is_written_so and is_kept_off(graph, node)):
            continue
        if len(kept) >= MOST or time.monotonic() - began > SECONDS:
            break
        others = find(graph, _as_if_there(report, node, source))
        alike = (one for one in others if (one.code == found.code if is_written_so else _has_its_edge(one, node)))
        if (one := next(alike, None)) is not None:
            kept.append(Elsewhere(code=one.code, primitive=node.name, what=what, source=source.frame))
    return kept


def _has_its_edge(found: Found, node: Node) -> bool:
    return found.kind != "same" and (found.at_anchor or found.root) is node


def _as_if_there(report: Report, node: Node, source: Source) -> Report:
    origin = report.origin
    derivative = node.name if origin.derivative_of is not None else None
    event: Event = replace(origin, source=source, primitive=node.name, derivative_of=derivative, operands=())
    return replace(report, origin=event, cause=())


def is_kept_off(graph: Graph, node: Node) -> bool:
    """Whether the operand of an operation cannot be at its edge: it is bounded, shifted, or chosen with a number in place of what is."""
    operand = node.ins[EDGES[node.name][0]]
    if node.name == "exp":
        return _is_bounded_above(graph, operand)
    if node.name in ("acos", "asin", "atanh", "erf_inv", "log1p"):
        return _is_bounded(graph, operand)
    return _is_off_zero(graph, operand)


def _is_off_zero(graph: Graph, value: Array, depth: int = 8) -> bool:
    number = graph.constant(value)
    if number is not None:
        return number != 0
    node = graph.maker(value)
    if node is None or depth == 0:
        return False
    numbers = [graph.constant(x) for x in node.ins]
    # Of a `where`, a bound or a shift: the number that somebody put there is what keeps it off.
    if node.name in ("select_n", "max", "clamp", "add") and any(number is not None and number > 0 for number in numbers):
        return True
    if node.name in POSITIVE:
        return True
    if node.name in ("mul", "div"):
        return all(_is_off_zero(graph, x, depth - 1) for x in node.ins)
    if node.name in ("add", "max"):
        return any(_is_off_zero(graph, x, depth - 1) for x in node.ins)
    passes = node.name in PASSES or graph.moved(value) is not value or node.name in ("broadcast_in_dim", "reshape", "integer_pow")
    return passes and bool(node.ins) and _is_off_zero(graph, node.ins[0], depth - 1)


def _is_bounded(graph: Graph, value: Array) -> bool:
    """Whether a bound that is inside of the ends is put on a value."""
    node = graph.maker(graph.moved(value))
    if node is None or node.name not in ("min", "max", "clamp", "select_n", "mul", "tanh"):
        return False
    return any(number is not None and abs(number) < 1 for number in map(graph.constant, node.ins))


def _is_bounded_above(graph: Graph, value: Array) -> bool:
    """Whether an exponent is bounded, has its maximum taken off, or is the negative of what is not negative."""
    value = graph.moved(value)
    node = graph.maker(value)
    if node is None:
        return False
    if node.name == "neg":
        made = graph.maker(graph.moved(node.ins[0]))
        return made is not None and made.name in ("abs", "square", "integer_pow", "exp", "reduce_sum")
    if node.name == "sub":
        return Look(graph, node, Event(primitive="exp"), ()).unshifted(value) is not value
    return node.name in ("min", "clamp", "select_n", "tanh", "logistic", "log", "log1p")


def _differentiated(program: Program) -> set[Expression]:
    """The places that something is transposed at; where nothing is, those that are in a derivative in forward mode."""
    stacks: dict[Expression, str] = {}
    for path in _paths(program.jaxpr, ()):
        if (source := sources.source(path[-1], path[:-1])) is not None:
            place = sources.place(source)
            stacks[place] = stacks.get(place, "") + sources.full_stack(path)
    named = "transpose(" if any("transpose(" in stack for stack in stacks.values()) else "jvp("
    return {place for place, stack in stacks.items() if named in stack}


def _paths(jaxpr: compat.Jaxpr, around: tuple[compat.JaxprEqn, ...]) -> Iterator[tuple[compat.JaxprEqn, ...]]:
    """Every equation, with those that enclose it before it."""
    for eqn in jaxpr.eqns:
        yield (*around, eqn)
        for _, sub in compat.sub_jaxprs(eqn):
            yield from _paths(compat.open_jaxpr(sub)[0], (*around, eqn))


def _broken(program: Program) -> set[Expression]:
    """The places at which something non-finite is made of finite numbers, in a run of the program to its end."""
    top = walk.begin(program)
    walk.run(top, program.args)
    found = (sources.source(node.eqn, node.run.eqns) for node, _ in births.births(top, in_loops=True))
    return {sources.place(source) for source in found if source is not None}
