"""What the threads that call one guarded step have in common, and how they tell a fault."""

from __future__ import annotations

import functools
import itertools
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from nandetect import findings
from nandetect.errors import NonFiniteError, NonFiniteWarning, said, text
from nandetect.guarding import budget
from nandetect.guarding.recorder import Arguments, flatten
from nandetect.guarding.roles import Values
from nandetect.guarding.working import working
from nandetect.program import mutable
from nandetect.records import Finding, Report
from nandetect.speed.compilations import Compilations
from nandetect.tracebacks import is_ours

_FAILED = "nandetect failed at looking"

OnFind = Literal["raise", "warn"] | Callable[[Report], object]


@dataclass
class Shared:
    """One guarded step: how it is to be watched, and what was found. `guarded_step` adds the watches of its threads.

    `order` numbers the calls; the calls of other functions too, where a whole program is watched. `may_repeat` says whether a call may be
    made again, `keep` how many bytes may be kept where that was asked for. `found` is the order of the call that was last found at fault,
    `threads` how many have called it.
    """

    step: Callable[..., object]
    check_every: int | None
    keep: int | None
    on_find: OnFind
    order: Iterator[int]
    may_repeat: bool
    # Those of all functions made of the same source.
    compilations: Compilations
    number: int = field(default_factory=itertools.count().__next__)
    found: int = -1
    findings: list[Finding] = field(default_factory=list)
    threads: int = 0
    warns: bool = True
    # Told of what failed in nandetect itself, where somebody counts that.
    unseen: Callable[[Exception], None] | None = None
    # Where a whole program is watched, told of an error that a call raised, and how to find out why: asked if the program ends of it.
    dies: Callable[[Exception, Callable[[], Report | None]], None] | None = None
    # What the program is known to have done with what is not finite; where a whole program is watched, one for all of its functions.
    uses: Values = field(default_factory=Values)
    # What calls returned that is NaN and no fault: it is written where no result is yet.
    state: Values = field(default_factory=Values)
    # Told of a bad value that came into a call from elsewhere.
    hand: Callable[[object], None] = lambda value: None
    # Whether the step is given mutable arrays, and `step` takes a `Held` for each.
    holds: bool = False

    @functools.cached_property
    def bound(self) -> int:
        """The most bytes to keep. Asked for when the step is first called: before that, JAX may not have been set up."""
        return budget.bound() if self.keep is None else self.keep

    def taken(self, args: tuple[object, ...], kwargs: dict[str, object], is_first: bool) -> Arguments:
        """The arguments as they are recorded, with a `Held` for each mutable array. Whether there are any is seen `is_first`."""
        if not self.holds and is_first and mutable.are_among(flatten((args, kwargs))[0]):
            self.step, self.holds = mutable.holding(self.step, lambda: working), True
        if not self.holds:
            return args, kwargs
        with working:
            return mutable.held((args, kwargs))

    def tell_raised(self, report: Report, error: Exception) -> None:
        """Tell of a fault that made a call raise. Raises `NonFiniteError` where that is asked for; else the error is to go its way."""
        try:
            self.tell(report)
        except NonFiniteError as found:
            raise found from error

    def warn(self, finding: Finding) -> None:
        """Enter a finding that is no fault, and warn of it where nobody shows the findings at the end."""
        self.findings.append(finding)
        if self.warns:
            warnings.warn(finding.message, NonFiniteWarning, stacklevel=_callers())

    def failed(self, error: Exception) -> None:
        """Looking, or recording for it, has failed: the program goes on, and what was not looked at is said."""
        if self.unseen is not None:
            self.unseen(error)
        elif not any(finding.cause == _FAILED for finding in self.findings):
            message = f"some calls were not looked at: {said(error)}"
            self.findings.append(findings.finding("non-finite", "note", message, cause=_FAILED))

    def tell(self, report: Report) -> None:
        """Tell of a fault the way that was asked for. Raises `NonFiniteError` where that is to raise."""
        self.findings.append(findings.non_finite(report))
        if self.on_find == "raise":
            raise NonFiniteError(report)
        if self.on_find == "warn":
            warnings.warn(f"\n{text(report)}", NonFiniteWarning, stacklevel=_callers())
        else:
            self.on_find(report)


def _callers() -> int:
    """How many frames above the one that asks stands the first that is not nandetect's, for `warnings.warn`."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and is_ours(frame.f_code.co_filename):
        level, frame = level + 1, frame.f_back
    return level
