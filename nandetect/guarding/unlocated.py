"""Reports of faults that were found and not located: what is known is said, and why it is no more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from nandetect.guarding import finite
from nandetect.guarding.recorder import Arguments, Call, Window
from nandetect.guarding.screen import bad_leaves
from nandetect.program.trace import trace
from nandetect.records import Event, Report, Value


def unkept(window: Window, why: str, help: str = "") -> Report:
    """A fault whose calls cannot be run again."""
    last = window.calls[-1].number
    note = f"{why}; found in what call {last} returned" if len(window.calls) == 1 else f"{why}; found in the results up to call {last}"
    return _unknown(_worst(window), window.calls[0].number, (note, help) if help else (note,))


def finite_again(window: Window) -> Report:
    """Every call is finite when it is run again, and what they made is not."""
    report = unkept(window, "the calls gave finite results when they were run again")
    return replace(report, step=window.calls[-1].number)


def of_call(call: Call, value: Value, why: str) -> Report:
    """A fault of a call that is known."""
    return _unknown(value, call.number, (f"{why}; found in what call {call.number} returned",))


def of_error(error: Exception) -> str:
    """What kept a fault from being located, as one phrase."""
    said = " ".join(str(error).split())[:120]
    return f"locating it failed ({type(error).__name__}{': ' if said else ''}{said})"


def changed_outside(step: Callable[..., object], call: Call, arguments: Arguments, window: Window) -> Report:
    """The step gives finite results from the state that it returned: somebody changed that state in between, in place."""
    names = trace(step, *arguments).arguments
    linked = call.links.ins if call.links else ()
    argument = names[linked[0]].split("[")[0].split(".")[0] if linked and linked[0] < len(names) else ""
    origin = Event(primitive="<input>", value=_worst(window), reason="changed between the calls", argument=argument or None)
    note = "the call before returned it finite, so it was changed in place after that, outside of the step"
    return Report(origin=origin, chain=(origin,), symptoms=("result",), notes=(note,), label=getattr(step, "__name__", ""))


def _unknown(value: Value, step: int, notes: tuple[str, ...]) -> Report:
    origin = Event(primitive="<unknown>", value=value, reason="not located")
    return Report(origin=origin, chain=(origin,), symptoms=("result",), reproduced=False, notes=notes, step=step)


def _worst(window: Window) -> Value:
    return "nan" if any(state == finite.NAN for _, state in bad_leaves(window.made)) else "inf"
