"""The cost of watching every step: nd.guard, jax_debug_nans and checkify against the plain step.

    python benchmarks/guard_overhead.py [--rounds 10] [--steps 20]

All run in one process and take turns within a round; a figure is the time of a block of steps over the plain block of the same round.
`plain again` over `plain` is the noise of the machine. Checkify's error is read after every step, as its users do.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import checkify
from measure import ratios, seconds, spread
from transformer import forward_failure

import nandetect as nd


def small_step() -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """A three-layer MLP on 128 images: short enough that any cost per step shows."""
    keys = jax.random.split(jax.random.key(0), 4)
    sizes = (64, 256, 256, 10)
    params = [jax.random.normal(key, (m, n)) * m**-0.5 for key, m, n in zip(keys, sizes, sizes[1:], strict=False)]
    inputs, labels = jax.random.normal(keys[3], (128, 64)), jnp.arange(128) % 10

    def loss(params, inputs, labels):
        *hidden, last = params
        for weights in hidden:
            inputs = jax.nn.relu(inputs @ weights)
        return -jnp.mean(jax.nn.log_softmax(inputs @ last)[jnp.arange(128), labels])

    @jax.jit
    def step(params, inputs, labels):
        value, grads = jax.value_and_grad(loss)(params, inputs, labels)
        return value, jax.tree.map(lambda p, g: p - 0.01 * g, params, grads)

    return step, (params, inputs, labels)


def large_step() -> tuple[Callable[..., Any], tuple[Any, ...]]:
    failure = forward_failure()
    return failure.step, failure.healthy


def blocks(step: Callable[..., Any], args: tuple[Any, ...], steps: int) -> dict[str, Callable[[], None]]:
    """One block of steps for each tool, everything dispatched in it judged before it ends."""
    guarded = nd.guard(step)
    checked = jax.jit(checkify.checkify(step, errors=checkify.float_checks))

    def plain() -> None:
        for _ in range(steps):
            out = step(*args)
        jax.block_until_ready(out)

    def guard() -> None:
        for _ in range(steps):
            out = guarded(*args)
        guarded.flush()
        jax.block_until_ready(out)

    def debug_nans() -> None:
        with jax.debug_nans(True):
            plain()

    def checkified() -> None:
        for _ in range(steps):
            error, out = checked(*args)
            error.throw()
        jax.block_until_ready(out)

    return {"plain": plain, "plain again": plain, "nd.guard": guard, "jax_debug_nans": debug_nans, "checkify": checkified}


def turns(names: list[str], number: int) -> list[str]:
    """The order in one round: each round begins with the next, so that none always runs first."""
    first = number % len(names)
    return names[first:] + names[:first]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    for title, (step, args), steps in (
        ("MLP step", small_step(), 50 * options.steps),
        ("transformer step", large_step(), options.steps),
    ):
        tools = blocks(step, args, steps)
        for block in tools.values():
            block()
        rounds = [{name: seconds(tools[name]) for name in turns(list(tools), number)} for number in range(options.rounds)]
        took = {name: [one[name] for one in rounds] for name in tools}
        milliseconds = [1e3 * total / steps for total in took["plain"]]
        print(f"{title}: plain {spread(milliseconds, ' ms')}, {options.rounds} rounds of {steps} steps; min / median / max over plain")
        for name in list(tools)[1:]:
            print(f"  {name:<16} {spread(ratios(took[name], took['plain']))}")


if __name__ == "__main__":
    main()
