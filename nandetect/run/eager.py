"""Code that is not jitted: its operations are logged as they run; those that a bad value came from are the program to locate it in.

A NaN is a symptom where it leaves the program as numbers (printed, saved, handed to numpy), where nothing has taken it by the end, and
where it lives on from operation to operation. One that others make something finite of is none. An infinity is one only where it leaves
and an operation on finite numbers made it: a mask is one in passing, and a best loss begins as one. Whatever looks here does so as
`working`, and so reads nothing that would be looked at again.
"""

from __future__ import annotations

import math
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from typing import TypeVar

import jax

from nandetect import compat, effects
from nandetect.annotations import Array, Pytree
from nandetect.guarding import finite
from nandetect.guarding.recorder import flatten
from nandetect.guarding.working import working
from nandetect.primitives.table import BY_NAME
from nandetect.program import mutable
from nandetect.records import Finding, Report
from nandetect.run import eager_origin
from nandetect.run.asked import Asked
from nandetect.run.eager_origin import Held
from nandetect.run.operation_log import OperationLog
from nandetect.run.operations import Token, run_through
from nandetect.run.unseen import Unseen
from nandetect.speed.reads import Reads

# The share of the time that looking may take, and the seconds that it always may.
_SHARE, _LEAST = 0.01, 2e-4
_TREES = 100
_ARRAY = compat.array_type()
# What only moves values: of ones that are known to be finite it makes finite ones (an index out of bounds is clamped).
MOVES = frozenset({"__getitem__", *(name for name, record in BY_NAME.items() if record.copies)})
# What hands its operands to the host: they leave the program as numbers.
LEAVES = frozenset(name for name, record in BY_NAME.items() if record.prints or record.calls_back)
# What is only worth a word where nothing was found: a NaN whose computation goes on, and may have a use for it.
HANDED = "nan", "in what a computation handed to a callback"
# Nobody can tell a fault in it from log-probabilities of what cannot be.
LOG_OF_NOTHING = "array", "that left the program with -inf in it"
# Arrays with a NaN that numpy took and that wait for a place where the program can be stopped; and as many with an inf.
_WAITING = 8

Answer = TypeVar("Answer")


