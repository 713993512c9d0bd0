"""What the user calls a value: an argument's path, the variable it was assigned to, or the expression that made it."""

from __future__ import annotations

import ast
import functools

from nandetect import compat, ownership, primitives
from nandetect.compat import Atom, Jaxpr, JaxprEqn, Var
from nandetect.interpret.walk import Run
from nandetect.program import sources
from nandetect.program.derivative import Derivatives
from nandetect.program.phase import Phases
from nandetect.records import Frame, Source

LONGEST = 40


class Names:
    """Names for the variables of one program, with the names of its arguments given."""

    def __init__(self, jaxpr: Jaxpr, arguments: tuple[str, ...], phases: Phases, derivatives: Derivatives):
        self._arguments = dict(zip(jaxpr.invars, arguments, strict=True))
        self._phases, self._derivatives = phases, derivatives

    def of(self, run: Run, atom: Atom) -> str:
        """The name of an atom in a run; empty where the user gave it none."""
        if isinstance(atom, compat.Literal):
            return ""
        if run.parent is None and atom in self._arguments:
            return self._arguments[atom]
        number = run.maker(atom)
        if number is None:
            outside = run.operand(atom) or _given_to_loop(run, atom)
            return self.of(run.parent, outside) if run.parent is not None and outside is not None else _parameter(run, atom)
        eqn = run.jaxpr.eqns[number]
        stack = sources.full_stack([*run.eqns, eqn])
        if self._phases.of((*run.path, number)) == "backward" and "rematted_computation" not in stack:
            # A derivative's equation has the source of the expression that it differentiates, whose name is not its own.
            return self._pulled_back(run, number) if "transpose(" in stack else ""
        name = self._made(eqn, run, atom)
        # A number that is only stretched or converted for the operation keeps its name.
        onward = not name and (primitives.of(eqn).reshapes or primitives.of(eqn).same)
        return self.of(run, eqn.invars[0]) if onward else name

    def _pulled_back(self, run: Run, number: int) -> str:
        """What a backward equation gives: by its own name where a derivative rule of the user's computes it."""
        eqn, path = run.jaxpr.eqns[number], (*run.path, number)
        rule = self._derivatives.own_rule(path, sources.source(eqn, run.eqns))
        return (assigned(rule) or _expression(rule) if rule is not None else "") or "cotangent"

    def _made(self, eqn: JaxprEqn, run: Run, atom: Var) -> str:
        source = sources.source(eqn, run.eqns)
        if source is None or not ownership.is_users(source.file) or not _leaves(run, atom, source):
            return ""
        target = assigned(source)
        if target:
            return target
        return _expression(source)


def _expression(source: Source) -> str:
    """An expression as it is written, where it is short."""
    text = sources.excerpt(source)
    return text if len(text) <= LONGEST and source.column is not None else ""


def _given_to_loop(run: Run, atom: Var) -> Atom | None:
    """The operand of a loop that an argument of its iterations is in all of them; None for what is carried, and for rows."""
    if run.entry is None or not primitives.named(run.entry[0]).loops or atom not in run.jaxpr.invars:
        return None
    eqn, position = run.eqns[-1], run.jaxpr.invars.index(atom)
    scans = run.entry[0] == "scan"
    first, count = (0, compat.scan_parts(eqn)[0]) if scans else (eqn.params["cond_nconsts"], eqn.params["body_nconsts"])
    return eqn.invars[first + position] if position < count else None


def _parameter(run: Run, atom: Var) -> str:
    """What the user's own body of a loop calls its argument: `carry[0]`, `row['x']`."""
    names = getattr(run.jaxpr.debug_info, "arg_names", None)
    file = getattr(run.jaxpr.debug_info, "func_filename", None)
    if atom not in run.jaxpr.invars or not names or len(names) != len(run.jaxpr.invars) or not file or not ownership.is_users(file):
        return ""
    return names[run.jaxpr.invars.index(atom)] or ""


def _leaves(run: Run, atom: Var, source: Source) -> bool:
    """Whether a value gets out of the expression that made it: one that only a library's own steps read has no name of the user's."""
    if atom in run.jaxpr.outvars:
        results = run.eqns[-1].outvars if run.parent is not None and run.operands else []
        if run.parent is None or len(results) != len(run.jaxpr.outvars):
            return True
        # What comes out of a library's inner function goes on in the library.
        return _leaves(run.parent, results[run.jaxpr.outvars.index(atom)], source)
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
