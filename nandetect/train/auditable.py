"""What `audit-init` audits, by the name that a user gives: a model file, or a function that returns parameters and what goes with them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax

from nandetect.annotations import Array, Pytree
from nandetect.audit import Audit, audit
from nandetect.audit.parameters import is_floating
from nandetect.errors import UsageError
from nandetect.targets import model_file, target
from nandetect.train.prepare import prepare
from nandetect.train.settings import TrainSettings
from nandetect.train.start import batch

_KEYS = ("params", "apply", "inputs", "loss")


@dataclass(frozen=True, slots=True)
class Auditable:
    """The arguments of `audit`, and the name that the user gave for them."""

    name: str
    params: Pytree
    apply: Callable[[Pytree, Pytree], Pytree] | None = None
    inputs: Pytree = None
    loss: Callable[[Pytree], Array] | None = None


def audited(auditable: Auditable) -> Audit:
    """The audit of these arguments."""
    return audit(auditable.params, auditable.apply, auditable.inputs, auditable.loss)


def load(text: str, settings: TrainSettings) -> Auditable:
    """What `text` names: a model file as `train` would start it with these settings, or what a function returns."""
    if target.is_file(text) or text == model_file.BUNDLED:
        ready = prepare(settings)
        inputs, loss = batch(ready)
        scheme = f", init {ready.init}" if ready.init else ""
        return Auditable(f"{ready.model.name}{scheme} on {ready.data.name}", ready.params, ready.model.apply, inputs, loss)
    named = target.load(text)
    return _of_result(named.name, _result(named, settings.seed))


def _result(named: target.Target, seed: int) -> Pytree:
    """What the function returns, called without arguments or, where it requires one, with a key; a model is itself the result."""
    if _has_arrays(named.function):
        return named.function
    try:
        required = [parameter for parameter in inspect.signature(named.function).parameters.values() if _is_required(parameter)]
    except (TypeError, ValueError):
        required = []
    if len(required) > 1:
        names = ", ".join(parameter.name for parameter in required)
        raise UsageError(f"{named.name} wants {names}: give a function without arguments, or of a key alone, that returns the parameters")
    call = functools.partial(named.function, jax.random.key(seed)) if required else named.function
    try:
        return call()
    # Any exception: the user's code runs here.
    except Exception as error:
        raise UsageError(f"{named.name} failed: {type(error).__name__}: {' '.join(str(error).split())}") from error


def _is_required(parameter: inspect.Parameter) -> bool:
    named = parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    return named and parameter.default is parameter.empty


def _of_result(name: str, result: Pytree) -> Auditable:
    """From a function's result: the parameters alone, or a tuple or a dict of them with apply, inputs and a loss."""
    if isinstance(result, Mapping) and "params" in result and any(callable(result.get(key)) for key in ("apply", "loss")):
        unknown = set(result) - set(_KEYS)
        if unknown:
            raise UsageError(f"{name} returns a dict with {', '.join(sorted(map(str, unknown)))}: it may have {', '.join(_KEYS)}")
        return Auditable(name, *(result.get(key) for key in _KEYS))
    if type(result) is tuple and 2 <= len(result) <= 4 and (callable(result[1]) or callable(result[0])):
        return Auditable(name, *result)
    if not _has_arrays(result):
        raise UsageError(
            f"{name} returns {type(result).__name__}, without floating arrays: return the parameters, or (params, apply, inputs), and a "
            "loss(params) after them if there is one"
        )
    return Auditable(name, result)


def _has_arrays(value: Pytree) -> bool:
    return any(map(is_floating, jax.tree.leaves(value)))
