"""Run a hazard's two ways of writing on given inputs. JAX is imported when one runs, not before."""

from __future__ import annotations

from collections.abc import Sequence
from types import CodeType
from typing import TYPE_CHECKING

from nandetect.hazards.hazard import Hazard, Inputs

if TYPE_CHECKING:
    import jax
    import numpy as np


def run(hazard: Hazard, expressions: Sequence[str], inputs: Inputs) -> list[list[np.ndarray]]:
    """What each expression gives: its value and, for a hazard of the gradient, the gradient of its sum in every floating input."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from nandetect import effects

    arrays = {name: np.asarray(value) for name, value in inputs.items()}
    arrays = {name: jnp.asarray(value, hazard.dtype if value.dtype.kind == "f" else None) for name, value in arrays.items()}
    fixed = {name: array for name, array in arrays.items() if not jnp.issubdtype(array.dtype, jnp.floating)}
    floating = {name: array for name, array in arrays.items() if name not in fixed}

    def given(code: CodeType, named: dict[str, jax.Array]) -> list[jax.Array]:
        def value(named: dict[str, jax.Array]) -> jax.Array:
            return eval(code, {"jax": jax, "jnp": jnp, **fixed, **named})

        slopes = jax.grad(lambda named: value(named).sum())(named) if hazard.fails == "gradient" else {}
        return [value(named), *(slopes[name] for name in named if slopes)]

    codes = [compile(expression, hazard.name, "eval") for expression in expressions]
    # Hazards are non-finite on purpose: checks that the user has turned on are off here.
    with effects.replay_settings():
        results = jax.jit(lambda named: [given(code, named) for code in codes])(floating)
        return [[np.asarray(array) for array in arrays] for arrays in results]
