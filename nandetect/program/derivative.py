"""Which forward operation a backward equation is the derivative of, in the user's own words; and where their own rule made it."""

from __future__ import annotations

import ast
import functools
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence

import jax

from nandetect import compat, ownership, primitives
from nandetect.program import rule_lines, sources
from nandetect.program.phase import Path, Phases
from nandetect.program.sources import Expression
from nandetect.records import Frame, Source

OPERATORS: dict[type[ast.AST], str] = {
    ast.Add: "add",
    ast.Sub: "sub",
    ast.Mult: "mul",
    ast.Div: "div",
    ast.Pow: "pow",
    ast.MatMult: "matmul",
    ast.Mod: "rem",
    ast.FloorDiv: "floor_divide",
    ast.USub: "neg",
}


class Derivatives:
    """The places of a program's source that its forward equations come from, and its second trace, made when one is asked for."""

    def __init__(self, jaxpr: compat.Jaxpr, phases: Phases, retrace: Callable[[], compat.AnyJaxpr] | None):
        self._jaxpr, self._phases, self._retrace = jaxpr, phases, retrace

    def explain(self, path: Sequence[int], source: Source | None) -> tuple[Source | None, str | None]:
        """Where an equation comes from, and `sqrt` for a derivative of `jnp.sqrt(x)`; no name for what is none, or the user's own rule."""
        rule = self.own_rule(path, source)
        if rule is not None or self._phases.of(path) != "backward":
            return rule or source, None
        # The name is a nicety that is read from sources as they lie there now: a report does without.
        try:
            return source, self._operation(path, source) if source is not None else None
        except Exception:
            return source, None

    def _operation(self, path: Sequence[int], source: Source) -> str | None:
        """What was differentiated: a forward operation of that very expression, by the name that the user gave it; None where none is."""
        computed = self._primitives.get(sources.place(source))
        if computed is None:
            return None
        if self._hands_on(path, source):
            called = [eqn.params.get("name") for eqn in self._enclosing(path) if primitives.of(eqn).calls]
            return called[-1] if called else next(iter(computed)) if len(computed) == 1 else None
        return operation(source)

    @functools.cached_property
    def _primitives(self) -> dict[Expression, set[str]]:
        """The primitives of the forward pass, by the user's innermost expression."""
        places: dict[Expression, set[str]] = {}
        for eqn, frames in self._forward_equations(self._jaxpr, (), ()):
            if frames:
                names = places.setdefault(sources.place(frames[0]), set())
                names |= set() if compat.sub_jaxprs(eqn) else {eqn.primitive.name}
        return places

    def _hands_on(self, path: Sequence[int], source: Source) -> bool:
        """Whether an expression hands a function on to JAX (`jax.jvp(jnp.sqrt, ...)`, a branch), whose name is another than its own."""
        enclosing = self._enclosing(path)
        loops = [eqn for eqn in enclosing if not primitives.of(eqn).calls]
        inside = any(sources.joined_frames(enclosing[: enclosing.index(eqn) + 1])[:1] == [*source.frames[:1]] for eqn in loops)
        return inside or calls_transform(source)

    def _enclosing(self, path: Sequence[int]) -> list[compat.JaxprEqn]:
        """The equations in whose jaxprs the one at `path` stands, outermost first."""
        eqns, jaxpr = [], self._jaxpr
        for number, slot in zip(path[::2], path[1::2], strict=False):
            eqns.append(jaxpr.eqns[number])
            jaxpr = _inside(eqns[-1], slot)
        return eqns

    def own_rule(self, path: Sequence[int], source: Source | None) -> Source | None:
        """The line of a derivative rule of the user's own that made an equation; None where no rule of theirs did."""
        # Whatever the user's program does when it is traced once more, a report is told without that.
        try:
            return self.rule_source(path, source) if self._may_be_filed(path, source) else None
        except Exception:
            return None

    def _may_be_filed(self, path: Sequence[int], source: Source | None) -> bool:
        """Whether JAX may have filed an equation under the call of a function with a derivative rule, which made it."""
        if source is None:
            return True
        # What a library computes of the forward pass has the library's line, and is no rule's.
        is_own = self._phases.of(path) == "backward" or ownership.is_users(source.frames[0].file)
        return is_own and calls_own(source)

    def rule_source(self, path: Sequence[int], filed: Source | None) -> Source | None:
        """The line of the user's own derivative rule that made the equation at `path`, which JAX `filed` under the call.

        None where a second trace shows no frame of the user's beyond those: then no rule of theirs made it.
        """
        eqns = self._traced_again(path)
        rule = sources.source(eqns[-1], eqns[:-1]) if eqns else None
        known = {(frame.file, frame.function) for frame in filed.frames} if filed else set()
        return None if rule is None or (rule.file, rule.function) in known else rule

    def _traced_again(self, path: Sequence[int]) -> list[compat.JaxprEqn] | None:
        """The equation of the second trace that the one at `path` is there, after those that enclose it; None where that is not certain."""
        first, again = self._jaxpr, self._second
        eqns: list[compat.JaxprEqn] = []
        # The numbers of a path are by turns those of an equation and of a jaxpr within it.
        for depth, number in enumerate(path):
            if depth % 2:
                first, again = _inside(first.eqns[path[depth - 1]], number), _inside(eqns[-1], number)
                continue
            eqn = _counterpart(first, number, again) if again is not None else None
            if eqn is None:
                return None
            eqns.append(eqn)
        return eqns

    @functools.cached_property
    def _second(self) -> compat.Jaxpr | None:
        """The program traced once more, with the lines of derivative rules; None where it does not let itself be traced again."""
        if self._retrace is None:
            return None
        try:
            with rule_lines.of_second_trace():
                return compat.open_jaxpr(self._retrace())[0]
        except Exception:
            return None

    def _forward_equations(
        self, jaxpr: compat.Jaxpr, path: Path, eqns: tuple[compat.JaxprEqn, ...]
    ) -> Iterator[tuple[compat.JaxprEqn, list[Frame]]]:
        for number, eqn in enumerate(jaxpr.eqns):
            own_path = (*path, number)
            if self._phases.of(own_path) == "forward":
                yield eqn, [frame for frame in sources.joined_frames([*eqns, eqn]) if ownership.is_users(frame.file)]
            for slot, (_, sub) in enumerate(compat.sub_jaxprs(eqn)):
                yield from self._forward_equations(compat.open_jaxpr(sub)[0], (*own_path, slot), (*eqns, eqn))


