"""Try the forms on the user's own program: what it gives with them, and what is said of that."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import ShapedArray

from nandetect import compat, effects, nonfinite, wording
from nandetect.fixing.find import at, find, is_there
from nandetect.fixing.forms import Found, shaped
from nandetect.fixing.graph import Graph, Node
from nandetect.fixing.judge import Judged, judge
from nandetect.fixing.retrace import Exchange, calls_around, retrace
from nandetect.interpret import walk
from nandetect.locating.diagnose import diagnose
from nandetect.program.sources import Expression
from nandetect.program.trace import Program
from nandetect.records import Event, Report

# The most forms that are tried for one fault, the fewest whatever time they take, and the most faults that are mended together where one
# hides the next.
TRIED, AT_LEAST, TOGETHER = 5, 2, 3
# How far results may move when the number that a form chooses is another, in parts of the largest, before the number is said to show.
SHOWS = 1e-4


@dataclass(frozen=True)
class Tried:
    """Forms that were put into the user's program together, the last of them for what the others uncovered.

    `program` is the user's with them in it. Of `results` results so many were `finite`. `uncovered` is the fault that is left. `depends`
    where a number that a form chose shows in the results.
    """

    program: Program
    found: tuple[Found, ...]
    judged: Judged | None
    finite: int
    results: int
    uncovered: Report | None = None
    depends: bool = False

    @property
    def is_proven(self) -> bool:
        """Whether the step is finite, and not by a number that somebody chose; what is said to be the same function was compared."""
        if any(one.kind == "advice" for one in self.found) or (self.judged is None and self.found[0].kind == "same"):
            return False
        return self.finite == self.results and not self.depends and all(one.kind != "shift" for one in self.found)

    def proof(self) -> str | None:
        """What was measured, in one sentence; None of advice."""
        if self.found[0].kind == "advice":
            return None
        is_unmeasured = self.judged is None and self.found[0].kind == "same"
        count = f"all {self.results} results of this step are finite" if self.results > 1 else "the result of this step is finite"
        so = "with both changes" if len(self.found) == 2 else f"with all {len(self.found)} changes" if len(self.found) > 2 else "with it"
        if self.uncovered is not None:
            said = f"{so} this fault is gone, and the next one is {_named(self.uncovered.origin)}"
        elif any(one.kind == "shift" for one in self.found):
            said = f"{so} {count}; it changes the result a little everywhere"
        elif self.depends:
            said = f"{so} {count}, but what was chosen for the edge shows in the results: the choice is yours"
        else:
            said = f"{so} {count}"
        if is_unmeasured and self.uncovered is None:
            return f"{said}; that it is the same function could not be measured"
        if self.judged is None or self.uncovered is not None:
            return said
        what = "values and slopes agree" if self.judged.with_slopes else "values agree"
        return f"{said}; where the old form is sound, {what} (to {wording.short(max(self.judged.apart, 6e-8))})"


def _named(event: Event) -> str:
    line = f" at line {event.source.line}" if event.source else ""
    return f"`{event.primitive}`{line}" + (f" ({event.reason})" if event.reason else "")


def trials(program: Program, report: Report, graph: Graph, every: Sequence[Found], seconds: float = math.inf) -> Iterator[Tried]:
    """Of `every` form that was found for a fault in the program's operations a trial, one after another, as long as there is time."""
    began = time.monotonic()
    count = 0
    for found in every:
        if count >= TRIED or (count >= AT_LEAST and time.monotonic() - began > seconds):
            return
        if found.kind == "advice":
            yield Tried(program, (found,), None, 0, 0)
            continue
        judged = judge(graph, found) if found.kind != "shift" else None
        if judged is not None and not judged.is_same:
            continue
        tried = _together(program, _put(graph, found, report, judged is not None and judged.of_positive), judged)
        count += 1
        if tried is not None:
            yield tried


def seen(program: Program, exchange: Exchange | None = None, opened: frozenset[Expression] | None = None) -> tuple[compat.AnyJaxpr, Graph]:
    """The program traced anew, with all operations of the user's own function; its equations' where that is not to be had."""
    again = program.retrace or (lambda: jax.make_jaxpr(compat.as_function(program.jaxpr, program.consts))(*program.args))
    return retrace(again, exchange, opened)


@dataclass(frozen=True)
class _Put:
    """A form that is put into the program, for a fault. With `of_positive` it is the same function of positive numbers alone.

    `opened` are the places of the inner jits that a pattern may look into for it.
    """

    found: Found
    report: Report
    opened: frozenset[Expression]
    of_positive: bool = False


def _put(graph: Graph, found: Found, report: Report, of_positive: bool = False) -> _Put:
    # A function of the user's that is called more than once has it in each call.
    roots = [node for node in graph.nodes if _is_alike(node, found.root)]
    near = [node for root in roots for x in root.ins for node in graph.upstream(x, ())]
    return _Put(found, report, calls_around([*near, *roots]), of_positive)


def _together(program: Program, first: _Put, judged: Judged | None) -> Tried | None:
    """The program with a form, and with one for each fault that it uncovers. None where the fault stays or the program does not run."""
    puts = [first]
    while True:
        again = _with(program, puts)
        if again is None:
            return None
        new, outs = again
        bad = [x for x in outs if not nonfinite.is_clean(x)]
        if not bad:
            break
        left = diagnose(new)
        if left is None or left.origin.primitive == "<input>" or any(_is_same_fault(left, put.report) for put in puts):
            return None
        more = _next(program, puts, left) if len(puts) < TOGETHER else None
        if more is None:
            return Tried(new, tuple(put.found for put in puts), judged, len(outs) - len(bad), len(outs), left)
        puts.append(more)
    depends = any(put.found.form.other is not None for put in puts) and _depends(program, puts, outs)
    return Tried(new, tuple(put.found for put in puts), judged, len(outs), len(outs), None, depends)


