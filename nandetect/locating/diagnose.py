"""`diagnose`: run the step as it is; where it returned what is not finite, run it again, equation by equation, and follow that back."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from nandetect import compat, nonfinite, primitives
from nandetect.annotations import Array, Pytree
from nandetect.compat import Atom, Jaxpr, Var
from nandetect.interpret import compiled, walk
from nandetect.interpret.walk import Run, variables
from nandetect.locating import births, excess_precision, reporting
from nandetect.locating.origin import Verdict, is_broken
from nandetect.locating.trail import Arrival, Birth, Trail
from nandetect.primitives import Use
from nandetect.program.phase import Phases
from nandetect.program.trace import Program, trace
from nandetect.program.user_names import named
from nandetect.records import Event, Phase, Report

# The order in which symptoms are judged, by the phase that made them.
RANK: dict[Phase, int] = {"forward": 0, "backward": 1, "update": 2}


def takes_gradients(function: Callable[..., Pytree], args: tuple[Pytree, ...], kwargs: dict[str, Pytree]) -> bool:
    """Whether a step differentiates."""
    return Phases(trace(function, args, kwargs).jaxpr).differentiates


def diagnose(
    program: Program,
    strict: bool = False,
    beside: Collection[int] = (),
    placeholders: Collection[Atom] | None = None,
    wanted: Callable[[Event], bool] = lambda origin: True,
) -> Report | None:
    """`locate` for a step that is traced already. The results `beside` are left out, whatever they hold.

    Where the origin is none that is `wanted`, there is no report.

    With `placeholders`, the arguments whose NaN is state, so is one that is written in the program and that nothing chose.
    """
    inexact = [(number, value) for number, value in enumerate(program.call()) if number not in beside and nonfinite.is_inexact(value)]
    broken = [number for number, value in inexact if not nonfinite.is_clean(value)]
    if not broken and not strict:
        return None
    phases = Phases(program.jaxpr, program.retrace)
    returned = dict(inexact)
    verdict = _follow(program, phases, broken, returned)
    while placeholders is not None and verdict is not None and _is_placeholder(verdict.trail, placeholders):
        broken = [number for number in broken if number not in verdict.symptoms]
        verdict = _follow(program, phases, broken, returned)
    if verdict is not None:
        program = named(program)
        return reporting.report(program, reporting.lens(program, phases), verdict, broken, wanted)
    return _strictly(program, phases) if strict else None


def _follow(program: Program, phases: Phases, broken: list[int], returned: Mapping[int, Array]) -> Verdict | None:
    """The verdict on the first group of symptoms (forward, backward, update) that is a fault and not state passing through.

    `returned` is what the step gave, by the numbers of its results.
    """
    ranks = _ranks(program.jaxpr, phases)
    for rank in sorted({ranks[number] for number in broken}):
        group = [number for number in broken if ranks[number] == rank]
        top = walk.begin(program)
        walk.run(top, program.args, frozenset(_results(program, group)))
        shown = [number for number in group if not nonfinite.is_clean(top.read(program.jaxpr.outvars[number]))]
        verdict = _judge(program, top, shown) if shown else None
        if verdict is not None:
            return _standing(program, verdict) if program.is_compiled else verdict
        if not shown:
            return _compiled(program, group) or Verdict(top, Trail(), group, returned=returned[group[0]])
    return None


def _results(program: Program, group: Sequence[int]) -> list[Var]:
    """The variables of some results; a literal is none."""
    return variables([program.jaxpr.outvars[number] for number in group])


def _judge(program: Program, top: Run, group: list[int]) -> Verdict | None:
    trail, faults = Trail(), []
    for number in group:
        single = trail.beside()
        single.symptom(top, program.jaxpr.outvars[number])
        if _is_fault(single):
            faults.append(number)
            trail.add(single)
    return Verdict(top, trail, faults, trail.compiled_only) if faults else None


def _is_fault(trail: Trail) -> bool:
    """An inf that arrived or was written down, and was only copied, selected, compared or shifted in log space, is state."""
    if trail.births:
        return True
    return any(is_broken(arrival) for arrival in trail.arrivals) or any(
        arrival.use is Use.COMPUTED or nonfinite.nans(arrival.value).any() for arrival in trail.literals
    )


def _is_placeholder(trail: Trail, placeholders: Collection[Atom]) -> bool:
    """Whether a trail reached nothing but what was only moved: arguments that are state, and literals that no selection or branch chose."""
    reached = [*trail.arrivals, *trail.literals]
    if trail.births or not reached or any(arrival.use is not Use.MOVED for arrival in reached):
        return False
    return all(arrival.atom in placeholders for arrival in trail.arrivals) and not any(
        _is_chosen(trail, literal) for literal in trail.literals
    )


def _is_chosen(trail: Trail, arrival: Arrival) -> bool:
    run, passed = arrival.run, trail.chain(arrival.node) if arrival.node else []
    while run is not None:
        if run.entry is not None and not primitives.named(run.entry[0]).loops:
            return True
        run = run.parent
    return any(primitives.of(node.eqn).selects for node in passed)


def _standing(program: Program, verdict: Verdict) -> Verdict:
    """The verdict without its first births, as long as the compiled program does not have them; if it has none, the compiled run's own."""
    trail = verdict.trail
    symptoms = [program.jaxpr.outvars[number] for number in verdict.symptoms]
    dropped: list[Birth] = []
    for birth in sorted(trail.births, key=lambda birth: birth.node.order):
        chain = trail.chain(birth.node)
        if not excess_precision.is_doubtful(chain) or excess_precision.stands(trail, chain, verdict.run, program.args, symptoms):
            # A birth that was dropped before is real too where its value led to this one.
            trail.births += [earlier for earlier in dropped if birth.node in trail.chain(earlier.node)]
            return verdict
        trail.births.remove(birth)
        dropped.append(birth)
    if trail.arrivals or trail.literals:
        return verdict
    again = _compiled(program, verdict.symptoms)
    return replace(again, compiled_only=False) if again else verdict


