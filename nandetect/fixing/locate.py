"""From a report without fixes to one with them: what was proven on the user's own program first, and advice where nothing was."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import jax

from nandetect import effects, fixing, hazards
from nandetect.annotations import Pytree
from nandetect.fixing import naming, prove, sites
from nandetect.fixing.advice import advice
from nandetect.fixing.find import find
from nandetect.fixing.forms import Found
from nandetect.fixing.graph import Graph
from nandetect.interpret import callbacks
from nandetect.locating.diagnose import diagnose
from nandetect.program import mutable
from nandetect.program.trace import Program, trace
from nandetect.records import Elsewhere, Fix, Report

# Proving may take so many times as long as locating did, and this many seconds in any case.
TIMES, SECONDS = 1.0, 4.0


def locate(function: Callable[..., Pytree], /, *args: Pytree, strict: bool = False, prove: bool = True, **kwargs: Pytree) -> Report | None:
    """Find the operation that first made a non-finite value which `function(*args, **kwargs)` returns, and how to write it.

    The step is run once as it is, compiled if it is jitted; donated arguments stay alive. Returns `None` where its result is sound,
    and where inf only passed through it (a best loss that starts at inf). With `strict`, a benign birth is a fault too: one that was
    masked, or swallowed by a cast. Callbacks run once. A fix is put into the step itself and run, once more with its own derivative, which
    traces the Python of the step again and may take as long as locating did; not with `prove=False`, where fixes are advice. Raises
    `UsageError` where `function` is not callable or cannot be traced with these arguments.
    """
    began = time.monotonic()
    if mutable.are_among(jax.tree.leaves((args, kwargs))):
        function, (args, kwargs) = mutable.holding(function), mutable.held((args, kwargs), live=False)
    with effects.replay_settings():
        program = callbacks.recorded(trace(function, args, kwargs))
        report = diagnose(program, strict)
    return report and prescribed(program, report, prove, time.monotonic() - began)


def relocate(
    function: Callable[..., Pytree],
    args: tuple[Pytree, ...],
    kwargs: dict[str, Pytree],
    strict: bool = False,
    beside: Collection[int] = (),
    is_state: Callable[[object], bool] = lambda value: False,
) -> Report | None:
    """`locate` for a call that has happened already: its effects on the host are not repeated. The results `beside` are left out.

    A NaN that is written in the program and that nothing chose is state: it stands where no result is yet. So is one in an argument that
    `is_state`.
    """
    began = time.monotonic()
    with effects.replay_settings(), effects.muted_effects():
        program = callbacks.recorded(trace(function, args, kwargs), repeat=False)
        pairs = zip(program.jaxpr.invars, program.args, strict=True)
        report = diagnose(program, strict, beside, frozenset(var for var, value in pairs if is_state(value)))
    if report is None:
        return None
    # A step that is watched meets the same fault again and again: its fixes are proven once.
    key = report.label, report.origin.primitive, report.origin.phase, report.origin.source
    if key not in _PROVEN:
        told = prescribed(program, report, True, time.monotonic() - began)
        _PROVEN[key] = told.fixes, told.elsewhere
        while len(_PROVEN) > MOST_KEPT:
            del _PROVEN[next(iter(_PROVEN))]
    fixes, elsewhere = _PROVEN[key]
    return replace(report, fixes=fixes, elsewhere=elsewhere)


_PROVEN: dict[tuple[object, ...], tuple[tuple[Fix, ...], tuple[Elsewhere, ...]]] = {}
MOST_KEPT = 32


def prescribed(program: Program, report: Report, is_to_prove: bool = True, took: float = 0.0) -> Report:
    """A report with the fixes of its fault; as it is where none is known, or where finding them fails."""
    if not fixing.PRESCRIBES or report.origin.primitive == "<input>" or report.origin.source is None:
        return report
    fixes: tuple[Fix, ...] = ()
    graph, every = None, list[Found]()
    is_to_prove = is_to_prove and may_prove(report)
    try:
        with effects.replay_settings(), effects.muted_effects([]):
            _, graph = prove.seen(program)
            every = find(graph, report)
            fixes = _fixes(program, report, graph, every, is_to_prove, max(SECONDS, TIMES * took))
    # A fix is an addition to a report that stands without it.
    except Exception:
        pass
    told = replace(report, fixes=fixes or tuple(_advice(code) for code in advice(report)[:1]))
    return replace(told, elsewhere=_elsewhere(program, told, graph, every)) if is_to_prove and graph is not None else told


def _elsewhere(program: Program, report: Report, graph: Graph, every: Sequence[Found]) -> tuple[Elsewhere, ...]:
    """The other places of the first fix's hazard."""
    try:
        with effects.replay_settings(), effects.muted_effects([]):
            found = next((one for one in every if report.fixes and one.code == report.fixes[0].code), None)
            return sites.elsewhere(program, report, graph, found) if found is not None else ()
    # So is a list of other places.
    except Exception:
        return ()


def may_prove(report: Report) -> bool:
    """Whether a fix can be tried: not on one process of several, nor where the fault is the compiler's."""
    return fixing.PROVES and jax.process_count() == 1 and not report.compiled_only


def _fixes(program: Program, report: Report, graph: Graph, every: Sequence[Found], is_to_prove: bool, seconds: float) -> tuple[Fix, ...]:
    if not is_to_prove:
        return tuple(_fix(found) for found in every[:1])
    best: prove.Tried | None = None
    for tried in prove.trials(program, report, graph, every, seconds):
        if best is None or _merit(tried) > _merit(best):
            best = tried
        if tried.is_proven and len(tried.found) == 1:
            break
    if best is None:
        return ()
    return tuple(_fix(found, best) for found in (best.found if best.is_proven else best.found[:1]))


def _merit(tried: prove.Tried) -> tuple[bool, bool, bool]:
    """How good a trial is: of what is proven, what does it alone; of what is not, what mends all results, or says what would."""
    mends_all = 0 < tried.finite == tried.results or tried.found[0].kind == "advice"
    return tried.is_proven, tried.is_proven and len(tried.found) == 1, mends_all


def _fix(found: Found, tried: prove.Tried | None = None) -> Fix:
    general, before, after = _advice(found.code), naming.before(found), naming.after(found)
    own = replace(general, before=before, after=after) if before and after else general
    own = replace(own, why=f"{found.said}: {own.why}") if found.said else own
    return replace(own, proven=tried.is_proven, proof=tried.proof()) if tried is not None else own


def _advice(code: str) -> Fix:
    hazard = hazards.BY_CODE[code]
    return Fix(code=code, name=hazard.name, why=hazard.why, before=hazard.before, after=hazard.after)
