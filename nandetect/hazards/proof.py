"""Run a hazard's two ways of writing on given inputs. JAX is imported when one runs, not before."""

from __future__ import annotations

import math
from typing import Any

from nandetect.hazards.hazard import Hazard, Inputs

DIGITS = 4


def run(hazard: Hazard, expression: str, inputs: Inputs) -> list[Any]:
    """What an expression gives: its value, and for a hazard of the gradient the gradient of its sum in every floating input."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    arrays = {name: _array(np.asarray(value), hazard.dtype) for name, value in inputs.items()}
    floating = [name for name, array in arrays.items() if jnp.issubdtype(array.dtype, jnp.floating)]
    code = compile(expression, hazard.name, "eval")

    def value(named: dict[str, Any]) -> Any:
        return eval(code, {"jax": jax, "jnp": jnp, **arrays, **named})

    # A hazard is non-finite on purpose: the user's own checks are not to trip over it.
    with jax.debug_nans(False), jax.debug_infs(False):
        found = [value({})]
        if hazard.fails == "gradient":
            slopes = jax.grad(lambda named: value(named).sum())({name: arrays[name] for name in floating})
            found += [slopes[name] for name in floating]
    return [np.asarray(array) for array in found]


def _array(value: Any, dtype: str) -> Any:
    import jax.numpy as jnp

    return jnp.asarray(value, dtype) if value.dtype.kind == "f" else jnp.asarray(value)


def proof(hazard: Hazard, inputs: Inputs | None) -> str | None:
    """What each way of writing gives on the user's own values; None where that shows nothing."""
    if inputs is None:
        return None
    # The advice stands without the proof, and a proof that a backend cannot run must not cost the report.
    try:
        return _compared(hazard, inputs)
    except Exception:
        return None


def _compared(hazard: Hazard, inputs: Inputs) -> str | None:
    before, after = (_worst(hazard, run(hazard, expression, inputs)) for expression in (hazard.before, hazard.after))
    if math.isfinite(before) or not math.isfinite(after):
        return None
    what = "a gradient of " if hazard.fails == "gradient" else ""
    return f"before gives {what}{_number(before)}, after gives {what}{_number(after)}"


def _worst(hazard: Hazard, arrays: list[Any]) -> float:
    """A non-finite element where there is one, else the largest: of the gradient, where that is what fails."""
    shown = arrays[1:] if hazard.fails == "gradient" else arrays
    elements = [float(element) for array in shown for element in array.astype("float64").reshape(-1)]
    return next((element for element in elements if not math.isfinite(element)), max(elements, key=abs))


def _number(value: float) -> str:
    return f"{value + 0.0:.{DIGITS}g}"
