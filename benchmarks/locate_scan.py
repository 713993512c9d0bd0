"""Time and memory for `nd.locate` to find the iteration of a long scan that broke, against the plain compiled run.

    python benchmarks/locate_scan.py [--rounds 3] [--lengths 10000 100000 1000000] [--width 16]

The body has 20 equations on f32[width]; a budget falls by one an iteration, and the log of it is -inf in the iteration known beforehand.
Every length and round is a fresh process. Memory is the process's peak: before, and by how much `locate` raised it.
"""

from __future__ import annotations

import argparse
import json
import os

from measure import in_fresh_process, peak_megabytes, ratios, seconds, spread

ALLOWED = "the goal: locate within 5 times the plain compiled run plus 10 s"


def decay(length: int, width: int, fails_at: int):
    import jax
    import jax.numpy as jnp
    from jax import lax

    def body(carry, _):
        position, speed, budget = carry
        rate = jnp.log(budget)
        force = jnp.tanh(position) - jnp.sin(speed)
        speed = 0.9 * speed + 0.01 * force + 0.001 * jnp.cos(position)
        energy = jnp.sqrt(1.0 + speed * speed)
        position = 0.99 * position + 0.01 * speed / energy + 1e-9 * rate
        return (position, speed, budget - 1.0), None

    @jax.jit
    def run(position):
        # Whole numbers below 2**24 are exact in float32, so the budget is exactly 0 in iteration `fails_at`.
        carry, _ = lax.scan(body, (position, jnp.zeros_like(position), jnp.float32(fails_at)), None, length=length)
        return carry[0]

    return run, (jnp.linspace(0.0, 1.0, width),)


def measure(length: int, width: int) -> dict[str, object]:
    import jax
    from transformer import equations

    import nandetect as nd

    fails_at = length * 7 // 10
    run, args = decay(length, width, fails_at)
    jax.block_until_ready(run(*args))
    body = next(eqn for eqn in run.trace(*args).jaxpr.jaxpr.eqns if eqn.primitive.name == "scan").params["jaxpr"].jaxpr
    plain = min(seconds(lambda: jax.block_until_ready(run(*args))) for _ in range(5))
    before = peak_megabytes()
    found: list[object] = []
    cold = seconds(lambda: found.append(nd.locate(run, *args)))
    grown = peak_megabytes() - before
    warm = seconds(lambda: found.append(nd.locate(run, *args)))
    origin = found[0].origin if found[0] is not None else None
    return {
        "width": width,
        "equations": equations(body),
        "plain": plain,
        "cold": cold,
        "warm": warm,
        "before": before,
        "grown": grown,
        "truth": fails_at,
        "found": dict(origin.context).get("scan") if origin else None,
        "primitive": origin.primitive if origin else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--lengths", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(options.child, options.width)))
        return
    os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)
    print(f"min / median / max of {options.rounds} rounds; {ALLOWED}")
    width = ("--width", str(options.width))
    rounds = [
        {length: in_fresh_process(__file__, "--child", str(length), *width) for length in options.lengths} for _ in range(options.rounds)
    ]
    for length in options.lengths:
        report(length, [one[length] for one in rounds])


def report(length: int, runs: list[dict]) -> None:
    column = {name: [run[name] for run in runs] for name in ("plain", "cold", "warm", "before", "grown")}
    last = runs[-1]
    within = all(run["cold"] <= 5 * run["plain"] + 10 for run in runs)
    title = f"scan of {length:,} iterations over f32[{last['width']}], {last['equations']} equations in its body"
    print(f"{title}: {'within' if within else 'NOT WITHIN'} the goal")
    print(f"  plain compiled run    {spread(column['plain'], ' s')}")
    print(f"  locate, first call    {spread(column['cold'], ' s')}   over plain {spread(ratios(column['cold'], column['plain']))}")
    print(f"  locate, second call   {spread(column['warm'], ' s')}   over plain {spread(ratios(column['warm'], column['plain']))}")
    print(f"  peak memory           {spread(column['before'], ' MB')}, raised by {spread(column['grown'], ' MB')}")
    print(f"  found                 {last['primitive']} in iteration {last['found']}; it is log in iteration {last['truth']}")


if __name__ == "__main__":
    main()
