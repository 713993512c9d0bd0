"""The record of a primitive: its names, and everything that a room asks of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum, auto
from typing import Any, Literal, Protocol

from nandetect.primitives.edges import Edge
from nandetect.primitives.exact import Exact

Params = Mapping[str, Any]


class Named(Protocol):
    """What has a name: a primitive of JAX's."""

    @property
    def name(self) -> str: ...


class Equation(Protocol):
    """What stands for an equation of a jaxpr where only its primitive is asked for."""

    @property
    def primitive(self) -> Named: ...

    @property
    def params(self) -> Params: ...


class Use(IntEnum):
    """What an equation does with a value: only copies, selects or compares it; only shifts it by a sum; computes with it.

    `MET` is said of what another non-finite value met on the way: the result would have been non-finite without it too.
    """

    MOVED = 0
    SHIFTED = 1
    COMPUTED = 2
    MET = 3


class Depends(Enum):
    """Which elements of an operand an element of the result depends on; `interpret.dependence` has a function for each."""

    WIDE = auto()  # on all of them: never wrong, only wide
    ELEMENTWISE = auto()  # on the one in the same place
    MOVED = auto()  # on the one that was moved there
    NUMBERED = auto()  # on the one that was moved there, which JAX itself must tell: `gather`, `scatter`
    CONTRACTED = auto()  # on a row of one operand and a column of the other
    ALONG = auto()  # on all along some axes
    PERMUTED = auto()  # on the one that was sorted there
    RUNNING = auto()  # on those up to its own along an axis
    WINDOWED = auto()  # on those of its window
    ADDITIVE = auto()  # on its own and on the updates that were added to it
    CONVOLVED = auto()  # on its neighbours in an image and on the whole kernel


@dataclass(frozen=True, slots=True, kw_only=True)
class Primitive:
    """What nandetect knows of one primitive. The defaults are what is said of one that the table does not have.

    An equation of an unknown primitive is run by XLA, its results depend on every element of every operand and are computed from them, and
    a jaxpr that it carries is entered where its arguments are the equation's operands.
    """

    name: str
    # Other names, in the versions of JAX that are supported.
    aliases: tuple[str, ...] = ()

    # What it does with the values of its operands.
    use: Use = Use.COMPUTED
    depends: Depends = Depends.WIDE
    # The axes of an operand of so many dimensions along which a result depends on all elements, and whether the result keeps them.
    axes: Callable[[Params, int], tuple[int, ...]] | None = None
    keeps_axes: bool = False
    # The operands that hold the elements it moves, where not all do.
    moved: tuple[int, ...] | None = None
    # It gives elements of its operands as they are, in other places.
    hands_on: bool = False
    # It gives all elements of its operand, in another shape or type.
    reshapes: bool = False
    # It gives the same numbers: a state that went through nothing else is still that state.
    same: bool = False
    # It gives its operands whole, each as a result.
    copies: bool = False
    # It takes each element from one of several operands; `selects` where the first operand says from which.
    chooses: bool = False
    selects: bool = False

    # It asks whether something is finite.
    tests: bool = False

    # The kind of arithmetic.
    adds: bool = False
    multiplies: bool = False
    sums: bool = False
    # It sums over windows, which JAX must compile anew to tell apart.
    sums_windows: bool = False
    casts: bool = False
    bounds: bool = False
    # It gives 0 where an operand is 0, by the mathematics.
    zero_at_zero: bool = False
    # It can give 0 from what is not 0.
    underflows: bool = False
    # The compiler may keep its result in float32 where the program says float16 or bfloat16.
    fuses_wider: bool = False
    # It is the inverse of these, but for a factor: of the 0 that they give of -inf it gives -inf back.
    undoes: frozenset[str] = frozenset()
    # It takes a whole matrix apart.
    factors: bool = False
    # It draws random bits.
    draws: bool = False

    # What it carries, and who runs it. Another library's primitive may have the same name: without all of these parameters it is that one.
    carries: frozenset[str] = frozenset()
    loops: bool = False
    # It runs one of several jaxprs, by the number that is its first operand.
    branches: bool = False
    # It carries one jaxpr over its own operands, and does nothing else: jit, remat, custom derivatives.
    calls: bool = False
    # It reduces by a function that it carries, and does with values what that function does.
    reduces: bool = False
    # It carries the jaxprs of a linear solve, of which only the solve runs.
    solves: bool = False
    # It runs a program that is not XLA's: its results are checked, it is not looked inside.
    opaque: bool = False
    # It calls a Python function whose results the program needs, or which has an effect.
    calls_back: bool = False
    # It only prints.
    prints: bool = False
    # Each of its results may depend on every operand, also where its jaxpr does not show it: through a loop's condition, another shard.
    spreads: bool = False
    # JAX runs it operation by operation where it is not compiled.
    piecemeal: bool = False
    # It mixes the shards of a `shard_map`.
    crosses: bool = False
    # It only says over which axes of a mesh a value varies; or it is a function of `jax.lax`, by name, that says so of its result.
    varies: bool = False
    unchecked: str = ""

    # numpy's function that gives XLA's result bit for bit, by name, since renderers read records without numpy; and on which types it does.
    # It goes over axes, where `axes` are given.
    numpy: str = ""
    numpy_on: Literal["numbers", "floats", "booleans"] = "numbers"
    # Which zero comes out where 0.0 and -0.0 meet is XLA's own choice.
    chooses_zero: bool = False

    # Why it gives what is not finite, told from the values at an element of so many operands; or in one phrase of the whole.
    edge: Edge | None = None
    takes: int = 1
    whole: str = ""
    # An operand that breaks it is told as one at the edge of where it is defined (`acos` at 1); or as a negative one (`log` of -1).
    has_ends: bool = False
    positive_only: bool = False
    # What it makes of integers that have no bounds, from its parameters and the elements of its operands that one of a result is made of.
    exact: Exact | None = None
    # It joins truth values, and an operand with this one decides the result.
    joins: bool | None = None
    # How it is written between two operands.
    infix: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """All its names."""
        return self.name, *self.aliases

    def moved_of(self, count: int) -> tuple[int, ...]:
        """Which of so many operands hold the elements that it moves; the others say where to."""
        if self.moved is not None:
            return self.moved
        return tuple(range(1 if self.selects else 0, count))
