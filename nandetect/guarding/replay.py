"""From recorded calls to the first one at fault: all run again from the last state that was finite, until one returns what is not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import jax
import numpy as np

from nandetect import compat, nonfinite
from nandetect.errors import Unrepeatable, UsageError
from nandetect.guarding import finite
from nandetect.guarding.links import Links
from nandetect.guarding.recorder import Arguments, Call, Habits, Window, flatten, leaves_made
from nandetect.guarding.screen import BadLeaves, bad_leaves, top
from nandetect.locating.locate import relocate
from nandetect.program.trace import trace
from nandetect.records import Event, Report, Value


@dataclass(slots=True)
class Replayed:
    """What a replay showed: the first fault, and the calls that left their state as it was, with why the first of them did."""

    report: Report | None = None
    skipped: list[int] = field(default_factory=list)
    skip: Report | None = None


def replay(step: Callable[..., object], window: Window, accepted: BadLeaves, habits: Habits, count_skips: bool = False) -> Replayed:
    """Run the calls of a window again; effects on the host are not repeated. Adds to `accepted` what is no fault.

    With `count_skips`, a call is also one that was skipped where nothing that it returned is bad and its state stayed as it was.
    """
    replayed = Replayed()
    if _is_gone(window.calls[0]):
        replayed.report = _unkept(window, "the arguments were too large to keep", "a larger `keep` lets guard hold what locating it needs")
        return replayed
    try:
        with compat.replay_settings(), compat.muted_effects():
            if habits.may_repeat:
                replayed.report = _first_fault(step, window, accepted, habits, count_skips, replayed)
            else:
                replayed.report = _fault_of_one(step, window, accepted)
    except (Unrepeatable, jax.errors.JaxRuntimeError) as error:
        replayed.report = _unkept(window, f"running it again failed ({' '.join(str(error).split())[:120]})")
    except UsageError as error:
        replayed.report = _unkept(window, str(error))
    return replayed


def _fault_of_one(step: Callable[..., object], window: Window, accepted: BadLeaves) -> Report | None:
    """The fault of the one call of a window, whose step must not be called again but to locate it."""
    (call,) = window.calls
    args, kwargs = call.arguments(())
    report = relocate(step, args, kwargs)
    if report is None:
        accepted |= bad_leaves(window.made)
        return None
    return _numbered(report, call)


def _first_fault(
    step: Callable[..., object], window: Window, accepted: BadLeaves, habits: Habits, count_skips: bool, replayed: Replayed
) -> Report | None:
    """The first fault of a window's calls, run one after another. Enters in `replayed` which calls were skipped before it."""
    out: object = None
    made: Sequence[object] = ()
    for call in window.calls:
        args, kwargs = call.arguments(_parts(call, out, made))
        given = flatten((args, kwargs))[0]
        # The step may donate or change what it is given, and locating a fault needs it afterwards.
        copied_args, copied_kwargs = jax.tree.map(nonfinite.copied, (args, kwargs))
        out = step(*copied_args, **copied_kwargs)
        made = leaves_made(out, copied_args, copied_kwargs, habits.changes_arguments)
        bad = bad_leaves(made) - accepted
        if not _is_as_recorded(call, _parts(call, out, made)):
            report = relocate(step, args, kwargs) if bad else _changed_outside(step, call, (args, kwargs), window)
            return report and _numbered(report, call)
        if (bad or count_skips) and _is_skip(habits.links, given, made, bad):
            replayed.skipped.append(call.number)
            replayed.skip = replayed.skip or relocate(step, args, kwargs, strict=not bad)
        elif bad:
            report = relocate(step, args, kwargs)
            if report is not None:
                return _numbered(report, call)
            accepted |= bad
    if bad_leaves(window.made) - accepted:
        # Every call is finite again, and what they made is not.
        return replace(_unkept(window, "the calls gave finite results when they were run again"), step=window.calls[-1].number)
    return None


def _parts(call: Call, out: object, made: Sequence[object]) -> Sequence[object]:
    """A result as `call` speaks of results: its leaves, or its elements where the call was recorded without taking it apart."""
    return top(out, call.is_whole) if call.tree is None else made


def _numbered(report: Report, call: Call) -> Report:
    """The report with its step: the call's number, unless the first call is the whole training loop."""
    return report if report.step is not None and call.number == 0 else replace(report, step=call.number)


def _is_skip(links: Links | None, given: Sequence[object], made: Sequence[object], bad: BadLeaves) -> bool:
    """Whether a call left the arrays of its state as they were, as `apply_if_finite` and loss scaling do, with at most a metric bad."""
    if links is None or len(given) != links.size or {index for index, _ in bad} & set(links.outs):
        return False
    pairs = zip(links.of_in(given), links.of_out(made), strict=True)
    arrays = [(old, new) for old, new in pairs if finite.can_be_bad(old) and old.size > 1]
    return bool(arrays) and all(np.array_equal(nonfinite.host(old), nonfinite.host(new)) for old, new in arrays)


def _is_as_recorded(call: Call, made: Sequence[object]) -> bool:
    """Whether the metrics are finite where those of the true call were; an accelerator's last bits may differ."""
    if call.of_small is None:
        return True
    return all(map(_are_finite_alike, flatten(call.small)[0], flatten(call.of_small(made))[0]))


def _are_finite_alike(recorded: object, again: object) -> bool:
    if not finite.can_be_bad(recorded) or not finite.can_be_bad(again):
        return True
    return np.array_equal(nonfinite.bad(recorded), nonfinite.bad(again))


def _is_gone(call: Call) -> bool:
    return any(isinstance(leaf, jax.Array) and leaf.is_deleted() for leaf in flatten(list(call.kept))[0])


def _changed_outside(step: Callable[..., object], call: Call, arguments: Arguments, window: Window) -> Report:
    """The step gives finite results from the state that it returned: somebody changed that state in between, in place."""
    names = trace(step, *arguments).arguments
    linked = call.links.ins if call.links else ()
    argument = names[linked[0]].split("[")[0].split(".")[0] if linked and linked[0] < len(names) else ""
    origin = Event(primitive="<input>", value=_worst(window), reason="changed between the calls", argument=argument or None)
    note = "the call before returned it finite, so it was changed in place after that, outside of the step"
    return Report(origin=origin, chain=(origin,), symptoms=("result",), notes=(note,), label=getattr(step, "__name__", ""))


def _unkept(window: Window, why: str, help: str = "") -> Report:
    """A fault whose calls cannot be run again."""
    origin = Event(primitive="<unknown>", value=_worst(window), reason="not located")
    last = window.calls[-1].number
    note = f"{why}; found in what call {last} returned" if len(window.calls) == 1 else f"{why}; found in the results up to call {last}"
    notes = (note, help) if help else (note,)
    return Report(origin=origin, chain=(origin,), symptoms=("result",), reproduced=False, notes=notes, step=window.calls[0].number)


def _worst(window: Window) -> Value:
    return "nan" if any(state == finite.NAN for _, state in bad_leaves(window.made)) else "inf"
