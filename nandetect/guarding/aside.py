"""Bad values that stand beside what matters: no fault, unless the program turns out to use them after all."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from nandetect.findings import finding
from nandetect.fixing.locate import relocate
from nandetect.guarding import unlocated
from nandetect.guarding.recorder import Arguments, Call, flatten
from nandetect.guarding.screen import top
from nandetect.program.trace import keystr
from nandetect.records import Finding, Report, Value


@dataclass(frozen=True, slots=True)
class Aside:
    """The first call whose result number `index` was bad and stood beside what matters. `name` is the result's, `beside` are the others."""

    step: Callable[..., object]
    call: Call
    arguments: Arguments
    index: int
    name: str
    value: Value
    beside: frozenset[int]
    shape: tuple[int, ...]
    dtype: object

    def is_like(self, value: Any) -> bool:
        """Whether it has the shape and the type of a value."""
        return (self.shape, self.dtype) == (getattr(value, "shape", None), getattr(value, "dtype", None))

    def located(self) -> Report | None:
        """What made it, now that it matters; None where it is an inf that only passed through."""
        try:
            report, why = relocate(self.step, *self.arguments, beside=self.beside), "it was finite when the call was run again"
        # Nothing of ours reaches the program: what fails here is said in the report.
        except Exception as error:
            report, why = None, unlocated.of_error(error)
        else:
            if report is None and self.value != "nan":
                return None
        return numbered(report or unlocated.of_call(self.call, self.value, why), self.call)


def aside(step: Callable[..., object], call: Call, arguments: Arguments, out: object, index: int, value: Value) -> Aside:
    """What is remembered of a bad leaf of what a call returned."""
    leaves = jax.tree_util.tree_flatten_with_path(out)[0]
    path, leaf = leaves[index]
    others = ordinals(out, set(range(len(leaves))) - {index})
    return Aside(step, call, arguments, index, keystr(path) or "result", value, others, leaf.shape, leaf.dtype)


def ordinals(out: object, indices: Collection[int]) -> frozenset[int]:
    """The numbers of these leaves among those leaves of a result that are arrays: `locate` counts those."""
    arrays = [index for index, leaf in enumerate(flatten(out)[0]) if isinstance(leaf, jax.Array | np.ndarray | np.generic)]
    return frozenset(number for number, index in enumerate(arrays) if index in indices)


def numbered(report: Report, call: Call) -> Report:
    """The report with its step: the call's number, whatever loops are inside."""
    return replace(report, step=call.number)


def recorded(call: Call, out: object, made: Sequence[object]) -> dict[int, object]:
    """Those leaves that the true call made and that were kept, by their index. Run again, it returned `out` and `made` these leaves."""
    if call.of_small is None:
        return {}
    numbers: Sequence[object] = range(len(made))
    if call.tree is None:
        leaves, tree = flatten(out)
        numbers = top(jax.tree.unflatten(tree, numbers[: len(leaves)]), call.is_whole)
    picked = flatten(list(call.of_small(numbers)))[0]
    return {index: leaf for index, leaf in zip(picked, flatten(list(call.small))[0], strict=False) if isinstance(index, int)}


def note(first: Sequence[Aside]) -> Finding:
    """The finding, which is no fault, that these results were bad."""
    names = sorted({aside.name for aside in first})
    named = f"`{names[0]}`" + (f" and {len(names) - 1} more results" if len(names) > 1 else "")
    step = min(aside.call.number for aside in first)
    return finding(
        "non-finite",
        "note",
        f"{named} of step {step} held {first[0].value}; nothing that is handed back or read did",
        cause="a result that stands beside the state and the metrics was not finite",
        step=step,
        help="no fault where such a result is thrown away, as a sampler does with a proposal that it rejects",
    )
