"""The cost of watching every step: nd.guard, jax_debug_nans, checkify and a hand-written flag against the plain step.

    python benchmarks/guard_overhead.py [--rounds 40] [--seconds 0.3] [--only short] [--tool nd.guard]

Training loops, the state going round: a short MLP step, a 1.5 ms MLP step, the same with its state donated, and a transformer step of
75 ms. All tools run in one process and take turns within a round, a block of steps each; a figure is the time of a block over that of the
plain block of the same round. `plain again` over `plain` is the noise of the machine. Checkify's error and the flag are read after every
step, as their users do; what nd.guard has still to look at is looked at inside its block. Its own account of its cost stands below.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import checkify
from measure import ratios, seconds, settle_allocator, spread
from transformer import forward_failure

import nandetect as nd


@dataclass(frozen=True)
class Kind:
    """A training step: `step(*state, *batch) -> (*state, loss)`."""

    title: str
    step: Callable[..., Any]
    state: tuple[Any, ...]
    batch: tuple[Any, ...]
    donate: tuple[int, ...] = ()


def mlp(title: str, sizes: tuple[int, ...], samples: int, donate: bool = False) -> Kind:
    """A multi-layer perceptron under SGD with momentum."""
    keys = jax.random.split(jax.random.key(0), len(sizes))
    params = [
        {"w": jax.random.normal(key, (m, n)) * (2 / m) ** 0.5, "b": jnp.zeros(n)} for key, m, n in zip(keys, sizes, sizes[1:], strict=False)
    ]
    inputs, labels = jax.random.normal(keys[-1], (samples, sizes[0])), jnp.arange(samples) % sizes[-1]

    def loss(params, inputs, labels):
        *hidden, last = params
        for layer in hidden:
            inputs = jax.nn.relu(inputs @ layer["w"] + layer["b"])
        return -jnp.mean(jax.nn.log_softmax(inputs @ last["w"] + last["b"])[jnp.arange(samples), labels])

    def step(params, momentum, inputs, labels):
        value, grads = jax.value_and_grad(loss)(params, inputs, labels)
        momentum = jax.tree.map(lambda m, g: 0.9 * m + g, momentum, grads)
        return jax.tree.map(lambda p, m: p - 1e-4 * m, params, momentum), momentum, value

    return Kind(title, step, (params, jax.tree.map(jnp.zeros_like, params)), (inputs, labels), (0, 1) if donate else ())


def transformer(copies: int = 12) -> Kind:
    """The 6-layer transformer under Adam, on as many copies of its batch as make a step of some 75 ms on two cores."""
    failure = forward_failure()
    *state, count, tokens, targets = failure.healthy
    tokens, targets = (jnp.tile(array, (copies, 1)) for array in (tokens, targets))

    def step(params, first, second, count, tokens, targets):
        value, *new = failure.step(params, first, second, count, tokens, targets)
        return (*new, value)

    return Kind("transformer", step, tuple(state), (count, tokens, targets))


KINDS = {
    "short": lambda: mlp("short MLP", (64, 32, 32, 10), 16),
    "middle": lambda: mlp("MLP", (64, 512, 256, 10), 256),
    "donated": lambda: mlp("donated MLP", (64, 512, 256, 10), 256, donate=True),
    "transformer": transformer,
}


def trainers(kind: Kind) -> tuple[dict[str, Callable[[int], None]], Any]:
    """For each tool, a function that trains so many steps."""
    plain = jax.jit(kind.step, donate_argnums=kind.donate)
    guarded = nd.guard(plain)
    checked = jax.jit(checkify.checkify(kind.step, errors=checkify.float_checks))
    flagged = jax.jit(lambda *args: (out := kind.step(*args), jnp.isfinite(sum(jnp.sum(x) for x in jax.tree.leaves(out)))))

    def training(advance: Callable[..., Any]) -> Callable[[int], None]:
        state = jax.tree.map(jnp.copy, kind.state)

        def train(steps: int) -> None:
            nonlocal state
            out: Any = None
            for _ in range(steps):
                out = advance(*state, *kind.batch)
                state = out[:-1]
            jax.block_until_ready(out)

        return train

    def with_checkify(*args: Any) -> Any:
        error, out = checked(*args)
        error.throw()
        return out

    def with_flag(*args: Any) -> Any:
        out, sound = flagged(*args)
        if not sound:
            raise FloatingPointError
        return out

    train_guarded, train_debugged = training(guarded), training(plain)

    def with_guard(steps: int) -> None:
        train_guarded(steps)
        guarded.flush()

    def with_debug_nans(steps: int) -> None:
        with jax.debug_nans(True):
            train_debugged(steps)

    tools = {
        "plain": training(plain),
        "plain again": training(plain),
        "nd.guard": with_guard,
        "isfinite flag": training(with_flag),
        "jax_debug_nans": with_debug_nans,
        "checkify": training(with_checkify),
    }
    return tools, guarded.cost


TOOLS = ("nd.guard", "isfinite flag", "jax_debug_nans", "checkify")


def timed(train: Callable[[int], None], steps: int) -> float:
    return seconds(lambda: train(steps))


def turns(names: list[str], number: int) -> list[str]:
    """The order in one round: each round begins with the next, so that none always runs first."""
    first = number % len(names)
    return names[first:] + names[:first]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=0.3, help="of a block of plain steps")
    parser.add_argument("--only", choices=list(KINDS), action="append")
    parser.add_argument("--tool", choices=TOOLS, action="append", help="beside plain and plain again; all where none is named")
    options = parser.parse_args()
    settle_allocator()
    for name in options.only or KINDS:
        kind = KINDS[name]()
        tools, cost = trainers(kind)
        tools = {name: train for name, train in tools.items() if not options.tool or name in options.tool or name not in TOOLS}
        for train in tools.values():
            train(3)
        steps = max(10, int(options.seconds * 20 / timed(tools["plain"], 20)))
        for train in tools.values():
            train(steps)
        rounds = [{tool: timed(tools[tool], steps) for tool in turns(list(tools), at)} for at in range(options.rounds)]
        took = {tool: [one[tool] for one in rounds] for tool in tools}
        each = [1e3 * total / steps for total in took["plain"]]
        print(f"{kind.title}: plain {spread(each, ' ms')}, {options.rounds} rounds of {steps} steps")
        for tool in list(tools)[1:]:
            print(f"  {tool:<16} {spread(ratios(took[tool], took['plain']))}")
        if "nd.guard" in tools:
            print(f"  nd.guard itself says: {cost()}")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
