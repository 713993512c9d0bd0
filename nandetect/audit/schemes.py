"""The schemes by which kernels are rightly drawn, as data: a variance for a kernel's fans, and where it is right."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from nandetect.audit.weight_statistics import CUT, Form

# The operation that a kernel's product goes into; "" where nothing is known.
Follows = Literal[
    "", "relu", "leaky_relu", "tanh", "sigmoid", "gelu", "silu", "softplus", "elu", "selu", "sin", "softmax",
    "norm", "residual", "attention", "gate", "kernel", "output", "other",
]  # fmt: skip
ANY: frozenset[Form] = frozenset({"normal", "uniform", "truncated"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Fans:
    """A kernel's fan-in and fan-out, the window counted in both; `window` is the number of positions in a convolution's, 1 for a matrix.

    `shape` is the kernel's. `why` says how the fans were read off it, in words that end a sentence; empty where the program shows them.
    """

    fan_in: int
    fan_out: int
    window: int = 1
    shape: tuple[int, ...] = ()
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the rest of the model says of a kernel: `blocks` are the numbers of repeated blocks that it may be one of, `zeros` how many
    kernels are zero, `small_normals` how many could have been drawn with GPT-2's 0.02, `is_recurrent` whether its name says that it is a
    cell's, `is_last` whether no other kernel comes after it, `normalised` whether the model has normalisation layers."""

    follows: Follows = ""
    is_last: bool = False
    blocks: tuple[int, ...] = ()
    zeros: int = 0
    is_recurrent: bool = False
    normalised: bool = False
    small_normals: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """A right way to draw a kernel. `formula` is its standard deviation in m inputs and n outputs, `name` as people call it.

    A `tolerated` one is common and works in a shallow net, but is not what the nonlinearity wants. An `exact` one is either drawn by a
    library or so rare that a kernel is taken to have it only where its variance is within a twentieth.
    """

    name: str
    formula: str
    variance: Callable[[Fans], float]
    forms: frozenset[Form] = ANY
    source: str = ""
    tolerated: bool = False
    exact: bool = False


HE = Scheme(name="He", formula="sqrt(2 / m)", variance=lambda f: 2 / f.fan_in, source="He et al. 2015, arXiv 1502.01852")
LECUN = Scheme(name="LeCun", formula="sqrt(1 / m)", variance=lambda f: 1 / f.fan_in, source="LeCun et al. 1998, and the default of flax")
GLOROT = Scheme(
    name="Glorot",
    formula="sqrt(2 / (m + n))",
    variance=lambda f: 2 / (f.fan_in + f.fan_out),
    source="Glorot and Bengio 2010",
)
TORCH = Scheme(
    name="torch's default",
    formula="sqrt(1 / (3 * m))",
    variance=lambda f: 1 / (3 * f.fan_in),
    forms=frozenset({"uniform"}),
    exact=True,
    source="the default of torch and equinox",
)
HAIKU = Scheme(
    name="haiku's default",
    formula="0.88 * sqrt(1 / m)",
    variance=lambda f: CUT / f.fan_in,
    forms=frozenset({"truncated"}),
    exact=True,
    source="the default of haiku, not corrected for what it cuts off",
)
BERT = Scheme(
    name="BERT's 0.02",
    formula="0.88 * 0.02",
    variance=lambda f: CUT * 0.02**2,
    forms=frozenset({"truncated"}),
    exact=True,
    source="Devlin et al. 2018",
)
GPT2 = Scheme(
    name="GPT-2's 0.02",
    formula="0.02",
    variance=lambda f: 0.02**2,
    forms=frozenset({"normal", "truncated"}),
    exact=True,
    source="Radford et al. 2019",
)
MUP_READOUT = Scheme(
    name="muP's readout", formula="1 / m", variance=lambda f: 1 / f.fan_in**2, exact=True, source="Yang et al. 2022, arXiv 2203.03466"
)
TANH_GAIN = Scheme(
    name="LeCun with tanh's gain", formula="5/3 * sqrt(1 / m)", variance=lambda f: 25 / 9 / f.fan_in, exact=True, source="torch's gains"
)
SIGMOID_GAIN = Scheme(
    name="Glorot with sigmoid's gain",
    formula="4 * sqrt(2 / (m + n))",
    variance=lambda f: 32 / (f.fan_in + f.fan_out),
    exact=True,
    source="Glorot and Bengio 2010",
)
SIREN = Scheme(
    name="SIREN",
    formula="sqrt(2 / m) / 30",
    variance=lambda f: 2 / f.fan_in / 900,
    forms=frozenset({"uniform"}),
    exact=True,
    source="arXiv 2006.09661",
)
SIREN_FIRST = Scheme(
    name="SIREN's first layer",
    formula="sqrt(1 / 3) / m",
    variance=lambda f: 1 / 3 / f.fan_in**2,
    forms=frozenset({"uniform"}),
    exact=True,
    source="arXiv 2006.09661",
)
T5_QUERY = Scheme(
    name="T5's query",
    formula="sqrt(1 / (m * n))",
    variance=lambda f: 1 / (f.fan_in * max(f.shape[-1] if f.shape else 1, 1)),
    exact=True,
    source="Raffel et al. 2019",
)
# Standard deviations that people draw a last layer with.
_SMALL = (0.01, 0.001)
# The widest window that a convolution is taken to have: a longer axis counts layers or heads.
_WIDEST = 16
_RECTIFIED = frozenset({"relu", "leaky_relu"})


