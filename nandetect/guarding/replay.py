"""From recorded calls to the first one at fault: all run again from the last state that was finite, until one returns what is not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import jax
import numpy as np

from nandetect import effects, nonfinite
from nandetect.errors import Unrepeatable, UsageError
from nandetect.findings import SKIPS_RUNNING
from nandetect.fixing.locate import relocate
from nandetect.guarding import finite, grown, raised, unlocated
from nandetect.guarding.aside import Aside, aside, numbered, ordinals, recorded
from nandetect.guarding.motion import changed_nothing, stands_still
from nandetect.guarding.recorder import Arguments, Call, Habits, Window, flatten, leaves_made
from nandetect.guarding.roles import Values, auxiliary
from nandetect.guarding.screen import BadLeaves, bad_leaves, bad_metrics, top
from nandetect.guarding.skips import have_grown, is_skip, signs
from nandetect.locating.diagnose import takes_gradients
from nandetect.program.trace import trace
from nandetect.records import Report

_STOOD_IN = "an io_callback of the step was not called again: in the replay it gave back what it was given, or zeros"


@dataclass(slots=True)
class Replayed:
    """What a replay showed: the first fault, and the calls before it that are none.

    `skipped` calls left their state as it was, and `skip` says why the first of them did; `scales_loss`, whether that one took a gradient.
    `beside`, by the index of the result, are the first bad ones that only stand beside what is handed back and read. `arrived` is what came
    into the call at fault and was not finite, where that made it one.
    """

    report: Report | None = None
    skipped: list[int] = field(default_factory=list)
    skip: Report | None = None
    scales_loss: bool = False
    beside: dict[int, Aside] = field(default_factory=dict)
    arrived: list[object] = field(default_factory=list)


@dataclass(slots=True)
class Replay:
    """The calls of a window, to be run again; effects on the host are not repeated. Adds to `accepted` what is no fault.

    With `count_skips`, a call is also one that was skipped where nothing that it returned is bad and its state stayed as it was. `running`
    says how many steps right before a call of this number were skipped.
    """

    step: Callable[..., object]
    window: Window
    accepted: BadLeaves
    habits: Habits
    uses: Values
    state: Values
    running: Callable[[int], int]
    count_skips: bool = False
    # The first of the steps right before a call that were skipped without a trace of it in the state.
    idle: tuple[Call, Arguments] | None = None
    # The kind of error that the last call raised; or one that is not known, where it came out only when results were waited for.
    error: type[BaseException] | None = None
    is_last: bool = True
    replayed: Replayed = field(default_factory=Replayed)

    def run(self) -> Replayed:
        """Run them."""
        if _is_gone(self.window.calls[0]):
            why, help = "the arguments were too large to keep", "a larger `keep` lets guard hold what locating it needs"
            self.replayed.report = self._unlocated(why, help)
            return self.replayed
        stood_in: list[object] = []
        try:
            with effects.replay_settings(), effects.muted_effects(stood_in):
                self.replayed.report = self._first_fault() if self.habits.may_repeat else self._fault_of_one()
        except (Unrepeatable, jax.errors.JaxRuntimeError) as error:
            self.replayed.report = self._unlocated(f"running it again failed ({' '.join(str(error).split())[:120]})")
        except UsageError as error:
            self.replayed.report = self._unlocated(str(error))
        # Nothing of ours reaches the program.
        except Exception as error:
            self.replayed.report = self._unlocated(unlocated.of_error(error))
        report = self.replayed.report
        if stood_in and report is not None:
            self.replayed.report = replace(report, notes=(*report.notes, _STOOD_IN))
        return self.replayed

    def _unlocated(self, why: str, help: str = "") -> Report | None:
        """The report of a fault that could not be located; none where it is not known that anything was bad."""
        if self.error is None:
            has_bad = bool(bad_leaves(self.window.made) - self.accepted) or bad_metrics([call.small for call in self.window.calls])
        else:
            has_bad = issubclass(self.error, FloatingPointError)
        return unlocated.unkept(self.window, why, help) if has_bad else None

    def _fault_of_one(self) -> Report | None:
        """The fault of the one call of a window, whose step must not be called again but to locate it."""
        (call,) = self.window.calls
        if self.error is not None:
            return self._of_raised(call, call.arguments(()), self.error)
        report = relocate(self.step, *call.arguments(()))
        if report is None:
            self.accepted |= bad_leaves(self.window.made)
            return None
        return numbered(report, call)

    def _first_fault(self) -> Report | None:
        """The first fault of the calls, run one after another. Enters in `replayed` what is none before it."""
        out: object = None
        made: Sequence[object] = ()
        bad: BadLeaves = set()
        if not self.running(self.window.calls[0].number):
            self.idle = None
        for call in self.window.calls:
            args, kwargs = call.arguments(_parts(call, out, made))
            if self.error is not None and self.is_last and call is self.window.calls[-1]:
                return self._of_raised(call, (args, kwargs), self.error)
            # The step may donate or change what it is given, and locating a fault needs it afterwards.
            copied_args, copied_kwargs = jax.tree.map(nonfinite.copied, (args, kwargs))
            try:
                out = jax.block_until_ready(self.step(*copied_args, **copied_kwargs))
            except Exception as error:
                if self.error is None:
                    raise
                return self._of_raised(call, (args, kwargs), type(error))
            made = leaves_made(out, copied_args, copied_kwargs, self.habits.changes_arguments)
            bad = bad_leaves(made) - self.accepted
            if not _is_as_recorded(call, _parts(call, out, made)):
                changed = None if bad else unlocated.changed_outside(self.step, call, (args, kwargs), self.window)
                report = changed or relocate(self.step, args, kwargs)
                return report and numbered(report, call)
            report = self._judged(call, (args, kwargs), out, made, bad)
            if report is not None:
                return self._with_its_past(report, call, (args, kwargs))
        return unlocated.finite_again(self.window) if bad_leaves(self.window.made) - self.accepted - bad else None

    def _with_its_past(self, report: Report, call: Call, arguments: Arguments) -> Report:
        """The same, with what a state that it names was before; a report is one without it."""
        first = self.window.calls[0]
        try:
            start = flatten(first.arguments(_parts(first, None, ())))[0]
            return grown.told(report, self.step, call, arguments, first, start)
        except Exception:
            return report

    def _of_raised(self, call: Call, arguments: Arguments, error: type[BaseException]) -> Report | None:
        report = raised.located(self.step, arguments, error)
        if report is not None and report.arrived:
            self.replayed.arrived = self._arrived(arguments, flatten(arguments)[0], report)
        return report and numbered(report, call)

    def _judged(self, call: Call, arguments: Arguments, out: object, made: Sequence[object], bad: BadLeaves) -> Report | None:
        """The fault of a call that gave the same as before, if it has one."""
        given = flatten(arguments)[0]
        beside = self._beside(call, arguments, given, out, made, bad)
        left = {leaf for leaf in bad if leaf[0] not in beside}
        if (left or self.count_skips) and is_skip(self.habits, given, made, {index for index, _ in left}, self._says_so(arguments, out)):
            kept = recorded(call, out, made)
            is_read = any(kept.get(index) in self.uses for index, _ in left)
            return self._skipped(call, arguments, given, made, bool(left), is_read, ordinals(out, beside))
        self.idle = None
        if not left:
            self._see_motion(given, made)
            return None
        report = relocate(self.step, *arguments, beside=ordinals(out, beside), is_state=self.state.__contains__)
        if report is None:
            self.accepted |= left
            self._enter_state(call, left)
        elif report.arrived:
            self.replayed.arrived = self._arrived(arguments, given, report)
        return report and numbered(report, call)

    def _enter_state(self, call: Call, leaves: BadLeaves) -> None:
        """What these leaves of a call's results are is state, also where another function is given it."""
        if call is self.window.calls[-1]:
            made = flatten(self.window.made)[0]
            for index, _ in leaves:
                self.state.enter(made[index])

    def _arrived(self, arguments: Arguments, given: Sequence[object], report: Report) -> list[object]:
        """What came into a call and was not finite, that which the report names first."""
        bad = [index for index, leaf in enumerate(given) if finite.can_be_bad(leaf) and finite.state(leaf)]
        if len(bad) > 1:
            names, named = trace(self.step, *arguments).arguments, (report.origin, *report.cause)[-1].argument
            bad.sort(key=lambda index: index >= len(names) or names[index] != named)
        return [given[index] for index in bad]

    def _beside(
        self, call: Call, arguments: Arguments, given: Sequence[object], out: object, made: Sequence[object], bad: BadLeaves
    ) -> frozenset[int]:
        """The bad results that only stand beside what matters, as far as is known."""
        if not bad:
            return frozenset()
        kept = recorded(call, out, made)
        if call is self.window.calls[-1]:
            kept.update(enumerate(flatten(self.window.made)[0]))
        may_be = auxiliary(out, self.habits.links, given)
        beside = {index: value for index, value in bad if index in may_be and kept.get(index) not in self.uses}
        for index, value in beside.items():
            entry = aside(self.step, call, arguments, out, index, "nan" if value == finite.NAN else "inf")
            self.replayed.beside.setdefault(index, entry)
        return frozenset(beside)

    def _skipped(
        self,
        call: Call,
        arguments: Arguments,
        given: Sequence[object],
        made: Sequence[object],
        is_bad: bool,
        is_read: bool,
        beside: frozenset[int],
    ) -> Report | None:
        """A skipped step is a fault where nothing in the state counts it and a metric is bad, if it is one of too many or the program is
        known to have read that metric."""
        replayed = self.replayed
        replayed.skipped.append(call.number)
        if replayed.skip is None:
            replayed.skip = relocate(self.step, *arguments, strict=not is_bad, beside=beside)
            replayed.scales_loss = takes_gradients(self.step, *arguments)
        links = self.habits.links
        if not is_bad or links is None or not changed_nothing(links, given, made):
            self.idle = None
            return None
        self.idle = first, its_arguments = self.idle or (call, arguments)
        too_many = call.number - first.number >= SKIPS_RUNNING
        report = relocate(self.step, *its_arguments, beside=beside) if too_many or is_read else None
        return report and numbered(report, first)

    def _says_so(self, arguments: Arguments, out: object) -> bool:
        """Whether a counter or a loss scale says that a call was skipped."""
        links = self.habits.links
        given, made = flatten(arguments)[0], flatten(out)[0]
        if links is None or len(given) != links.size or max(links.outs, default=-1) >= len(made):
            return False
        return have_grown(signs(arguments, links.of_in(given)), signs(out, links.of_out(made)))

    def _see_motion(self, given: Sequence[object], made: Sequence[object]) -> None:
        """A sound call: whether it changed its state."""
        links = self.habits.links
        if not self.habits.changes_state and links is not None and len(given) == links.size and max(links.outs, default=-1) < len(made):
            self.habits.changes_state = not stands_still(links, given, made)


def _parts(call: Call, out: object, made: Sequence[object]) -> Sequence[object]:
    """A result as `call` speaks of results: its leaves, or its elements where the call was recorded without taking it apart."""
    return top(out, call.is_whole) if call.tree is None else made


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
