"""A function's program as its author wrote it: traced, every equation with its phase (forward, backward, update) and its line."""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
import linecache
import string
from collections.abc import Callable, Iterable, Iterator, Sequence

import jax

from nandetect import compat, primitives
from nandetect.annotations import Pytree
from nandetect.listing import Atom, Body, Equation, Listing, Passage
from nandetect.program import sources
from nandetect.program.phase import Path, Phases
from nandetect.program.trace import keystr
from nandetect.records import Frame
from nandetect.targets import traceable
from nandetect.targets.traceable import Traceable

# Calls only group equations; a listing shows what they hold in their place.


def listing(given: Traceable) -> Listing:
    """Trace the program and bring every equation to the line that it was written on."""
    closed, returned = traceable.trace(given)
    jaxpr, _ = compat.open_jaxpr(closed)
    program = _Transcript(Phases(closed, lambda: traceable.trace(given)[0])).body(jaxpr)
    return Listing(
        target=given.name,
        program=program,
        arguments=tuple(_argument_names(given.function, given.arguments)),
        results=tuple(keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(returned)),
        passages=tuple(_passages(program)),
    )


def _argument_names(function: Callable[..., object], arguments: Sequence[Pytree]) -> Iterator[str]:
    """The pytree path of every input: `params['w1']`, `x`."""
    try:
        parameters = list(inspect.signature(function).bind(*arguments).arguments.items())
    except (TypeError, ValueError):
        parameters = [(f"args[{number}]", argument) for number, argument in enumerate(arguments)]
    for name, argument in parameters:
        for path, _ in jax.tree_util.tree_leaves_with_path(argument):
            yield name + keystr(path)


class _Transcript:
    """One pass over a jaxpr, giving its variables the names that JAX's own printer would: a, b, ..., z, ba, ..."""

    def __init__(self, phases: Phases):
        self._phases = phases
        self._names: dict[compat.Var, str] = {}
        self._numbers = itertools.count()

    def body(
        self,
        jaxpr: compat.Jaxpr,
        name: str = "",
        path: Path = (),
        enclosing: tuple[compat.JaxprEqn, ...] = (),
        context: tuple[str, ...] = (),
    ) -> Body:
        """A jaxpr as the listing shows it, at `path`, with the equations and the loops and branches around it."""
        inputs = tuple(self._atom(var) for var in [*jaxpr.constvars, *jaxpr.invars])
        equations = tuple(self._equation(eqn, (*path, number), enclosing, context) for number, eqn in enumerate(jaxpr.eqns))
        return Body(name=name, inputs=inputs, equations=equations, outputs=tuple(map(self._atom, jaxpr.outvars)))

    def _equation(self, eqn: compat.JaxprEqn, path: Path, enclosing: tuple[compat.JaxprEqn, ...], context: tuple[str, ...]) -> Equation:
        inputs = tuple(map(self._atom, eqn.invars))
        subs = compat.sub_jaxprs(eqn)
        bodies = tuple(
            self.body(compat.open_jaxpr(sub)[0], key, (*path, slot), (*enclosing, eqn), (*context, *_surroundings(eqn, key, slot)))
            for slot, (key, sub) in enumerate(subs)
        )
        source = sources.source(eqn, enclosing)
        frame = _only_the_frame(source) if source else None
        return Equation(
            primitive=eqn.primitive.name,
            params=tuple(_params(eqn, {key for key, _ in subs})),
            inputs=inputs,
            outputs=tuple(map(self._atom, eqn.outvars)),
            phase=self._phases.of(path),
            frame=frame,
            expression=sources.excerpt(frame) if frame else "",
            context=context,
            call=primitives.of(eqn).calls,
            bodies=bodies,
        )

    def _atom(self, atom: compat.Atom) -> Atom:
        kind = compat.aval(atom).str_short(short_dtypes=True)
        if isinstance(atom, compat.Literal):
            return Atom(name=str(atom.val), type=kind, literal=True)
        if repr(atom) == "_":
            return Atom(name="_", type=kind)
        if atom not in self._names:
            self._names[atom] = _letters(next(self._numbers))
        return Atom(name=self._names[atom], type=kind)


def _letters(number: int) -> str:
    """0, 1, ... as a, b, ..., z, ba, bb, ..."""
    higher, letter = divmod(number, 26)
    return (_letters(higher) if higher else "") + string.ascii_lowercase[letter]


def _surroundings(eqn: compat.JaxprEqn, key: str, slot: int) -> tuple[str, ...]:
    """The loop, branch or mapped region that a body of an equation is; none for a call."""
    name = eqn.primitive.name
    if primitives.of(eqn).calls:
        return ()
    if name == "scan":
        return (f"scan of {eqn.params['length']}",)
    if name == "while":
        return ("while condition" if key.startswith("cond") else "while body",)
    if name == "cond":
        return (f"branch {slot} of cond",)
    return (name,)


def _params(eqn: compat.JaxprEqn, bodies: set[str]) -> Iterator[tuple[str, str]]:
    """Parameters as `name=value`, without those that hold a jaxpr and those that say nothing."""
    for key, value in eqn.params.items():
        if key not in bodies and value is not None:
            yield key, getattr(value, "__name__", None) or " ".join(str(value).split())


def _only_the_frame(source: Frame) -> Frame:
    return Frame(**{name: getattr(source, name) for name in Frame.__slots__})


def _passages(program: Body) -> Iterator[Passage]:
    """The functions that hold the equations' lines, file by file in the order in which the program comes to them."""
    lines: dict[str, set[int]] = {}
    for equation in program.all_equations():
        if equation.frame:
            lines.setdefault(equation.frame.file, set()).add(equation.frame.line)
    for file, numbers in lines.items():
        for first, last in _merged(_function_around(file, line) for line in numbers):
            code = tuple(sources.code_at(file, number) for number in range(first, last + 1))
            yield Passage(file=file, first=first, lines=code)


def _function_around(file: str, line: int) -> tuple[int, int]:
    """The first and last line of the outermost function around a line; the line alone where there is none."""
    spans = [span for span in _functions(file) if span[0] <= line <= span[1]]
    return min(spans, default=(line, line))


@functools.cache
def _functions(file: str) -> tuple[tuple[int, int], ...]:
    """The first and last line of every function of a file, decorators included."""
    try:
        tree = ast.parse("".join(linecache.getlines(file)))
    except SyntaxError:
        return ()
    defined = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    return tuple((min([node.lineno, *(mark.lineno for mark in node.decorator_list)]), node.end_lineno or node.lineno) for node in defined)


def _merged(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans in order, with those that touch or overlap as one."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(set(spans)):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged
