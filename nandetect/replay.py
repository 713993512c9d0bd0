"""`locate`: run the step once as it is; where it returned something non-finite, run it again, equation by equation, and follow it back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from nandetect import compat, compiled, event, probe, walk
from nandetect.names import Names
from nandetect.phase import Phases
from nandetect.program import Program, trace
from nandetect.records import Event, Phase, Report
from nandetect.trail import Arrival, Birth, Node, Trail, value_of
from nandetect.walk import Run
from nandetect.wanted import Use

RANK: dict[Phase, int] = {"forward": 0, "backward": 1, "update": 2}


def locate(function: Callable[..., Any], /, *args: Any, strict: bool = False, **kwargs: Any) -> Report | None:
    """Find the operation that first made a non-finite value which `function(*args, **kwargs)` returns.

    The step is run once as it is, compiled if it is jitted; donated arguments stay alive. Returns `None` where its result is sound,
    and where inf only passed through it (a best loss that starts at inf). With `strict`, a benign birth is a fault too: one that was
    masked, or swallowed by a cast. Raises `UsageError` where `function` cannot be called or traced with these arguments.
    """
    with compat.jax_checks_off():
        return diagnose(trace(function, args, kwargs), strict)


@dataclass
class Verdict:
    """What the trail of one run led to."""

    run: Run
    trail: Trail
    symptoms: list[int]
    compiled_only: bool = False


def diagnose(program: Program, strict: bool = False) -> Report | None:
    """`locate` for a step that is traced already."""
    outcome = program.call()
    broken = [at for at, value in enumerate(outcome) if probe.is_inexact(value) and not probe.is_clean(value)]
    if not broken and not strict:
        return None
    phases = Phases(program.jaxpr)
    verdict = _follow(program, phases, broken)
    if verdict is not None:
        return _report(program, phases, verdict, broken)
    return _strictly(program, phases) if strict else None


def _follow(program: Program, phases: Phases, broken: list[int]) -> Verdict | None:
    """The first group of symptoms (forward, backward, update) that is a fault and not state passing through."""
    ranks = _ranks(program.jaxpr, phases)
    for rank in sorted({ranks[at] for at in broken}):
        group = [at for at in broken if ranks[at] == rank]
        top = _start(program)
        walk.run(top, program.args, frozenset(program.jaxpr.outvars[at] for at in group if not _is_literal(program, at)))
        shown = [at for at in group if not probe.is_clean(top.read(program.jaxpr.outvars[at]))]
        verdict = _judge(program, top, shown) if shown else None
        if verdict is not None:
            return verdict
        if not shown:
            return _compiled(program, group) or Verdict(top, Trail(), group)
    return None


def _start(program: Program) -> Run:
    return Run(program.jaxpr, program.consts)


def _is_literal(program: Program, at: int) -> bool:
    return isinstance(program.jaxpr.outvars[at], compat.Literal)


def _judge(program: Program, top: Run, group: list[int]) -> Verdict | None:
    trail, faults = Trail(), []
    for at in group:
        one = Trail(replayed=trail.replayed)
        one.symptom(top, program.jaxpr.outvars[at])
        if _is_fault(top, one):
            faults.append(at)
            trail.births += one.births
            trail.arrivals += one.arrivals
            trail.literals += one.literals
            trail.links = {**one.links, **trail.links}
            trail.compiled_only |= one.compiled_only
    return Verdict(top, trail, faults, trail.compiled_only) if faults else None


def _is_fault(top: Run, trail: Trail) -> bool:
    """An inf that arrived or was written down, and was only copied, selected, compared or shifted in log space, is state."""
    if trail.births:
        return True
    return any(_is_broken(top, arrival) for arrival in trail.arrivals) or any(
        arrival.use is Use.COMPUTED or probe.nans(value_of(arrival.atom, top)).any() for arrival in trail.literals
    )


def _is_broken(top: Run, arrival: Arrival) -> bool:
    value = probe.host(top.read(arrival.atom))[arrival.mask] if arrival.atom in top.values else np.array([np.nan])
    if np.isnan(value).any() or arrival.use is Use.COMPUTED:
        return True
    return arrival.use is Use.SHIFTED and bool((value.real > 0).any())


def _compiled(program: Program, group: list[int]) -> Verdict | None:
    """Follow the symptoms through a compiled run that shows them, keeping as much as the compiler lets us see."""
    for depth in (None, 64, 16, 4, 2, 1):
        kept = None if depth is None else _upstream(program, group, depth)
        top = compiled.run(_start(program), program.args, (lambda var: True) if kept is None else kept.__contains__)
        shown = [at for at in group if top.knows(program.jaxpr.outvars[at]) and not probe.is_clean(top.read(program.jaxpr.outvars[at]))]
        verdict = _judge(program, top, shown) if shown else None
        if verdict is not None:
            verdict.compiled_only = True
            return verdict
    return None


def _upstream(program: Program, group: list[int], depth: int) -> set[Any]:
    """The symptoms' variables and those that the last `depth` equations before them read."""
    kept = {program.jaxpr.outvars[at] for at in group if not _is_literal(program, at)} | set(program.jaxpr.invars)
    left = depth
    for eqn in reversed(program.jaxpr.eqns):
        if left and kept & set(eqn.outvars):
            kept |= {atom for atom in eqn.invars if not isinstance(atom, compat.Literal)}
            left -= 1
    return kept


