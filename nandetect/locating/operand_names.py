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


def made_by(run: Run, atom: Atom, near: Source | None) -> str:
    """What a value without a name is: "the result of `sqrt` at line 12"; empty for an argument and a literal."""
    found = _maker(run, atom)
    if found is None:
        return ""
    eqn, around = found
    source = sources.source(eqn, around)
    elsewhere = source is not None and near is not None and (source.file, source.line) != (near.file, near.line)
    return f"the result of `{eqn.primitive.name}`" + (f" at line {source.line}" if source is not None and elsewhere else "")


def _maker(run: Run, atom: Atom) -> tuple[JaxprEqn, tuple[JaxprEqn, ...]] | None:
    """The equation that computed a value, out of the loops, calls and shards that handed it on, with those that it stands in."""
    while not isinstance(atom, compat.Literal):
        number = run.maker(atom)
        if number is None:
            outside = run.operand(atom) or _given_to_loop(run, atom, rows=True)
            if run.parent is None or outside is None:
                return None
            run, atom = run.parent, outside
            continue
        eqn = run.jaxpr.eqns[number]
        if primitives.of(eqn).hands_on or primitives.of(eqn).reshapes:
            atom = eqn.invars[1 if primitives.of(eqn).selects else 0]
            continue
        return _inside(eqn, eqn.outvars.index(atom), run.eqns)
    return None


def _inside(eqn: JaxprEqn, output: int, around: tuple[JaxprEqn, ...]) -> tuple[JaxprEqn, tuple[JaxprEqn, ...]] | None:
    """The equation that makes a result of an equation that carries a program; that one itself where it carries none."""
    inner = [compat.open_jaxpr(sub)[0] for _, sub in compat.sub_jaxprs(eqn)]
    body = next((jaxpr for jaxpr in reversed(inner) if len(jaxpr.outvars) == len(eqn.outvars)), None)
    if body is None:
        return eqn, around
    atom = body.outvars[output]
    while not isinstance(atom, compat.Literal):
        made = next((made for made in body.eqns if atom in made.outvars), None)
        if made is None:
            return None
        if not (primitives.of(made).hands_on or primitives.of(made).reshapes):
            return _inside(made, made.outvars.index(atom), (*around, eqn))
        atom = made.invars[1 if primitives.of(made).selects else 0]
    return None


def _expression(source: Source) -> str:
    """An expression as it is written, where it is short."""
    text = sources.excerpt(source)
    return text if len(text) <= LONGEST and source.column is not None else ""


def _given_to_loop(run: Run, atom: Var, rows: bool = False) -> Atom | None:
    """The operand of a loop that an argument of its iterations is in all of them; None for what is carried, and for rows unless asked."""
    if run.entry is None or not primitives.named(run.entry[0]).loops or atom not in run.jaxpr.invars:
        return None
    eqn, position = run.eqns[-1], run.jaxpr.invars.index(atom)
    scans = run.entry[0] == "scan"
    first, count = (0, compat.scan_parts(eqn)[0]) if scans else (eqn.params["cond_nconsts"], eqn.params["body_nconsts"])
    carried = compat.scan_parts(eqn)[1] if scans else len(eqn.outvars)
    return eqn.invars[first + position] if position < count or (rows and position >= count + carried) else None


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
    # What the expression calls (the field of `sol = solve(field)`) reads within it, under a name of its own.
    return any(reader is None or sources.place(source) not in map(sources.place, (reader, *reader.frames)) for reader in readers)


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
