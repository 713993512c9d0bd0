"""From what a person names on the command line to what is audited: a model file, or a function that returns parameters and what goes with
them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax

from nandetect.audit import Audit, audit
from nandetect.audit.parameters import is_floating
from nandetect.errors import UsageError
from nandetect.targets import model_file, target
from nandetect.train.prepare import prepare
from nandetect.train.settings import Settings
from nandetect.train.start import batch

_GIVEN = ("params", "apply", "inputs", "loss")


@dataclass(frozen=True, slots=True)
class Subject:
    """What `audit` takes, and what the person called it."""

    name: str
    params: Any
    apply: Callable[[Any, Any], Any] | None = None
    inputs: Any = None
    loss: Callable[[Any], Any] | None = None


def audited(subject: Subject) -> Audit:
    """The audit of a subject."""
    return audit(subject.params, subject.apply, subject.inputs, subject.loss)


def subject(text: str, settings: Settings) -> Subject:
    """What `text` names: a model file as `train` would start it, with its settings, or what a function returns."""
    if target.is_file(text) or text == model_file.BUNDLED:
        ready = prepare(settings)
        inputs, loss = batch(ready)
        scheme = f", init {ready.init}" if ready.init else ""
        return Subject(f"{ready.model.name}{scheme} on {ready.data.name}", ready.params, ready.model.apply, inputs, loss)
    meant = target.load(text)
    return _given(meant.name, _made(meant, settings.seed))


def _made(meant: target.Target, seed: int) -> Any:
    """What the function returns, called with nothing or, where it wants one argument, a key; a model is one already."""
    if _has_arrays(meant.function):
        return meant.function
    try:
        wanted = [one for one in inspect.signature(meant.function).parameters.values() if _is_required(one)]
    except (TypeError, ValueError):
        wanted = []
    if len(wanted) > 1:
        names = ", ".join(one.name for one in wanted)
        raise UsageError(f"{meant.name} wants {names}: give a function without arguments, or of a key alone, that returns the parameters")
    call = functools.partial(meant.function, jax.random.key(seed)) if wanted else meant.function
    try:
        return call()
    # The user's code runs here, and may fail in any way.
    except Exception as error:
        raise UsageError(f"{meant.name} failed: {type(error).__name__}: {' '.join(str(error).split())}") from error


def _is_required(parameter: inspect.Parameter) -> bool:
    named = parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    return named and parameter.default is parameter.empty


def _given(name: str, made: Any) -> Subject:
    """Parameters alone; or a tuple or a dict of them with apply, inputs and a loss."""
    if isinstance(made, Mapping) and "params" in made and any(callable(made.get(key)) for key in ("apply", "loss")):
        unknown = set(made) - set(_GIVEN)
        if unknown:
            raise UsageError(f"{name} returns a dict with {', '.join(sorted(map(str, unknown)))}: it may have {', '.join(_GIVEN)}")
        return Subject(name, *(made.get(key) for key in _GIVEN))
    if type(made) is tuple and 2 <= len(made) <= 4 and (callable(made[1]) or callable(made[0])):
        return Subject(name, *made)
    if not _has_arrays(made):
        raise UsageError(
            f"{name} returns {type(made).__name__}, without floating arrays: return the parameters, or (params, apply, inputs), and a "
            "loss(params) after them if there is one"
        )
    return Subject(name, made)


def _has_arrays(thing: Any) -> bool:
    return any(map(is_floating, jax.tree.leaves(thing)))
