"""What the user calls a value: an argument's path, the variable it was assigned to, or the expression that made it."""

from __future__ import annotations

import ast
import functools

from nandetect import compat, ownership
from nandetect.compat import Atom, Jaxpr, JaxprEqn, Var
from nandetect.interpret.walk import Run
from nandetect.program import sources
from nandetect.program.phase import Phases
from nandetect.records import Frame, Source

LONGEST = 40


class Names:
    """Names for the variables of one program, with the names of its arguments given."""

    def __init__(self, jaxpr: Jaxpr, arguments: tuple[str, ...], phases: Phases):
        self._arguments = dict(zip(jaxpr.invars, arguments, strict=True))
        self._phases = phases

    def of(self, run: Run, atom: Atom) -> str:
        """The name of an atom in a run; empty where the user gave it none."""
        if isinstance(atom, compat.Literal):
            return ""
        if run.parent is None and atom in self._arguments:
            return self._arguments[atom]
        number = run.maker(atom)
        if number is None:
            outside = run.operand(atom)
            return self.of(run.parent, outside) if run.parent is not None and outside is not None else ""
        eqn = run.jaxpr.eqns[number]
        stack = sources.full_stack([*run.eqns, eqn])
        if self._phases.of((*run.path, number)) == "backward" and "rematted_computation" not in stack:
            # A derivative's equation has the source of the expression that it differentiates, whose name is not its own.
            return "cotangent" if "transpose(" in stack else ""
        return self._made(eqn, run, atom)

    def _made(self, eqn: JaxprEqn, run: Run, atom: Var) -> str:
        source = sources.source(eqn, run.eqns)
        if source is None or not ownership.is_users(source.file) or not _leaves(run, atom, source):
            return ""
        target = assigned(source)
        if target:
            return target
        text = sources.excerpt(source)
        return text if len(text) <= LONGEST and source.column is not None else ""


def _leaves(run: Run, atom: Var, source: Source) -> bool:
    """Whether a value gets out of the expression that made it: one that only a library's own steps read has no name of the user's."""
    if atom in run.jaxpr.outvars:
        return True
    readers = (sources.source(eqn, run.eqns) for eqn in run.jaxpr.eqns if atom in eqn.invars)
    return any(reader is None or sources.place(reader) != sources.place(source) for reader in readers)


def assigned(frame: Frame) -> str:
    """The variable that the expression of a frame is assigned to as a whole, if it is."""
    if frame.column is None:
        return ""
    return _assignments(frame.file).get((frame.line, frame.column, frame.end_line, frame.end_column), "")


@functools.lru_cache(maxsize=64)
def _assignments(file: str) -> dict[tuple[int, int | None, int | None, int | None], str]:
    """The variables of a file that whole expressions are assigned to, by the lines and columns of the expression."""
    names: dict[tuple[int, int | None, int | None, int | None], str] = {}
    for node in ast.walk(sources.parsed(file)):
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            value = node.value
            names[value.lineno, value.col_offset, value.end_lineno, value.end_col_offset] = node.targets[0].id
    return names