def legitimate(around: Surroundings, fans: Fans) -> Iterator[Scheme]:
    """Every scheme that a kernel may rightly have, the likeliest first; last those that are only tolerated."""
    follows = around.follows
    rectified = follows in _RECTIFIED
    yield HE
    if not rectified:
        yield from (LECUN, GLOROT, TORCH, HAIKU)
    if not rectified or around.normalised:
        yield from (GPT2, BERT)
    if follows == "tanh":
        yield TANH_GAIN
    if follows == "sigmoid":
        yield SIGMOID_GAIN
    if follows == "sin":
        yield from (SIREN, SIREN_FIRST)
    if follows == "attention":
        yield T5_QUERY
    if around.is_last:
        yield MUP_READOUT
        yield from (_fixed(small) for small in _SMALL)
    if around.is_recurrent:
        yield from (_of_cell(gates) for gates in (1, 3, 4))
    yield from _by_depth(around)
    if rectified:
        yield from (_tolerated(scheme) for scheme in (LECUN, GLOROT, TORCH, HAIKU))


def _fixed(deviation: float) -> Scheme:
    return Scheme(name=f"a small output, {deviation:g}", formula=f"{deviation:g}", variance=lambda f: deviation**2, exact=True)


def _of_cell(gates: int) -> Scheme:
    """The scheme of torch's and equinox's cells, which draw everything by the size of their state: a kernel has it once for each gate."""
    source = "the cells of torch and equinox"
    return replace(
        TORCH, name="torch's cell", variance=lambda f: gates / (3 * f.fan_out), formula=f"sqrt({gates} / (3 * n))", source=source
    )


def _tolerated(scheme: Scheme) -> Scheme:
    return replace(scheme, tolerated=True)


def _by_depth(around: Surroundings) -> Iterator[Scheme]:
    """The schemes that scale a branch of a residual net down, for any of the numbers of blocks that the model may have."""
    for blocks in around.blocks:
        for base in (HE, LECUN, GLOROT, GPT2):
            yield _scaled(base, 1 / (2 * blocks), f"{base.name} over sqrt(2L), L = {blocks}", "GPT-2's residual scaling")
            yield _scaled(base, 1 / blocks, f"{base.name} over sqrt(L), L = {blocks}", "residual scaling")
        yield _scaled(GLOROT, 1 / math.sqrt(8 * blocks), f"DeepNorm, L = {blocks}", "arXiv 2203.00555")
    if around.zeros >= 2:
        # Fixup draws the last kernel of each branch as 0, and the others smaller the more branches there are.
        for branches in {around.zeros, *around.blocks}:
            for kernels in (2, 3):
                factor = branches ** (-1 / (kernels - 1))
                yield _scaled(HE, factor, f"Fixup, L = {branches}", "Zhang et al. 2019, arXiv 1901.09321")
    if around.small_normals >= 2:
        for blocks in range(1, 101):
            yield _scaled(GPT2, 1 / (2 * blocks), f"GPT-2's 0.02 over sqrt(2L), L = {blocks}", "Radford et al. 2019")


def _scaled(base: Scheme, factor: float, name: str, source: str) -> Scheme:
    return Scheme(
        name=name,
        formula=f"{base.formula} * {math.sqrt(factor):.3g}",
        variance=lambda f: base.variance(f) * factor,
        forms=base.forms,
        source=source,
        exact=True,
    )


def is_window(shape: tuple[int, ...], outputs_first: bool = False) -> bool:
    """Whether a shape is most likely that of a convolution over two axes or more: its window is as long in each, and small."""
    window = shape[2:] if outputs_first else shape[:-2]
    return len(window) > 1 and len(set(window)) == 1 and window[0] <= _WIDEST


def readings(shape: tuple[int, ...], outputs_first: bool = False, may_be_stack: bool = False) -> tuple[Fans, ...]:
    """The fans that a shape allows without a program, the most usual first.

    A matrix is (in, out), a convolution (*window, in, out); with `outputs_first`, (out, in) and (out, in, *window). A leading axis may
    count stacked layers or an ensemble's members, and an attention's kernel is (in, heads, size) or (heads, size, out). What looks like a
    convolution is one, unless it `may_be_stack`.
    """
    read = _outputs_first if outputs_first else _inputs_first
    window = shape[2:] if outputs_first else shape[:-2]
    if is_window(shape, outputs_first) and not may_be_stack:
        return (read(shape),)
    fans = [read(shape)] if all(size <= _WIDEST for size in window) else []
    fans += [read(shape[axes:]) for axes in range(1, len(shape) - 1)]
    if len(shape) > 2 and not outputs_first:
        for kept in (shape[axes:] for axes in range(max(len(shape) - 4, 0), len(shape) - 2)):
            fans.append(Fans(fan_in=kept[0], fan_out=math.prod(kept[1:]), why="read as (in, heads, size)"))
            fans.append(Fans(fan_in=math.prod(kept[:-1]), fan_out=kept[-1], why="read as (heads, size, out)"))
    return tuple(replace(read_as, shape=shape) for read_as in fans)


def _inputs_first(shape: tuple[int, ...]) -> Fans:
    *window, inside, outside = shape
    size = math.prod(window)
    why = f"read as (in, out) = ({inside}, {outside})" if not window else "read as (*window, in, out)"
    return Fans(fan_in=size * inside, fan_out=size * outside, window=size, shape=shape, why=why)


def _outputs_first(shape: tuple[int, ...]) -> Fans:
    outside, inside, *window = shape
    size = math.prod(window)
    why = f"read as (out, in) = ({outside}, {inside})" if not window else "read as (out, in, *window)"
    return Fans(fan_in=size * inside, fan_out=size * outside, window=size, shape=shape, why=why)