def _ranks(jaxpr: Any, phases: Phases) -> dict[int, int]:
    """For each result, the rank of the phase that makes it."""
    made = {var: number for number, eqn in enumerate(jaxpr.eqns) for var in eqn.outvars}
    ranks = {}
    for at, atom in enumerate(jaxpr.outvars):
        number = None if isinstance(atom, compat.Literal) else made.get(atom)
        ranks[at] = 0 if number is None else RANK[_making(jaxpr, number, atom, (), phases)]
    return ranks


def _making(jaxpr: Any, number: int, var: Any, path: tuple[int, ...], phases: Phases) -> Phase:
    """The phase of the equation that makes a variable, looked up inside calls."""
    eqn, here = jaxpr.eqns[number], (*path, number)
    subs = compat.sub_jaxprs(eqn)
    if len(subs) == 1:
        inner, _ = compat.open_jaxpr(subs[0][1])
        if len(inner.outvars) == len(eqn.outvars):
            atom = inner.outvars[list(eqn.outvars).index(var)]
            for at, child in enumerate(inner.eqns):
                if not isinstance(atom, compat.Literal) and atom in child.outvars:
                    return _making(inner, at, atom, (*here, 0), phases)
    return phases.of(here)


def _report(program: Program, phases: Phases, verdict: Verdict, broken: list[int]) -> Report:
    names = Names(program.jaxpr, program.arguments)
    trail = verdict.trail
    origin, node = _origin(program, phases, names, verdict)
    chain = _chain(trail, origin, node, phases, names)
    reached = {(birth.node, birth.output) for birth in trail.births}
    benign = tuple(
        event.make(Node(run, number), output, None, phases, names)
        for run, number, output in walk.births(verdict.run)
        if (Node(run, number), output) not in reached
    )
    return Report(
        origin=origin,
        chain=chain,
        symptoms=tuple(program.results[at] for at in dict.fromkeys([*verdict.symptoms, *broken])),
        benign=benign,
        reproduced=bool(trail.births or trail.arrivals or trail.literals),
        compiled_only=verdict.compiled_only,
        unseen=_unseen(program.jaxpr),
        label=program.name,
    )


def _origin(program: Program, phases: Phases, names: Names, verdict: Verdict) -> tuple[Event, Node | None]:
    top, trail = verdict.run, verdict.trail
    arrived = [arrival for arrival in trail.arrivals if _is_broken(top, arrival)]
    births = sorted(trail.births, key=lambda birth: birth.node.order)
    # An inf that arrived as state or as a mask (-inf) is no fault by itself: what made nan of it is.
    arrived = [arrival for arrival in arrived if not births or not _is_mask(top, arrival)]
    if arrived:
        arrival = min(arrived, key=lambda arrival: list(top.jaxpr.invars).index(arrival.atom) if arrival.atom in top.jaxpr.invars else 10**6)
        return event.arrival(_arrival_name(program, arrival), _arrival_value(top, arrival), arrival.mask), arrival.node
    if births:
        birth = births[0]
        return event.make(birth.node, birth.output, birth.mask, phases, names, _phase(trail, birth, phases)), birth.node
    written = [arrival for arrival in trail.literals if arrival.node is not None]
    if written:
        node = written[0].node
        assert node is not None
        twin = _chosen_over(trail, node)
        if twin is not None:
            return event.make(twin.node, twin.output, twin.mask, phases, names), twin.node
        return event.make(node, 0, None, phases, names), node
    return _unexplained(program, verdict, phases, names)


