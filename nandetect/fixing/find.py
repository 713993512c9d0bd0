"""The hazards at the place of a fault, the most telling first."""

from __future__ import annotations

from collections.abc import Iterator

from nandetect.fixing.forms import Found
from nandetect.fixing.graph import Graph, Node
from nandetect.fixing.look import Look, Pattern
from nandetect.fixing.patterns import (
    branches,
    divisors,
    edges,
    infinities,
    integers,
    limits,
    linalg,
    logs,
    lookups,
    loops,
    quotients,
    roots,
    rules,
    widths,
)
from nandetect.program import sources
from nandetect.records import Event, Report, Source

# What is the same function comes first, then what differs only where it breaks, then what needs more than a number, then what needs one.
ORDER = {"same": 0, "guard": 1, "advice": 2, "bound": 3, "shift": 4}
PATTERNS: dict[str, list[Pattern]] = {}
for module in (logs, limits, divisors, quotients, roots, branches, infinities, edges, widths, linalg, loops, lookups, integers):
    for primitive, patterns in module.PATTERNS.items():
        PATTERNS.setdefault(primitive, []).extend(patterns)


def find(graph: Graph, report: Report) -> list[Found]:
    """The forms that may stand in for an operation that the fault's own value is in, or for what made its operands."""
    anchors = anchors_of(graph, report.origin)
    above = [node for event in report.cause for node in anchors_of(graph, event)]
    below = [one for anchor in anchors for one in graph.descendants(anchor)]
    roots = list({node.number: node for node in (*anchors, *above, *below)}.values())
    found: list[Found] = list(rules.own_rule(graph, report.origin))
    for node in roots:
        if node.is_derivative:
            continue
        for one in at(graph, node, report, anchors):
            if node in anchors or node in above or not covered(graph, one).isdisjoint(anchors):
                found.append(one)
    return sorted(_once(found), key=lambda one: (ORDER[one.kind], one.form.other is not None, _is_general(one), -one.root.number))


def at(graph: Graph, node: Node, report: Report, anchors: list[Node]) -> Iterator[Found]:
    """The forms that may stand in for one operation."""
    for pattern in PATTERNS.get(node.name, ()):
        look = Look(graph, node, report.origin, anchors, report.cause)
        try:
            yield from pattern(look)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            # A pattern that meets what it does not know has found nothing.
            continue


def anchors_of(graph: Graph, origin: Event) -> list[Node]:
    """The operations of the user's that the fault was made in."""
    if origin.source is None:
        return []
    here = [node for node in graph.nodes if not node.is_derivative and is_there(node.source, origin.source)]
    # Of a derivative it is known what it is one of; its own primitive may stand there too, and be sound.
    named = [node for node in here if node.name == (origin.derivative_of or origin.primitive)]
    return named or here


def is_there(source: Source | None, place: Source | None) -> bool:
    """Whether two sources are one expression."""
    return source is not None and place is not None and sources.place(source) == sources.place(place)


def covered(graph: Graph, found: Found) -> set[Node]:
    """The operations that a form stands in for."""
    return set(graph.cone(found.root, list(found.leaves.values()))[0])


def _is_general(found: Found) -> bool:
    return found.code in ("ND211", "ND213", "ND217", "ND218", "ND219", "ND239", "ND267")


def _once(found: list[Found]) -> list[Found]:
    """One of each hazard for each place: a form is met again where an inner jit is opened."""
    kept: dict[tuple[object, ...], Found] = {}
    for one in found:
        source = one.root.source
        kept.setdefault((one.code, one.kind, sources.place(source) if source else None, one.root.name, one.form.text), one)
    return list(kept.values())
