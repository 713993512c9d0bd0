"""What was measured of a step, by which its speed is judged: seconds are of one step, bytes of one state. No JAX here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nandetect.program.sources import Place
from nandetect.records import Frame

Where = Frame | Place | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Jitting:
    """A step of `operations` that run one by one, and the same compiled. `name` is the function's, where there is one to jit.

    Where these are only what a loop does beside the compiled functions that it calls, `of_seconds` is the time of the whole step.
    """

    name: str
    operations: int
    seconds: float
    jitted_seconds: float
    where: Where = None
    is_function: bool = True
    of_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """What changed `count` times: the shape, say, of the argument at `path` and of `others` together with it; `example` is the first time.

    Where no argument changed, `kind` is `function` (a new function object made of the same source) or `settings` (JAX's own).
    """

    kind: str
    path: str = ""
    others: int = 0
    example: str = ""
    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Recompiling:
    """A function that was compiled `count` times in `calls`; `seconds` went into all compilations but the first, of `of_seconds` in all.

    `spread` is the share of that time from the first compilation to the last. `reasons` begin with the commonest.
    """

    name: str
    count: int
    calls: int
    seconds: float
    of_seconds: float
    spread: float
    reasons: tuple[Reason, ...]
    where: Where = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Widening:
    """float32 data that a step computes with in float64: `what`, an `argument` maybe, meets it at `where`; so do `count` arrays in all.

    The arguments `wide` are float64 themselves.
    """

    name: str
    what: str
    where: Where
    count: int
    seconds: float
    narrow_seconds: float
    argument: str | None = None
    wide: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossing:
    """What makes a step go to the host: a callback in the program, a number that the loop reads, or arguments that lie on the host.

    `without_seconds` is the step without it. Of a number that is read, that is the most that reading it later can save. `size` are the
    bytes of arguments; `returns` says of a callback that the step needs what it returns. There are `others` like it.
    """

    kind: Literal["callback", "read", "upload"]
    name: str
    what: str
    seconds: float
    without_seconds: float
    where: Where = None
    size: int = 0
    others: int = 0
    returns: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Donation:
    """A state of `size` bytes that a step takes and gives back without donating it: the step's memory and time as it is, and donated."""

    name: str
    arguments: tuple[str, ...]
    positions: tuple[int, ...]
    size: int
    memory: int
    donated_memory: int
    seconds: float
    donated_seconds: float