def _next(program: Program, puts: Sequence[_Put], left: Report) -> _Put | None:
    """What mends the fault that is left with these forms in the program."""
    _, graph = seen(program, _Exchanged(puts))
    # At one operation there is one form.
    new = (one for one in find(graph, left) if not any(_is_alike(one.root, put.found.root) for put in puts))
    more = next((one for one in new if one.kind != "advice" and _is_sound(graph, one)), None)
    return _put(graph, more, left) if more is not None else None


def _is_sound(graph: Graph, found: Found) -> bool:
    judged = judge(graph, found)
    return found.kind in ("guard", "bound") if judged is None else judged.is_same and not judged.of_positive


def _is_same_fault(one: Report, other: Report) -> bool:
    here, there = one.origin, other.origin
    if (here.primitive, here.phase, here.derivative_of) != (there.primitive, there.phase, there.derivative_of):
        return False
    return here.source is there.source or is_there(here.source, there.source)


def _with(program: Program, puts: Sequence[_Put], other: bool = False) -> tuple[Program, list[Array]] | None:
    """The program with the forms in it and its inexact results; None where it does not run or has none of them."""
    exchanged = _Exchanged(puts, other)
    try:
        jaxpr, _ = seen(program, exchanged, frozenset().union(*(put.opened for put in puts)))
        if not exchanged.count:
            return None
        opened, consts = compat.open_jaxpr(jaxpr)
        new = replace(program, jaxpr=opened, consts=consts, retrace=lambda: jaxpr, tape=None)
        # Equation by equation, as the fault was located: most of what is needed for that is compiled already, and a whole step is not.
        with effects.muted_effects([]):
            top = walk.begin(new)
            walk.run(top, new.args)
        outs = list(map(top.read, opened.outvars))
    except Exception:
        return None
    return replace(new, call=lambda: list(outs)), [jnp.asarray(x) for x in outs if nonfinite.is_inexact(x)]


def _depends(program: Program, puts: Sequence[_Put], outs: Sequence[Array]) -> bool:
    """Whether the results are others with another number chosen."""
    again = _with(program, puts, other=True)
    if again is None:
        return True
    for one, two in zip(outs, again[1], strict=True):
        a, b = nonfinite.in_double(one), nonfinite.in_double(two)
        if a.size and not float(np.abs(a - b).max()) <= SHOWS * max(float(np.abs(a).max()), 1e-30):
            return True
    return False


@dataclass
class _Exchanged:
    """Puts forms in, wherever their hazards stand at their places; `count` says how often."""

    puts: Sequence[_Put]
    other: bool = False
    count: int = 0

    def __call__(self, graph: Graph, node: Node) -> Array | list[Array] | None:
        for put in self.puts:
            one = put.found
            if not _is_alike(node, one.root):
                continue
            for again in at(graph, node, put.report, _anchors(graph, one, node)):
                if again.code == one.code and again.form.text == one.form.text:
                    value = again.form.other if self.other and again.form.other is not None else again.form.value
                    new = value(again.leaves)
                    self.count += 1
                    if isinstance(new, list):
                        return new
                    return _as(_honest(new, [*again.leaves.values()], put.of_positive), _result_of(node))
        return None


def _honest(value: Array, leaves: Sequence[Array], of_positive: bool) -> Array:
    """A form's value, but NaN where it is none of the function's: it overflowed, or is the same function of positive numbers alone.

    An inf may be lost on the way to the results, as in 1 / inf, and they would be finite and wrong.
    """
    numbers = [x for x in leaves if nonfinite.is_inexact(x)]
    if not numbers:
        return value
    is_sound = jnp.stack([jnp.isfinite(x).all() for x in numbers]).all()
    if jnp.issubdtype(value.dtype, jnp.floating):
        value = jnp.where((value == jnp.inf) & is_sound, jnp.nan, value)
    if of_positive:
        value = jnp.where(jnp.stack([jnp.all(x >= 0) for x in numbers]).all(), value, jnp.nan)
    return value


def _anchors(graph: Graph, found: Found, node: Node) -> list[Node]:
    """The operations at the anchor's place, as they stand in this trace."""
    anchor = found.at_anchor or found.root
    near = [one for x in node.ins for one in graph.upstream(x, ())]
    return [one for one in (*near, node) if _is_alike(one, anchor)]


def _is_alike(one: Node, other: Node) -> bool:
    """Whether two operations of two traces are one in the user's source."""
    return one.name == other.name and is_there(one.source, other.source)


def _result_of(node: Node) -> ShapedArray | None:
    """The shape and dtype of an operation's only result; None for one of several, or that JAX cannot tell before it is bound."""
    try:
        out, *_ = node.primitive.abstract_eval(*map(jax.typeof, node.ins), **node.params)
    except Exception:
        return None
    return out if isinstance(out, ShapedArray) else None


def _as(value: Array, aval: ShapedArray | None) -> Array:
    """A value in the shape and type of what it stands in for."""
    return value if aval is None else shaped(value, aval.shape).astype(aval.dtype)
