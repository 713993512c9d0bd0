"""The two functions of a comparison, by the names that a user gives, and the parameters that they are called with."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from dataclasses import dataclass

from nandetect.annotations import Pytree
from nandetect.errors import UsageError
from nandetect.targets import model_file, target

# A function that is called as a loss; tracing it tells whether it returns one number.
Loss = Callable[..., Pytree]


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two losses."""

    name: str
    function: Loss


def load(first: str, second: str) -> tuple[Side, Side]:
    """Two losses by name; their short names are kept where these tell them apart."""
    sides = [_side(text) for text in (first, second)]
    short = [side.name.rpartition(":")[2] for side in sides]
    if short[0] == short[1]:
        short = [side.name for side in sides] if sides[0].name != sides[1].name else [f"{short[0]} (first)", f"{short[1]} (second)"]
    return Side(short[0], sides[0].function), Side(short[1], sides[1].function)


def _side(text: str) -> Side:
    if ":" in text or target.is_file(text):
        return Side(text, target.load(text).function)
    losses = model_file.load(model_file.BUNDLED).losses
    if text not in losses:
        close = difflib.get_close_matches(text, losses, n=1)
        advice = f"did you mean {close[0]}?" if close else f"the bundled ones are {', '.join(losses)}."
        raise UsageError(f"there is no loss {text}: {advice} Of your own, write FILE.py:function or package.module:function")
    return Side(text, losses[text])


def parameters(side: Side) -> tuple[str, ...]:
    """The names of the required parameters, or of the first where none is required. Raises `UsageError` where there are no parameters."""
    try:
        signature = inspect.signature(side.function)
    # Builtins may have no signature.
    except (TypeError, ValueError):
        return ("x", "labels")
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    positional = [parameter for parameter in signature.parameters.values() if parameter.kind in kinds]
    if any(parameter.kind is inspect.Parameter.VAR_POSITIONAL for parameter in signature.parameters.values()) and not positional:
        return ("x", "labels")
    if not positional:
        raise UsageError(f"{side.name} takes no argument: a loss takes at least the array that is swept")
    required = tuple(parameter.name for parameter in positional if parameter.default is inspect.Parameter.empty)
    return required or (positional[0].name,)