def _inside(eqn: compat.JaxprEqn, slot: int) -> compat.Jaxpr:
    return compat.open_jaxpr(compat.sub_jaxprs(eqn)[slot][1])[0]


def _counterpart(jaxpr: compat.Jaxpr, number: int, other: compat.Jaxpr) -> compat.JaxprEqn | None:
    """The equation of another trace of a jaxpr that one of it is there; None where that is not certain.

    The other trace may have equations more, or less: it is the one before which as many of its primitive stand.
    """
    primitive = jaxpr.eqns[number].primitive
    numbers = [place for place, eqn in enumerate(jaxpr.eqns) if eqn.primitive is primitive]
    alike = [eqn for eqn in other.eqns if eqn.primitive is primitive]
    return alike[numbers.index(number)] if len(alike) == len(numbers) else None


def calls_transform(frame: Frame) -> bool:
    """Whether an expression calls one of the functions that stand in `jax` itself, which take functions."""
    node = sources.expression(frame)
    if not isinstance(node, ast.Call):
        return False
    function = node.func
    if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
        return _meant(frame.file, function.value.id) is jax and hasattr(jax, function.attr)
    return isinstance(function, ast.Name) and _meant(frame.file, function.id) is getattr(jax, function.id, jax)


def calls_own(frame: Frame) -> bool:
    """Whether an expression calls a function of the user's own, which may have a derivative of their own."""
    node = sources.expression(frame)
    if not isinstance(node, ast.Call):
        return False
    function = node.func
    while isinstance(function, ast.Attribute):
        function = function.value
    return not (isinstance(function, ast.Name) and (function.id in _library_names(frame.file) or _is_library_in(frame.file, function.id)))


def _is_library_in(file: str, name: str) -> bool:
    """Whether a name of a file's loaded module (by a star import, say) is a library's."""
    meant = inspect.unwrap(found) if callable(found := _meant(file, name)) else found
    home = getattr(meant, "__file__", None) or getattr(getattr(meant, "__code__", None), "co_filename", None)
    return home is not None and not ownership.is_users(home)


def _meant(file: str, name: str) -> object:
    """What a name stands for in a file's loaded module; None where that is not known."""
    modules = (module for module in list(sys.modules.values()) if getattr(module, "__file__", None) == file)
    return next((getattr(module, name) for module in modules if hasattr(module, name)), None)


@functools.lru_cache(maxsize=64)
def _library_names(file: str) -> frozenset[str]:
    """The names that a file imports from packages that the user did not write."""
    names: set[str] = set()
    for node in ast.walk(sources.parsed(file)):
        if isinstance(node, ast.Import):
            names |= {alias.asname or alias.name.split(".")[0] for alias in node.names if _is_library(alias.name)}
        elif isinstance(node, ast.ImportFrom) and not node.level and _is_library(node.module or ""):
            names |= {alias.asname or alias.name for alias in node.names}
    return frozenset(names)


def _is_library(module: str) -> bool:
    file = getattr(sys.modules.get(module.split(".")[0]), "__file__", None)
    return file is None or not ownership.is_users(file)


def operation(frame: Frame) -> str | None:
    """What an expression does, by name: the function that it calls, or its operator."""
    node = sources.expression(frame)
    if isinstance(node, ast.Call):
        function = node.func
        return function.attr if isinstance(function, ast.Attribute) else function.id if isinstance(function, ast.Name) else None
    if isinstance(node, ast.BinOp | ast.UnaryOp):
        return OPERATORS.get(type(node.op))
    return None
