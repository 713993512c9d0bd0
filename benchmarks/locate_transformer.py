"""Time for `nd.locate` to name what broke a transformer's training step, against the time jax_debug_nans takes to raise on it.

    python benchmarks/locate_transformer.py [--rounds 5]

Every measurement is a fresh process in which the step is compiled and has run once on sound arguments; the tools take turns within a round.
Three ways to ask: `nd.locate(step, *args)`; jax_debug_nans switched on now, after the step was compiled without it; and
jax_debug_nans on from the start. `cold` is the first diagnosis in the process, `warm` the second.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable

from measure import in_fresh_process, ratios, seconds, spread

TOOLS = ("locate", "debug_nans", "debug_nans from the start")


def measure(tool: str, failure_name: str) -> dict[str, object]:
    import jax
    from transformer import FAILURES, equations

    if tool == "debug_nans from the start":
        jax.config.update("jax_debug_nans", True)
    failure = FAILURES[failure_name]()
    jax.block_until_ready(failure.step(*failure.healthy))
    size = equations(failure.step.trace(*failure.healthy).jaxpr.jaxpr)
    said: list[str] = []
    diagnose = by_locate(failure, said) if tool == "locate" else by_debug_nans(failure, said)
    return {"cold": seconds(diagnose), "warm": seconds(diagnose), "said": said[-1], "equations": size}


def by_locate(failure, said: list[str]) -> Callable[[], None]:
    import nandetect as nd

    def diagnose() -> None:
        report = nd.locate(failure.step, *failure.broken)
        assert report is not None, "nothing found in a step that fails"
        origin = report.origin
        line = f"{os.path.basename(origin.source.file)}:{origin.source.line}" if origin.source else "no line"
        found, truth = (origin.primitive, origin.phase), (failure.primitive, failure.phase)
        verdict = "right" if found == truth else f"WRONG, it is {', '.join(truth)}"
        said.append(f"{', '.join(found)}, {line}: {verdict}")

    return diagnose


def by_debug_nans(failure, said: list[str]) -> Callable[[], None]:
    import jax

    def diagnose() -> None:
        jax.config.update("jax_debug_nans", True)
        try:
            jax.block_until_ready(failure.step(*failure.broken))
            said.append("nothing")
        except FloatingPointError as error:
            said.append(str(error).splitlines()[0])

    return diagnose


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--child", nargs=2, metavar=("TOOL", "FAILURE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(*options.child)))
        return
    os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)
    for failure in ("forward", "backward"):
        rounds = [{tool: in_fresh_process(__file__, "--child", tool, failure) for tool in TOOLS} for _ in range(options.rounds)]
        report(failure, rounds)


def report(failure: str, rounds: list[dict[str, dict]]) -> None:
    print(f"{failure} failure, {rounds[0]['locate']['equations']} equations, {len(rounds)} rounds; min / median / max")
    for when in ("cold", "warm"):
        took = {tool: [one[tool][when] for one in rounds] for tool in TOOLS}
        for tool in TOOLS:
            print(f"  {when}  {tool:<26} {spread(took[tool], ' s')}")
        for tool in TOOLS[1:]:
            print(f"  {when}  locate over {tool:<26} {spread(ratios(took['locate'], took[tool]))}")
    for tool in TOOLS:
        print(f"  said  {tool:<26} {rounds[-1][tool]['said']}")


if __name__ == "__main__":
    main()
