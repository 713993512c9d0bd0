"""The same hazard elsewhere in the step: the places that are not kept off its edge, and whether each breaks in this run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

from nandetect import compat
from nandetect.fixing.find import find, is_there
from nandetect.fixing.forms import Found
from nandetect.fixing.graph import Graph, Node
from nandetect.fixing.patterns.kept_off import EDGES, is_kept_off
from nandetect.interpret import walk
from nandetect.locating import births
from nandetect.program import sources
from nandetect.program.sources import Expression
from nandetect.program.trace import Program
from nandetect.records import Elsewhere, Event, Report, Source

# The most places that are looked at, and for how many seconds.
MOST, SECONDS = 24, 1.0
WRITTEN = "are written this way"


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