def _chosen_over(trail: Trail, node: Node) -> Birth | None:
    """The birth of the very value that a select dropped in favour of a literal: `slogdet` writes -inf where log(0) gave it anyway."""
    run, eqn = node.run, node.eqn
    if eqn.primitive.name != "select_n":
        return None
    value = probe.host(run.read(eqn.outvars[0]))
    other = Trail(replayed=trail.replayed)
    for atom in eqn.invars[1:]:
        if not isinstance(atom, compat.Literal):
            same = probe.bad(value) & (probe.host(run.read(atom)) == value)
            other.upward(run, {atom: {Use.COMPUTED: same}}, node)
    trail.links = {**other.links, **trail.links}
    return min(other.births, key=lambda birth: birth.node.order, default=None)


def _is_mask(top: Run, arrival: Arrival) -> bool:
    value = probe.host(_arrival_value(top, arrival))[arrival.mask]
    return bool(np.isneginf(value.real).all())


def _arrival_value(top: Run, arrival: Arrival) -> Any:
    return top.read(arrival.atom)


def _arrival_name(program: Program, arrival: Arrival) -> str:
    if arrival.atom in program.jaxpr.invars:
        return program.arguments[list(program.jaxpr.invars).index(arrival.atom)]
    return "a constant that the step closes over"


def _unexplained(program: Program, verdict: Verdict, phases: Phases, names: Names) -> tuple[Event, Node | None]:
    """The equation that makes the symptom, where no replay showed it."""
    var = program.jaxpr.outvars[verdict.symptoms[0]]
    for number, eqn in enumerate(program.jaxpr.eqns):
        if var in eqn.outvars:
            node = Node(verdict.run, number)
            return event.make(node, list(eqn.outvars).index(var), None, phases, names), node
    return Event(primitive="<input>"), None


def _phase(trail: Trail, birth: Birth, phases: Phases) -> Phase:
    """Forward work whose bad value only gradients took up belongs to the backward pass that took it up."""
    for node in trail.chain(birth.node):
        found = phases.of(node.path)
        if found != "forward":
            return found if found == "backward" or node == birth.node else phases.of(birth.node.path)
    return phases.of(birth.node.path)


def _chain(trail: Trail, origin: Event, node: Node | None, phases: Phases, names: Names) -> tuple[Event, ...]:
    if node is None:
        return (origin,)
    nodes = trail.chain(node)
    rest = nodes if origin.primitive == "<input>" else nodes[1:]
    return (origin, *(event.make(step, _bad_output(step), None, phases, names, brief=True) for step in rest))


def _bad_output(node: Node) -> int:
    for output, var in enumerate(node.eqn.outvars):
        if node.run.knows(var) and probe.is_inexact(var.aval) and not probe.is_clean(node.run.read(var)):
            return output
    return 0


def _strictly(program: Program, phases: Phases) -> Report | None:
    """Benign births as faults: the first of the run, whether or not anything that the user sees descends from it."""
    top = _start(program)
    walk.run(top, program.args)
    found = walk.births(top)
    if not found:
        return None
    names = Names(program.jaxpr, program.arguments)
    events = [event.make(Node(run, number), output, None, phases, names) for run, number, output in found]
    return Report(origin=events[0], chain=(events[0],), benign=tuple(events[1:]), unseen=_unseen(program.jaxpr), label=program.name)


def _unseen(jaxpr: Any) -> tuple[str, ...]:
    """The equations that hide a program of their own, by name."""
    found: dict[str, None] = {}
    for eqn in jaxpr.eqns:
        if compat.is_opaque(eqn):
            found[eqn.primitive.name] = None
        for _, sub in compat.sub_jaxprs(eqn):
            found.update(dict.fromkeys(_unseen(compat.open_jaxpr(sub)[0])))
    return tuple(found)
