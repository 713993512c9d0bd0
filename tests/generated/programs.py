"""Programs written from a seed: real Python source with one fault, whose line bears the mark, or with none."""

from __future__ import annotations

import random
import textwrap
from dataclasses import dataclass, field, replace

from generated.constructs import CONSTRUCTS, Construct
from generated.faults import BIG, MARK, Fault
from generated.ops import LURES, OPS

HEADER = '''\
"""Seed {seed}: {kind}, {dtype}; {fault} in {path}."""

import sys
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import PartitionSpec as P

DTYPE = jnp.{dtype}
MATRIX = jnp.array([[0.5, -1.0, 0.25, 0.0], [1.0, 0.5, 0.0, -0.5], [0.0, 0.75, -0.5, 1.0], [0.25, 0.0, 1.0, 0.5]], DTYPE)
KERNEL = jnp.array([0.25, 0.5, -0.25], DTYPE)
EYE = jnp.eye(4, dtype=DTYPE)
HOT = jnp.array([0, 1, 0, 0], DTYPE)
ROW = jnp.array([0, 1], DTYPE)
MASK = jnp.array([True, True, True, False])
'''
MESH = 'MESH = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("d",))\n'

# `reading`: how often the loop reads its metric. What nobody reads and nothing keeps is no fault.
FOOTER = """

def trigger(on):
    return jnp.asarray(1.0 if on else 0.0, DTYPE)


def main(bad):
    state = initial()
    for number in range(5):
        state, metric = step(state, trigger(number == bad))
        if number % {reading} == 0:
            print(number, float(metric))
    print(metric, jax.tree.leaves(state))


if __name__ == "__main__":
    main(int(sys.argv[1]))
"""


@dataclass(frozen=True)
class Program:
    """The source of one program. `fault` and `kind` are the names of what was planted and of the step, `path` the constructs around it."""

    seed: int
    source: str
    fault: str
    kind: str
    dtype: str
    path: tuple[str, ...]
    donated: bool


@dataclass(frozen=True)
class Surroundings:
    """What stands around a function: how it is differentiated, and what may not be inside."""

    reverse: bool = False
    forward: bool = False
    inner: bool = False
    mapped: bool = False
    sharded: bool = False
    depth: int = 2


@dataclass
class Writer:
    """The source as it grows: whole functions, and what is known of the fault so far."""

    rng: random.Random
    dtype: str
    fault: Fault | None
    functions: list[str] = field(default_factory=list)
    numbers: int = 0
    path: tuple[str, ...] = ()
    place: Surroundings = Surroundings()
    differentiates: bool = False
    # Whether something differentiates that the fault is not in; and whether that which it is in gives the value beside the derivative.
    beside: bool = False
    gives_value: bool = False
    shards: bool = False

    def number(self) -> int:
        """The next number, for names that are used once."""
        self.numbers += 1
        return self.numbers


@dataclass
class Scope:
    """The vectors at hand in one function, those that do not descend from the fault, and those that nothing has used yet."""

    names: list[str]
    sound: list[str]
    unused: list[str]
    lines: list[str] = field(default_factory=list)


def function(writer: Writer, around: Surroundings, faulty: bool, path: tuple[str, ...] = ()) -> str:
    """Write a function of a vector and the trigger, and what it calls; its name comes back. With `faulty` the fault is in it or below."""
    rng, scope = writer.rng, Scope(["y"], ["y"], [])
    name = f"f{writer.number()}"
    # Few lines: a program's time goes into compiling it, and many small programs say more than few large ones.
    count = rng.randint(1, 3) if around.depth else rng.randint(0, 2)
    at = rng.randrange(count + 1) if faulty else -1
    for position in range(count + 1):
        if position == at:
            if around.depth and rng.random() < 0.75:
                _call(writer, scope, around, True, path)
            else:
                _plant(writer, scope, around, path)
        if position < count:
            _sound(writer, scope, around)
    unused = scope.unused or scope.names[-1:]
    total = " + ".join(unused)
    result = total if len(unused) == 1 else f"({total}) / {len(unused)}"
    body = textwrap.indent("\n".join([*scope.lines, f"return {result}"]), "    ")
    writer.functions.append(f"def {name}(y, t):\n{body}")
    return name


