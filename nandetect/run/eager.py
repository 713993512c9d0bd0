"""Code that is not jitted: its operations are logged as they run; those that a bad value came from are the program to locate it in.

A NaN is a symptom where the program reads it, where nothing has taken it by the end, and where it lives on from operation to operation. One
that others make something finite of is none, and an infinity is none, since a mask is one in passing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

import jax

from nandetect import compat, nonfinite
from nandetect.annotations import Array, Pytree
from nandetect.guarding import finite
from nandetect.guarding.recorder import flatten
from nandetect.guarding.working import working
from nandetect.primitives.table import BY_NAME
from nandetect.records import Event, Report
from nandetect.run.operation_log import OperationLog
from nandetect.run.operations import Token, program, run_through
from nandetect.speed.reads import Reads

# The share of the time that looking may take, and the seconds that it always may.
_SHARE, _LEAST = 0.01, 2e-4
_TREES = 100
_ARRAY = compat.array_type()
# What only moves values: of ones that are known to be finite it makes finite ones (an index out of bounds is clamped).
MOVES = frozenset({"__getitem__", *(name for name, record in BY_NAME.items() if record.copies)})

# A result that the program holds, with what stands for it.
Held = tuple[Token, Array]
Answer = TypeVar("Answer")


class EagerWatch:
    """The log of operations, and looks at what they left behind: `tell` is called with the report of a NaN.

    `made_elsewhere` is called with NaNs that none of the operations made and that the program uses, as far as they are known.
    """

    def __init__(self, tell: Callable[[Report], None], made_elsewhere: Callable[[Sequence[Array]], None]):
        self.log = OperationLog(self._full)
        self.reads = Reads()
        self.seconds = 0.0
        # What is called in place of JAX's own functions, by the id of each.
        self.wrappers: dict[int, object] = {}
        self._tell, self._made_elsewhere = tell, made_elsewhere
        # Trees of arguments, each once.
        self._trees: dict[Hashable, Hashable] = {}
        # The NaNs that the last segment began with.
        self._nans: list[Held] = []
        self._looked = time.perf_counter()
        self._ending = threading.Lock()
        # Until when a NaN that the program reads is not looked into: one that is data is read again and again.
        self._finds_again = 0.0

    def primitive(self, primitive: compat.Primitive, operands: Sequence[object], params: dict[str, object], out: Pytree) -> None:
        """An operation ran by itself."""
        if primitive.name not in MOVES or self.log.may_be_bad(operands):
            self.log.enter(primitive, params, operands, out if primitive.multiple_results else (out,))

    def function(self, function: Callable[..., object], tree: Hashable, operands: Sequence[object], out: Pytree) -> None:
        """A compiled function of JAX's own ran on arguments of this tree."""
        self.log.enter(function, tree, operands, (out,) if type(out) is _ARRAY else flatten(out)[0])

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
                    self._end_segment()
            finally:
                self._ending.release()

    def forget(self) -> None:
        """Start anew."""
        self.log.forget()
        self._nans = []

    def look(self) -> None:
        """Look at all that the program holds. Tells of a NaN that nothing has taken."""
        self._find(self.log.untaken(self._held_nans()))

    def _end_segment(self) -> None:
        """A segment is at its end: tells of a NaN of the last one's end that has lived on, before where it came from is forgotten."""
        now = time.perf_counter()
        since, self._looked = now - self._looked, now
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
        with working, compat.outside_of_traces(), compat.muted_effects():
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

    def read(self, number: jax.Array, read: Callable[[], Answer]) -> Answer:
        """The program reads a number, to print it or to go by it: a NaN is a symptom, held or not."""
        began = time.perf_counter()
        number.block_until_ready()
        ready = time.perf_counter()
        with working:
            out = read()
        done = time.perf_counter()
        try:
            if out != out if type(out) is float else number.size == 1 and finite.can_be_bad(number) and _is_nan(number):
                self._symptom(number)
        finally:
            self.reads.enter(began, ready - began, time.perf_counter() - done)
        return out

    def _symptom(self, number: Array) -> None:
        token = self.log.token_of(number)
        if token is None:
            self._made_elsewhere((number,))
        elif time.perf_counter() >= self._finds_again and not self._find([(token, number)]):
            self._made_elsewhere(self._arrived([(token, number)]))

    def _find(self, bad: list[Held]) -> bool:
        """Tell where these were made, unless they arrived from outside. Whether they were told."""
        began = time.perf_counter()
        with working, compat.outside_of_traces():
            try:
                # What comes back from a compiled function arrives from outside, and may have been NaN before it went there: whatever
                # was made first did not come from there.
                report = self._located(bad) or self._located(bad[1:][-1:]) or self._located(self._earlier(bad)[-1:])
            # The program goes on whatever its operations were: that they cannot be run again is not its fault.
            except Exception as error:
                report = None if self._arrived(bad) else _unlocated(error)
        if report is not None:
            self.forget()
            self._tell(report)
        elif bad:
            now = time.perf_counter()
            self._finds_again = now + (now - began) / _SHARE
        return report is not None

    def _earlier(self, bad: list[Held]) -> list[Held]:
        """What the program holds of the values that these came from, as far as it is NaN; the latest first."""
        made = {id(token) for operation in self.log.origins([token for token, _ in bad]) for token in operation.results}
        return [(token, value) for token, value in self._held_nans() if id(token) in made]

    def _arrived(self, bad: list[Held]) -> list[Array]:
        """What these came from that was given from outside as NaN."""
        kept = self.log.kept()
        operations = self.log.origins([token for token, _ in bad])
        given = [kept[id(operand)] for operation in operations for operand in operation.operands if id(operand) in kept]
        return [value for value in given if finite.can_be_bad(value) and finite.state(value) == finite.NAN]

    def _located(self, bad: list[Held]) -> Report | None:
        """Where these were made; None if they arrived from outside, or there are none."""
        if not bad:
            return None
        # Only now: whoever finds nothing does not wait for all that locating needs to be imported.
        from nandetect.locating.locate import diagnose

        tokens, values = [token for token, _ in bad], [value for _, value in bad]
        operations = self.log.origins(tokens)
        with compat.replay_settings(), compat.muted_effects():
            report = diagnose(program(operations, tokens, self.log.kept(), values))
        return None if report is None or report.origin.primitive == "<input>" else report


def _is_nan(number: Array) -> bool:
    """Whether a number that was just read is one: the host has it now."""
    with working:
        return bool(nonfinite.nans(number).any())


def _unlocated(error: Exception) -> Report:
    origin = Event(primitive="<unknown>", value="nan", reason="not located")
    said = " ".join(str(error).split())[:160]
    note = f"the operations before it could not be run again ({type(error).__name__}: {said}); jit the function that it is in"
    return Report(origin=origin, chain=(origin,), symptoms=("result",), reproduced=False, notes=(note,), label="code that is not jitted")
