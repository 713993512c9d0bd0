"""The nouns of `nandetect inspect`: a traced program as a tree of equations, each with the place where its author wrote it. No JAX here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nandetect.records import Frame, Phase


@dataclass(frozen=True, slots=True, kw_only=True)
class Atom:
    """A value of the program: its name in the jaxpr (a literal's name is its value) and its type, `f32[8,64]`."""

    name: str
    type: str
    literal: bool = False

    def __str__(self) -> str:
        return f"{self.name}:{self.type}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Equation:
    """One equation: `expression` is the exact piece of source that it was made of, `context` the loops and branches around it.

    `call` is true of one that only groups others (a jit, a custom derivative); `bodies` holds what it runs.
    """

    primitive: str
    params: tuple[tuple[str, str], ...] = ()
    inputs: tuple[Atom, ...] = ()
    outputs: tuple[Atom, ...] = ()
    phase: Phase = "forward"
    frame: Frame | None = None
    expression: str = ""
    context: tuple[str, ...] = ()
    call: bool = False
    bodies: tuple[Body, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """A jaxpr: what goes in, the equations in order, what comes out. `name` is the parameter that holds it."""

    name: str = ""
    inputs: tuple[Atom, ...] = ()
    equations: tuple[Equation, ...] = ()
    outputs: tuple[Atom, ...] = ()

    def all_equations(self) -> Iterator[Equation]:
        """Every equation in program order, an enclosing one before those that it holds."""
        for equation in self.equations:
            yield equation
            for body in equation.bodies:
                yield from body.all_equations()


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """Consecutive lines of a source file: a function that the program runs through."""

    file: str
    first: int
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What `nandetect inspect` shows; `arguments` and `results` are the pytree paths of the program's inputs and outputs."""

    target: str
    program: Body
    arguments: tuple[str, ...] = ()
    results: tuple[str, ...] = ()
    passages: tuple[Passage, ...] = ()