def _sound(writer: Writer, scope: Scope, around: Surroundings) -> None:
    drawn = writer.rng.random()
    if around.depth and drawn < 0.06:
        return _call(writer, scope, around, False, ())
    table, names = (LURES, scope.sound) if drawn < 0.3 and scope.sound else (OPS, scope.names)
    op = writer.rng.choice([op for op in table if op.suits(writer.dtype)])
    _add(writer, scope, op.text, names)


def _plant(writer: Writer, scope: Scope, around: Surroundings, path: tuple[str, ...]) -> None:
    assert writer.fault is not None
    fault = writer.fault
    hot = "t" if fault.scalar or writer.rng.random() < 0.5 else "t * HOT"
    second = "SECOND" if fault.gradient and around.inner else ""
    mark = f"  {MARK}: {' '.join(fault.primitives)} | PHASES | {fault.derivative}{second}".rstrip()
    lines = fault.lines
    if "BIG" in lines and (around.reverse or around.forward):
        # The derivative of what overflows would overflow by itself, in lines that are sound.
        lines = lines.replace("{a}", "lax.stop_gradient({a})").replace("{b}", "lax.stop_gradient({b})")
    text = lines.replace("BIG", BIG[writer.dtype]).replace(" <<", mark)
    writer.path, writer.place = path, around
    outer = fault.outer.replace(" <<", mark)
    _add(writer, scope, text, scope.names, faulty=True, t=hot, outer=outer)


def _call(writer: Writer, scope: Scope, around: Surroundings, faulty: bool, path: tuple[str, ...]) -> None:
    fitting = [construct for construct in CONSTRUCTS if _fits(writer, construct, around, faulty)]
    (construct,) = writer.rng.choices(fitting, [construct.weight for construct in fitting])
    inside = replace(
        around,
        depth=0 if construct.shallow else around.depth - 1,
        reverse=not construct.hides and (around.reverse or construct.inner in ("reverse", "both")),
        forward=not construct.hides and (around.forward or construct.inner in ("forward", "both")),
        inner=around.inner or bool(construct.inner),
        mapped=around.mapped or construct.batched,
        sharded=around.sharded or construct.sharded,
    )
    writer.differentiates |= bool(construct.inner)
    writer.beside |= bool(construct.inner) and not faulty
    writer.gives_value |= construct.value and faulty
    writer.shards |= construct.sharded
    called = function(writer, inside, faulty, (*path, construct.name))
    _add(writer, scope, construct.text, scope.names, faulty=faulty, f=called, t="t", outer=construct.outer)


def _fits(writer: Writer, construct: Construct, around: Surroundings, faulty: bool) -> bool:
    return not (
        (around.reverse and not construct.reverse)
        or (around.forward and not construct.forward)
        or (faulty and writer.fault is not None and not writer.fault.forward and construct.inner in ("forward", "both"))
        or (construct.inner == "both" and (around.inner or around.reverse or around.forward))
        or (construct.inner and around.inner)
        or ((around.mapped or around.sharded) and not construct.mapped)
    )


def _add(writer: Writer, scope: Scope, text: str, names: list[str], faulty: bool = False, outer: str = "", **values: str) -> None:
    """Write lines whose operands are drawn from `names`; their result is the newest vector."""
    rng, number = writer.rng, writer.number()
    # Mostly the newest, so that programs are deep rather than wide; never what descends from the fault where `names` are the sound ones.
    a = names[-1] if rng.random() < 0.6 else rng.choice(names)
    b = rng.choice(scope.sound if "jnp.sum({b})" in text and scope.sound else names)
    out = f"v{number}"
    values = {"a": a, "b": b, "out": out, "n": str(number), "pick": str(rng.randrange(3)), **values}
    if outer:
        writer.functions.append(outer.format(**values))
    lines = text.format(**values)
    scope.lines.append(_over_lines(lines) if not faulty and rng.random() < 0.15 else lines)
    for used in (a, b):
        if "{b}" in text or used == a:
            scope.unused = [name for name in scope.unused if name != used or used not in scope.sound]
    scope.names.append(out)
    scope.unused.append(out)
    if not faulty and a in scope.sound and b in scope.sound:
        scope.sound.append(out)


def _over_lines(text: str) -> str:
    """A statement of one line over several, as formatters write it."""
    if "\n" in text or not text.endswith(")") or " = " not in text:
        return text
    target, value = text.split(" = ", 1)
    return f"{target} = (\n    {value}\n)"