class EagerWatch:
    """The log of operations, and looks at what they left behind: `tell` is called with the report of a NaN.

    `made_elsewhere` is called with NaNs that none of the operations made and that the program uses, as far as they are known. `unseen` is
    told of what could not be looked at: nothing that fails here reaches the program but the `NonFiniteError` that `tell` raises.
    """

    def __init__(self, tell: Callable[[Report], None], made_elsewhere: Callable[[Sequence[Array]], None], unseen: Unseen):
        self.unseen = unseen
        self.log = OperationLog(self._full)
        self.reads, self.asked = Reads(), Asked()
        self.seconds = 0.0
        # What was found at the last look that is no fault.
        self.findings: list[Finding] = []
        # What is called in place of JAX's own functions, by the id of each.
        self.wrappers: dict[int, object] = {}
        self._tell, self._made_elsewhere = tell, made_elsewhere
        # Trees of arguments, each once.
        self._trees: dict[Hashable, Hashable] = {}
        # The NaNs that the last segment began with.
        self._nans: list[Held] = []
        # What was not finite and left the program where it could not be stopped, by its state.
        self._gone: defaultdict[int, list[Array]] = defaultdict(list)
        self._handed: list[Array] = []
        self._looked, self._ending = time.perf_counter(), threading.Lock()
        # By its state, until when what the program reads is not looked into: what is data is read again and again.
        self._finds_again: dict[int, float] = {}

    def primitive(self, primitive: compat.Primitive, operands: Sequence[object], params: dict[str, object], out: Pytree) -> None:
        """An operation ran by itself."""
        try:
            name = primitive.name
            if name not in MOVES or self.log.may_be_bad(operands):
                self.log.enter(primitive, params, operands, out if primitive.multiple_results else (out,))
            if type(out) in mutable.REFS:
                # It is written to from now on: what was made is not what is in it.
                self.log.release(compat.ref_buffer(out))
            elif name != "get" and mutable.are_among(operands):
                mutable.written(operands[0])
            if name in LEAVES:
                for operand in operands:
                    if finite.can_be_bad(operand):
                        self._leaves(operand)
        except Exception as error:
            self.unseen.failed(error, "operation")

    def function(self, function: Callable[..., object], tree: Hashable, operands: Sequence[object], out: Pytree) -> None:
        """A compiled function of JAX's own ran on arguments of this tree."""
        try:
            self.log.enter(function, tree, operands, (out,) if type(out) is _ARRAY else flatten(out)[0])
        except Exception as error:
            self.unseen.failed(error, "operation")

    def once(self, tree: Hashable) -> Hashable:
        """The same tree for all arguments that have it."""
        trees = self._trees
        try:
            if tree not in trees:
                # Lists of arrays that grow have as many trees.
                self._trees = trees = {**trees, tree: tree} if len(trees) < _TREES else {tree: tree}
            return trees[tree]
        # What a program's own type says of itself may not be comparable, or have no hash.
        except Exception:
            return tree

    def _full(self) -> None:
        """A segment is at its end."""
        if self._ending.acquire(blocking=False):
            try:
                # Another thread may have been faster.
                if self.log.is_due:
                    with working:
                        self._end_segment()
            # Where looking back failed, what is remembered must not grow without end.
            except Exception as error:
                self.forget()
                self.unseen.failed(error)
            finally:
                self._ending.release()

    def forget(self) -> None:
        """Start anew."""
        self.log.forget()
        self._nans, self._gone = [], defaultdict(list)

    def look(self) -> None:
        """Look at all that the program holds. Tells of a NaN that nothing has taken."""
        try:
            with working:
                self._finds_again = {}
                self._judge_gone()
                nans = self._held_nans()
                self._find(self.log.untaken(nans))
                self.findings = eager_origin.notes(self.log, self.log.beside(nans))
        except Exception as error:
            self.unseen.failed(error)

    def died(self, error: BaseException) -> None:
        """The program ends of this error: tells of a NaN that was compared for what it asked before."""
        with working, compat.outside_of_traces():
            self._find(self.asked.compared(self.log, error))

    def _end_segment(self) -> None:
        """A segment is at its end: tells of a NaN of the last one's end that has lived on, before where it came from is forgotten."""
        now = time.perf_counter()
        since, self._looked = now - self._looked, now
        self._judge_gone()
        nans = self._held_nans(max(_SHARE * since, _LEAST))
        left = self.log.untaken(nans)
        if left:
            # A compiled function may have made it, or what came of it.
            self._made_elsewhere(())
            self._find(self._living(left))
        self.log.begin_segment(keep=2 if left else 1)
        self._nans = nans

    def _held_nans(self, most: float | None = None) -> list[Held]:
        """The NaNs that the program holds, the latest first; with a bound on the seconds, waiting aside, those of the last segment."""
        began, waited = time.perf_counter(), 0.0
        clean: list[Token] = []
        bad: list[Held] = []
        with working, compat.outside_of_traces():
            for token, value in self.log.held(last_only=most is not None):
                waits = time.perf_counter()
                try:
                    # The program would have waited for it anyway.
                    value.block_until_ready()
                    waited += time.perf_counter() - waits
                    state = finite.state(value) if finite.can_be_bad(value) else finite.FINITE
                # It was deleted meanwhile, or could not be computed: the program will see.
                except Exception:
                    continue
                if state == finite.FINITE:
                    clean.append(token)
                elif state == finite.NAN:
                    bad.append((token, value))
                if most is not None and time.perf_counter() - began - waited > most:
                    break
        self.log.mark_finite(clean)
        self.seconds += time.perf_counter() - began - waited
        return bad

    def _living(self, left: list[Held]) -> list[Held]:
        """Those that are NaN because something was that the last segment began with; seen by running it again from there."""
        operations = self.log.origins([token for token, _ in left], last_only=True)
        nan = {id(token) for token, _ in self._nans}
        if not any(id(operand) in nan for operation in operations for operand in operation.operands):
            return []
        began = time.perf_counter()
        with working, compat.outside_of_traces(), effects.muted_effects():
            try:
                for operation, results in run_through(operations, self.log.kept(last_only=True)):
                    if any(id(operand) in nan for operand in operation.operands):
                        made = zip(operation.results, results, strict=True)
                        nan.update(id(token) for token, result in made if finite.state(result) == finite.NAN)
            # The operations are the program's: where they cannot be run again, it goes on.
            except Exception:
                return []
        self.seconds += time.perf_counter() - began
        return [(token, value) for token, value in left if id(token) in nan]

    def read(self, number: jax.Array, read: Callable[[], Answer], is_timed: bool) -> Answer:
        """The program reads numbers, to print them, to save them or to go by them: what is not finite is a symptom, held or not.

        How long it waits for them counts where the reading `is_timed`.
        """
        began = time.perf_counter()
        number.block_until_ready()
        ready = time.perf_counter()
        try:
            with working:
                out = read()
        # An int of a NaN: what may end the program is looked at first.
        except Exception:
            self._leaves(number)
            raise
        done = time.perf_counter()
        if type(out) is not float or not math.isfinite(out):
            self._leaves(number)
        if is_timed:
            self._enter_read(began, ready - began, time.perf_counter() - done)
        return out

    def _enter_read(self, began: float, waited: float, own: float) -> None:
        # Where this fails, what is known of lost time is less by one reading.
        with suppress(Exception):
            self.reads.enter(began, waited, own)

    def taken(self, array: jax.Array) -> None:
        """Numpy takes an array's memory, where nothing can be raised: what is not finite is told of as soon as something can be."""
        try:
            self.asked.note(array)
            with working:
                state = eager_origin.state_read(array)
                if state == finite.FINITE or len(self._gone[state]) >= _WAITING:
                    return
                if state == finite.INF or not self._is_handed_over():
                    self._gone[state].append(array)
        except Exception as error:
            self.unseen.failed(error)

    def _judge_gone(self) -> None:
        gone, self._gone = self._gone, defaultdict(list)
        for state, arrays in gone.items():
            for array in arrays:
                self._symptom(array, state)

    def _leaves(self, numbers: Array) -> None:
        """These leave the program: a NaN among them is a symptom, and an inf that was made of what is finite."""
        try:
            with working:
                state = eager_origin.state_read(numbers)
                if state != finite.FINITE and not eager_origin.is_for_a_name():
                    self._symptom(numbers, state)
        except Exception as error:
            self.unseen.failed(error)

    def _symptom(self, number: Array, state: int) -> None:
        token = self.log.token_of(number)
        if token is not None:
            if time.perf_counter() < self._finds_again.get(state, 0.0) or self._find([(token, number)], state):
                return
            if state == finite.NAN:
                self._made_elsewhere(eager_origin.arrived(self.log, [(token, number)]))
        # An inf that a compiled function returned is judged there.
        elif state == finite.NAN and not self._is_handed_over():
            self._made_elsewhere((number,))

    def _is_handed_over(self) -> bool:
        """Whether a computation has handed the NaN to a callback. To wait there for another computation may be to wait for ever."""
        handed = eager_origin.is_in_callback()
        if handed:
            self.unseen.add(*HANDED)
        return handed

    def find_given(self, values: Sequence[object]) -> bool:
        """Tell where the first of these came from that an operation of the log made; calls were given them. Whether one was told."""
        for value in values:
            token = self.log.token_of(value)
            if token is not None and finite.can_be_bad(value) and self._find([(token, value)], finite.state(value), broke=True):
                return True
        return False

    def take_handed(self) -> list[Array]:
        """What was not finite and was given to operations that were found at fault; it is no longer kept then."""
        handed, self._handed = self._handed, []
        return handed

    def _find(self, bad: list[Held], state: int = finite.NAN, broke: bool = False) -> bool:
        """Tell where these were made, unless they arrived from outside; of -inf only where a call `broke` on it. Whether they were told."""
        if not bad:
            return False
        began = time.perf_counter()
        with working, compat.outside_of_traces():
            report = self._of_nans(bad) if state == finite.NAN else self._of_inf(bad[0], broke)
        if report is not None:
            # A call may have returned the inf that an operation made NaN of. What is known is told all the same.
            with suppress(Exception):
                self._handed = eager_origin.given(self.log, bad) if report.arrived else []
            self.forget()
            self._tell(report)
        else:
            now = time.perf_counter()
            self._finds_again[state] = now + (now - began) / _SHARE
        return report is not None

    def _of_nans(self, bad: list[Held]) -> Report | None:
        log = self.log
        try:
            # What comes back from a compiled function arrives from outside, and may have been NaN before it went there: whatever
            # was made first did not come from there.
            return (
                eager_origin.located(log, bad)
                or eager_origin.located(log, bad[1:][-1:])
                or eager_origin.located(log, self._earlier(bad)[-1:])
            )
        # The program goes on whatever its operations were: that they cannot be run again is not its fault.
        except Exception as error:
            return eager_origin.not_located(log, bad, error)

    def _of_inf(self, held: Held, broke: bool) -> Report | None:
        try:
            report = eager_origin.located_inf(self.log, held)
            # An overflow that was subtracted is no logarithm.
            if report is not None and report.origin.value == "-inf" and not broke and eager_origin.has_only_neginf(held[1]):
                self.unseen.add(*LOG_OF_NOTHING)
                return None
            return report
        # Nobody knows then whether it is a fault.
        except Exception as error:
            self.unseen.failed(error)
            return None

    def _earlier(self, bad: list[Held]) -> list[Held]:
        """What the program holds of the values that these came from, as far as it is NaN; the latest first."""
        made = {id(token) for operation in self.log.origins([token for token, _ in bad]) for token in operation.results}
        return [(token, value) for token, value in self._held_nans() if id(token) in made]
