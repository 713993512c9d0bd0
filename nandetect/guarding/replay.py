"""From recorded calls to the first one at fault: they run again from the last clean state, each is judged, the first bad one located."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np

from nandetect import compat, nonfinite
from nandetect.errors import UsageError
from nandetect.guarding import finite
from nandetect.guarding.recorder import Call, Habits, Links, Window, flatten, parts_made
from nandetect.guarding.screen import Accepted, bad_places, top
from nandetect.locating.locate import relocate
from nandetect.program.trace import trace
from nandetect.records import Event, Report, Value

Step = Callable[..., Any]


@dataclass(slots=True)
class Found:
    """What a replay showed: the first fault, and the calls that left their state as it was, with why the first of them did."""

    report: Report | None = None
    skipped: list[int] = field(default_factory=list)
    skip: Report | None = None


def rewind(step: Step, window: Window, accepted: Accepted, habits: Habits, count_skips: bool = False) -> Found:
    """Run the calls of a window again; effects on the host are not repeated. Adds to `accepted` what is no fault.

    With `count_skips`, a call is also one that was skipped where nothing that it returned is bad and its state stayed as it was.
    """
    found = Found()
    if _is_gone(window.calls[0]):
        found.report = _unkept(window, "the arguments were too large to keep", "a larger `keep` lets guard hold what locating it needs")
        return found
    try:
        with compat.replay_settings(), compat.muted_effects():
            _follow(step, window, accepted, habits, count_skips, found)
    except (compat.Unrepeatable, jax.errors.JaxRuntimeError) as error:
        found.report = _unkept(window, f"running it again failed ({' '.join(str(error).split())[:120]})")
    except UsageError as error:
        found.report = _unkept(window, str(error))
    return found


def _follow(step: Step, window: Window, accepted: Accepted, habits: Habits, count_skips: bool, found: Found) -> None:
    if not habits.may_repeat:
        (call,) = window.calls
        report = relocate(step, *call.arguments(()))
        found.report = report and _numbered(report, call)
        if report is None:
            accepted |= bad_places(window.made)
        return
    out: Any = None
    made: Sequence[Any] = ()
    for call in window.calls:
        args, kwargs = call.arguments(top(out, call.is_whole) if call.tree is None else made)
        given = flatten((args, kwargs))[0]
        again, named = jax.tree.map(nonfinite.copied, (args, kwargs))
        out = step(*again, **named)
        made = parts_made(out, again, named, habits.changes_arguments)
        bad = bad_places(made) - accepted
        if not _is_as_recorded(call, top(out, call.is_whole) if call.tree is None else made):
            found.report = relocate(step, args, kwargs) if bad else _changed_outside(step, call, args, kwargs, window)
            found.report = found.report and _numbered(found.report, call)
            return
        if (bad or count_skips) and _is_skip(habits.links, given, made, bad):
            found.skipped.append(call.number)
            found.skip = found.skip or relocate(step, args, kwargs, strict=not bad)
        elif bad:
            report = relocate(step, args, kwargs)
            if report is not None:
                found.report = _numbered(report, call)
                return
            accepted |= bad
    if bad_places(window.made) - accepted:
        # Every call is finite again, and what they made is not.
        last = window.calls[-1]
        found.report = replace(_unkept(window, "the calls gave finite results when they were run again"), step=last.number)


def _numbered(report: Report, call: Call) -> Report:
    """The report with its step: the call's number, unless the first call is the whole training loop."""
    return report if report.step is not None and call.number == 0 else replace(report, step=call.number)


def _is_skip(links: Links | None, given: Sequence[Any], made: Sequence[Any], bad: Accepted) -> bool:
    """Whether a call left the arrays of its state as they were, as `apply_if_finite` and loss scaling do, with at most a metric bad."""
    if links is None or len(given) != links.size or {at for at, _ in bad} & set(links.outs):
        return False
    pairs = zip(links.of_in(given), links.of_out(made), strict=True)
    arrays = [(old, new) for old, new in pairs if finite.can_be_bad(old) and old.size > 1]
    return bool(arrays) and all(np.array_equal(nonfinite.host(old), nonfinite.host(new)) for old, new in arrays)


def _is_as_recorded(call: Call, made: Sequence[Any]) -> bool:
    """Whether the small results are finite where those of the true call were; an accelerator's last bits may differ."""
    if call.again is None:
        return True
    return all(map(_is_same, flatten(call.small)[0], flatten(call.again(made))[0]))


def _is_same(recorded: Any, again: Any) -> bool:
    if not finite.can_be_bad(recorded) or not finite.can_be_bad(again):
        return True
    return np.array_equal(nonfinite.bad(recorded), nonfinite.bad(again))


def _is_gone(call: Call) -> bool:
    return any(isinstance(leaf, jax.Array) and leaf.is_deleted() for leaf in flatten(list(call.kept))[0])


def _changed_outside(step: Step, call: Call, args: Any, kwargs: Any, window: Window) -> Report:
    """The step gives finite results from the state that it returned: somebody changed that state in between, in place."""
    names = trace(step, args, kwargs).arguments
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
    return "nan" if any(state == finite.NAN for _, state in bad_places(window.made)) else "inf"