def _compiled(program: Program, group: list[int]) -> Verdict | None:
    """The verdict on a compiled run that shows the symptoms: fewer values are kept until one does, since keeping hinders the compiler."""
    for depth in (None, 64, 16, 4, 2, 1):
        kept = None if depth is None else _upstream(program, group, depth)
        top = compiled.run(walk.begin(program), program.args, (lambda var: True) if kept is None else kept.__contains__)
        shown = [
            number
            for number in group
            if top.knows(program.jaxpr.outvars[number]) and not nonfinite.is_clean(top.read(program.jaxpr.outvars[number]))
        ]
        verdict = _judge(program, top, shown) if shown else None
        if verdict is not None:
            verdict.compiled_only = True
            return verdict
    return None


def _upstream(program: Program, group: list[int], depth: int) -> set[Var]:
    """The symptoms' variables and those that the last `depth` equations before them read."""
    kept = {*_results(program, group), *program.jaxpr.invars}
    left = depth
    for eqn in reversed(program.jaxpr.eqns):
        if left and kept & set(eqn.outvars):
            kept |= set(variables(eqn.invars))
            left -= 1
    return kept


def _ranks(jaxpr: Jaxpr, phases: Phases) -> dict[int, int]:
    """For each result, the rank of the phase that makes it."""
    return {result: RANK[_making(jaxpr, result, (), phases)] for result in range(len(jaxpr.outvars))}


def _making(jaxpr: Jaxpr, result: int, path: tuple[int, ...], phases: Phases) -> Phase:
    """The phase of the equation that makes a result of a jaxpr, looked up inside calls; forward for one that no equation makes."""
    atom = jaxpr.outvars[result]
    number = Run(jaxpr, []).maker(atom)
    if number is None or isinstance(atom, compat.Literal):
        return phases.of(path[:-1]) if path else "forward"
    eqn, own_path = jaxpr.eqns[number], (*path, number)
    subs = compat.sub_jaxprs(eqn)
    if len(subs) == 1:
        inner, _ = compat.open_jaxpr(subs[0][1])
        if len(inner.outvars) == len(eqn.outvars):
            return _making(inner, eqn.outvars.index(atom), (*own_path, 0), phases)
    return phases.of(own_path)


def _strictly(program: Program, phases: Phases) -> Report | None:
    """Benign births as faults: the first of the run, whether or not anything that the user sees descends from it."""
    top = walk.begin(program)
    walk.run(top, program.args)
    places = births.births(top, in_loops=True)
    if not places:
        return None
    return reporting.of_births(program, reporting.lens(program, phases), places)
