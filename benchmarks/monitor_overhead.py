"""The cost of watching a run's health: `train`'s own step and `nd.Monitor` in a loop of one's own, against the plain loop.

    python benchmarks/monitor_overhead.py [--rounds 40] [--seconds 0.3] [--only middle] [--clock cpu]

An MLP under SGD with momentum: a 1.5 ms step of 3 layers, one of 50 layers with the same work in each, and a short step. All loops run in
one process and take turns within a round, a block of steps each, past the beginning of a run where everything is measured; a figure is the
time of a block over that of the plain block of the same round, `plain again` the noise of the machine. `returning grads` is the plain loop
whose step also returns its gradients, as one that is observed from outside must. On a busy machine `--clock cpu` counts the time of all
the process's threads instead of the time on the wall.
"""

from __future__ import annotations

import argparse
import functools
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from measure import ratios, settle_allocator, spread

import nandetect as nd
from nandetect.monitor import layout
from nandetect.targets import model_file
from nandetect.train.ledger import Ledger
from nandetect.train.optimizers import momentum
from nandetect.train.step import make_step

# (sizes, samples): in `deep` every layer does about what one of `middle` does.
KINDS = {
    "middle": ((64, 512, 256, 10), 384),
    "deep": ((64, *(320,) * 49, 10), 256),
    "short": ((64, 32, 32, 10), 16),
}
# After so many steps everything is measured as seldom as in the rest of a run.
_SETTLED = 500
WATCHING = ("train", "nd.Monitor")
LR = 1e-4


def loops(sizes: tuple[int, ...], samples: int) -> dict[str, Callable[[int], None]]:
    """For each way of watching, a function that trains so many steps."""
    model = model_file.load("mlp")
    params = model_file.initial(model, jax.random.key(0), sizes, "he", jnp.float32)
    inputs = jax.random.normal(jax.random.key(1), (samples, sizes[0]))
    labels = jax.nn.one_hot(jnp.arange(samples) % sizes[-1], sizes[-1])
    loss, optimizer = model.losses["stable"], momentum(LR)
    watched = jax.jit(make_step(model.apply, loss, optimizer), static_argnames=("full",))

    @functools.partial(jax.jit, static_argnames=("returning",))
    def plain(params: Any, state: Any, inputs: Any, labels: Any, returning: bool = False) -> Any:
        value, grads = jax.value_and_grad(lambda params: loss(model.apply(params, inputs), labels))(params)
        params, state = optimizer.update(params, state, grads)
        return params, state, value, grads if returning else None

    def by_hand(returning: bool, observe: Callable[..., object] | None = None) -> Callable[[int], None]:
        at = (params, optimizer.init(params))

        def train(steps: int) -> None:
            nonlocal at
            for _ in range(steps):
                *at, value, grads = plain(*at, inputs, labels, returning=returning)
                if observe is not None:
                    observe(params=at[0], grads=grads, loss=value)
            jax.block_until_ready(at)

        return train

    def as_train() -> Callable[[int], None]:
        at, last, ledger = (params, optimizer.init(params)), params, Ledger(100, samples, layout.of(params))

        def train(steps: int) -> None:
            nonlocal at, last
            for _ in range(steps):
                full = ledger.wants_all()
                before, last = at[0] if last is None else last, at[0] if ledger.will_want_all() else None
                *at, metrics = watched(*at, inputs, labels, before if full else at[0], full)
                ledger.enter(metrics["vitals"])
            ledger.settle()

        return train

    return {
        "plain": by_hand(False),
        "plain again": by_hand(False),
        "train": as_train(),
        "returning grads": by_hand(True),
        "nd.Monitor": by_hand(True, nd.Monitor().observe),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=0.3, help="of a block of plain steps")
    parser.add_argument("--only", choices=list(KINDS), action="append")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    options = parser.parse_args()
    clock = time.process_time if options.clock == "cpu" else time.perf_counter

    def timed(train: Callable[[int], None], steps: int) -> float:
        began = clock()
        train(steps)
        return clock() - began

    settle_allocator()
    for name in options.only or KINDS:
        tools = loops(*KINDS[name])
        for tool, train in tools.items():
            train(_SETTLED if tool in WATCHING else 5)
        each = np.median([timed(tools["plain"], 10) / 10 for _ in range(5)])
        # Whole periods of the plan by which everything is measured.
        steps = 100 * max(1, round(options.seconds / each / 100))
        order = list(tools)
        turns = [order[at % len(order) :] + order[: at % len(order)] for at in range(options.rounds)]
        rounds = [{tool: timed(tools[tool], steps) for tool in turn} for turn in turns]
        took = {tool: [one[tool] for one in rounds] for tool in tools}
        plain = [1e3 * total / steps for total in took["plain"]]
        print(f"{name}, {len(KINDS[name][0]) - 1} layers: plain {spread(plain, ' ms')}, {options.rounds} rounds of {steps} steps")
        for tool in order[1:]:
            print(f"  {tool:<16} {spread(ratios(took[tool], took['plain']))}")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
