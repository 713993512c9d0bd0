"""Reports of faults that were found and not located: what is known is said, and why it is no more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from nandetect.errors import said
from nandetect.guarding import finite
from nandetect.guarding.recorder import Arguments, Call, Window, flatten
from nandetect.guarding.screen import BadLeaves, bad_leaves
from nandetect.program.trace import trace
from nandetect.records import Event, Report, Value


def unkept(window: Window, why: str, help: str = "") -> Report:
    """A fault whose calls cannot be run again. Its call is known where a metric shows it."""
    number, value = _seen(window)
    last = window.calls[-1].number
    only = number if number is not None or len(window.calls) > 1 else last
    note = f"{why}; found in the results up to call {last}" if only is None else f"{why}; found in what call {only} returned"
    return _unknown(value, window.calls[0].number if number is None else number, (note, help) if help else (note,))


def finite_again(window: Window) -> Report:
    """Every call is finite when it is run again, and what they made is not."""
    report = unkept(window, "the calls gave finite results when they were run again")
    return replace(report, step=window.calls[-1].number)


def of_call(call: Call, value: Value, why: str) -> Report:
    """A fault of a call that is known."""
    return _unknown(value, call.number, (f"{why}; found in what call {call.number} returned",))


def of_error(error: Exception) -> str:
    """What kept a fault from being located, as one phrase."""
    return f"locating it failed ({said(error)})"


def of_window(window: Window, error: Exception) -> Report:
    """A fault that something bad was seen of, and of which nothing else could be found out."""
    last = window.calls[-1].number
    return _unknown("nan", last, (f"{of_error(error)}; found in the results up to call {last}",))


def changed_outside(step: Callable[..., object], call: Call, arguments: Arguments, window: Window) -> Report:
    """The step gives finite results from the state that it returned: somebody changed that state in between, in place."""
    names = trace(step, *arguments).arguments
    linked = call.links.ins if call.links else ()
    argument = names[linked[0]].split("[")[0].split(".")[0] if linked and linked[0] < len(names) else ""
    origin = Event(primitive="<input>", value=_seen(window)[1], reason="changed between the calls", argument=argument or None)
    note = "the call before returned it finite, so it was changed in place after that, outside of the step"
    return Report(origin=origin, chain=(origin,), symptoms=("result",), notes=(note,), label=getattr(step, "__name__", ""))


def _unknown(value: Value, step: int, notes: tuple[str, ...]) -> Report:
    origin = Event(primitive="<unknown>", value=value, reason="not located")
    return Report(origin=origin, chain=(origin,), symptoms=("result",), reproduced=False, notes=notes, step=step)


def _seen(window: Window) -> tuple[int | None, Value]:
    """What was seen without running the calls again: the first of them that has a bad metric, if one has, and what is bad."""
    for call in window.calls:
        bad = bad_leaves(flatten(list(call.small))[0])
        if bad:
            return call.number, _value(bad)
    return None, _value(bad_leaves(window.made))


def _value(bad: BadLeaves) -> Value:
    return "nan" if any(state == finite.NAN for _, state in bad) else "inf"
