"""Which pass each equation of a traced step belongs to: the forward pass, the backward pass or the update.

JAX writes into an equation's name stack what differentiation made it: `transpose(...)` for what pulls cotangents back, `jvp(...)` for
everything else under a differentiation. That does not settle it. The derivative's coefficients (the `0.5 / sqrt(x)` of a square root) are
tagged `jvp(...)` like the forward pass itself, and what computes the loss before differentiation, or the update after it, has no tag at
all. So the phase follows from the tags and from where values go:

- tagged `transpose`: backward;
- tagged `jvp`: forward if its value reaches a result of the step without passing a transposed equation, as a loss does; else it is a
  coefficient, which only transposed equations read: backward;
- no tag: update if it depends on a transposed equation; forward if it feeds something tagged or depends on it; else update.

Under several differentiations (a Hessian) the tags of one level decide, the outermost that transposes: an inner gradient that a loss is
made of is forward to the outer one. In forward mode nothing is transposed and tags tell nothing; see `forward_mode`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from typing import TypeAlias

from nandetect import compat
from nandetect.program import forward_mode
from nandetect.program.goals import NOWHERE, RESULT, Goals, Path, Sweep, Tag, union
from nandetect.records import Phase

Tags: TypeAlias = frozenset[Tag]

DEEPEST = 4
_DIFFERENTIATION = re.compile(r"\b(transpose|jvp)\(")
_NO_TAGS: Tags = frozenset()


class Phases:
    """The phase of every equation of a program, by its path. A program that is not differentiated is forward throughout.

    With `retrace`, which traces the program once more, derivatives in forward mode are told from what they are derivatives of. Without it
    the program is what ran one by one, which is no step as a whole: what feeds no derivative and no update is forward there.
    """

    def __init__(self, program: compat.AnyJaxpr, retrace: Callable[[], compat.AnyJaxpr] | None = None):
        jaxpr, _ = compat.open_jaxpr(program)
        self._jaxpr, self._retrace = jaxpr, retrace
        self.is_whole = retrace is not None
        self._phases: dict[Path, Phase] = {}
        self._forward_mode: frozenset[Path] = frozenset()
        level, tags = 0, _tags(jaxpr, (), "", 0)
        apart = forward_mode.told(jaxpr, tags, retrace) if retrace is not None else None
        # The outermost level that transposes decides: a Hessian is `jvp(transpose(...))`, and its first level transposes nothing.
        while apart is None and level + 1 < DEEPEST and "transpose" not in tags.values() and "jvp" in tags.values():
            level += 1
            tags = _tags(jaxpr, (), "", level)
        trains = "transpose" in tags.values()
        if apart is not None:
            # To all else, what makes a derivative in forward mode is as what transposes.
            tags |= dict.fromkeys(apart.derivatives, "transpose")
            self._forward_mode = apart.in_forward_mode
        self.differentiates = "transpose" in tags.values()
        if self.differentiates:
            goals = _goals(jaxpr, tags, dead_ends=level == 0)
            self._phases = _phases(jaxpr, tags, goals, "update" if trains else "forward")
            if retrace is None:
                self._phases = _by_use(jaxpr, self._phases, _phases(jaxpr, tags, goals, "forward"))
        if apart is not None:
            self._phases |= dict.fromkeys(apart.primals, "forward")

    def is_forward_mode(self, path: Sequence[int]) -> bool:
        """Whether the equation at `path` makes a derivative in forward mode."""
        return tuple(path) in self._forward_mode

    @functools.cached_property
    def _marks(self) -> dict[Path, int]:
        return (forward_mode.counted(self._jaxpr, self._retrace) if self._retrace is not None else None) or {}

    def is_derivative(self, path: Sequence[int]) -> bool:
        """Whether the equation at `path` computes nothing but a derivative, as far as is known. Traces the program once more."""
        return not self._marks.get(tuple(path))

    def is_surely_derivative(self, path: Sequence[int]) -> bool:
        """Whether the equation at `path` is known to compute nothing but a derivative. Traces the program once more."""
        return self._marks.get(tuple(path)) == 0

    def of(self, path: Sequence[int]) -> Phase:
        """The phase of the equation at `path`."""
        return self._phases.get(tuple(path), "forward")


def _tags(jaxpr: compat.Jaxpr, path: Path, outer: str, level: int) -> dict[Path, Tag]:
    """The tag of each equation at a level of differentiation, the outermost being 0; `outer` is the name stack of those that enclose."""
    tags: dict[Path, Tag] = {}
    for number, eqn in enumerate(jaxpr.eqns):
        own_path = (*path, number)
        stack = f"{outer}/{compat.name_stack(eqn)}"
        levels = _DIFFERENTIATION.findall(stack)
        tags[own_path] = levels[level] if level < len(levels) else ""
        for slot, (_, inner) in enumerate(compat.sub_jaxprs(eqn)):
            tags |= _tags(compat.open_jaxpr(inner)[0], (*own_path, slot), stack, level)
    return tags


def _goals(jaxpr: compat.Jaxpr, tags: dict[Path, Tag], dead_ends: bool) -> dict[Path, Goals]:
    """Where the value of each equation goes. With `dead_ends`, what the forward pass computes for nobody counts as a result."""
    sweep = Sweep(tags, dead_ends)
    sweep.into(jaxpr, (), [RESULT] * len(jaxpr.outvars))
    return sweep.goals


def _phases(jaxpr: compat.Jaxpr, tags: dict[Path, Tag], goals: dict[Path, Goals], aside: Phase) -> dict[Path, Phase]:
    """The phase of each equation, in a sweep from the arguments on over all nested jaxprs; `aside` is that of what feeds no derivative."""
    phases: dict[Path, Phase] = {}

    def sweep(jaxpr: compat.Jaxpr, path: Path, inputs: Sequence[Tags]) -> list[Tags]:
        """The tags of the equations that the results of a jaxpr depend on, by those that its inputs do."""
        depends: dict[compat.Var, Tags] = dict(zip(jaxpr.invars, inputs, strict=True))

        def read(atom: compat.Atom) -> Tags:
            return _NO_TAGS if isinstance(atom, compat.Literal) else depends.get(atom, _NO_TAGS)

        for number, eqn in enumerate(jaxpr.eqns):
            own_path = (*path, number)
            operands = [read(atom) for atom in eqn.invars]
            phases[own_path] = _phase(tags[own_path], goals.get(own_path, NOWHERE), union(operands), aside)
            for var, depending in zip(eqn.outvars, _results(eqn, own_path, tags[own_path], operands, sweep), strict=True):
                depends[var] = depending
        return [read(var) for var in jaxpr.outvars]

    sweep(jaxpr, (), [_NO_TAGS] * len(jaxpr.invars))
    return phases


def _by_use(jaxpr: compat.Jaxpr, phases: dict[Path, Phase], depending: dict[Path, Phase]) -> dict[Path, Phase]:
    """Phases in which only what feeds an update counts as one; `depending` are those in which only what depends on a gradient does."""
    uses = _goals(jaxpr, {path: "transpose" if phase == "update" else "" for path, phase in depending.items()}, dead_ends=False)
    return {path: phase if "derivative" in uses.get(path, NOWHERE) else depending[path] for path, phase in phases.items()}


def _results(
    eqn: compat.JaxprEqn,
    path: Path,
    tag: Tag,
    operands: list[Tags],
    sweep: Callable[[compat.Jaxpr, Path, Sequence[Tags]], list[Tags]],
) -> list[Tags]:
    """The tags that the values of an equation depend on: its own, those of its operands, and those of the equations within it."""
    every = union(operands)
    own: Tags = frozenset({tag}) if tag else _NO_TAGS
    results = [every | own] * len(eqn.outvars)
    for slot, (_, sub) in enumerate(compat.sub_jaxprs(eqn)):
        inner, _ = compat.open_jaxpr(sub)
        skipped = len(operands) - len(inner.invars)
        # A loop's body is swept once: an update that the carry brings back from the iteration before makes no loss an update.
        within = sweep(inner, (*path, slot), operands[skipped:] if skipped >= 0 else [every] * len(inner.invars))
        if len(within) != len(results):
            continue
        # The first jaxpr tells of each result what it depends on; where several may run (branches), each adds to that.
        is_first = slot == 0 and not tag
        results = within if is_first else [old | new for old, new in zip(results, within, strict=True)]
    return results


def _phase(tag: Tag, goals: Goals, depends: Tags, aside: Phase) -> Phase:
    """The phase of an equation, by its tag, where its value goes, and the tags of what it depends on."""
    if tag == "transpose":
        return "backward"
    if tag == "jvp":
        return "forward" if "result" in goals else "backward"
    if "transpose" in depends:
        return "update"
    return "forward" if "derivative" in goals or "jvp" in depends else aside
