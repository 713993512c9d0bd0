"""A model file: `init(key, sizes, scheme)`, `apply(params, inputs)`, a table `LOSSES`, and where it has schemes a table `INITS`."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp

from nandetect.errors import UsageError
from nandetect.targets import target

BUNDLED = "mlp"
_HERE = Path(__file__).parents[1]
# An installed nandetect carries the models inside; in a checkout they stand beside the package.
_HOMES = (_HERE / "_models", _HERE.parent / "models")


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """The functions of a model file; `schemes` are what `init` can be asked for, none where it knows one way only."""

    name: str
    file: Path
    init: Callable[..., Any]
    apply: Callable[[Any, Any], Any]
    losses: Mapping[str, Callable[[Any, Any], Any]]
    schemes: tuple[str, ...]


def load(where: str) -> Model:
    """The model file of that path, or the bundled one of that name. A file without `LOSSES` takes those of the bundled one."""
    file = Path(where) if target.is_file(where) else _bundled(where)
    module = target.from_file(str(file))
    name = where if target.is_file(where) else file.name
    losses = _table(module, "LOSSES", name)
    return Model(
        name=name,
        file=file,
        init=_function(module, "init", "init(key, sizes, scheme)", name),
        apply=_function(module, "apply", "apply(params, inputs)", name),
        losses=losses if losses is not None else load(BUNDLED).losses,
        schemes=tuple(_table(module, "INITS", name) or ()),
    )


def _bundled(name: str) -> Path:
    found = [home / f"{name}.py" for home in _HOMES if (home / f"{name}.py").is_file()]
    if not found:
        raise UsageError(f"there is no model {name}: give {BUNDLED} or a file of your own, FILE.py")
    return found[0]


def _function(module: ModuleType, name: str, signature: str, file: str) -> Callable[..., Any]:
    found = getattr(module, name, None)
    if found is None:
        raise UsageError(f"{file} has no `{name}`: a model file defines `{signature}`")
    if not callable(found):
        raise UsageError(f"`{name}` in {file} is not a function but of type {type(found).__name__}: a model file defines `{signature}`")
    return found


def _table(module: ModuleType, name: str, file: str) -> Mapping[str, Callable[..., Any]] | None:
    found = getattr(module, name, None)
    if found is None:
        return None
    if not isinstance(found, Mapping) or not found or not all(isinstance(key, str) and callable(found[key]) for key in found):
        raise UsageError(f"`{name}` in {file} should be a dict from names to functions")
    return found


def choose(kind: str, asked: str | None, known: Mapping[str, Any] | tuple[str, ...], preferred: str, file: str) -> str | None:
    """The name asked for, else the preferred one where the file has it, else the file's first."""
    if asked is None:
        return preferred if preferred in known else next(iter(known), None)
    if asked not in known:
        raise UsageError(f"{file} has no {kind} {asked}; it has {', '.join(known) or 'none'}")
    return asked


def initial(model: Model, key: jax.Array, sizes: tuple[int, ...], scheme: str | None, dtype: jnp.dtype) -> Any:
    """Fresh parameters, every floating one in `dtype`."""
    scheme_given = (scheme,) if scheme is not None else ()
    params = _calling(model, f"init(key, {sizes}{''.join(f', {one!r}' for one in scheme_given)})", model.init, key, sizes, *scheme_given)
    floats = [leaf for leaf in jax.tree.leaves(params) if hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.inexact)]
    if not floats or len(floats) != len(jax.tree.leaves(params)):
        raise UsageError(f"`init` in {model.name} should return a pytree of floating arrays, and only those")
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), params)


def check(model: Model, loss: str, params: Any, inputs: Any, labels: Any) -> None:
    """Trace `apply` and the loss once, so that a function that does not fit is told in one line, and before the training starts."""
    shape = f"{inputs.dtype}{list(inputs.shape)}"
    logits = _calling(model, f"apply(params, inputs {shape})", jax.eval_shape, model.apply, params, inputs)
    if getattr(logits, "shape", None) != labels.shape:
        raise UsageError(f"`apply` in {model.name} should return logits {list(labels.shape)}; it returns {_kind(logits)}")
    value = _calling(model, f"{loss} loss", jax.eval_shape, model.losses[loss], logits, labels)
    if getattr(value, "shape", None) != () or not jnp.issubdtype(value.dtype, jnp.floating):
        raise UsageError(f"the {loss} loss in {model.name} should return one floating number; it returns {_kind(value)}")


def _kind(value: Any) -> str:
    return f"{value.dtype}{list(value.shape)}" if hasattr(value, "shape") else f"a {type(value).__name__}"


def _calling(model: Model, call: str, function: Callable[..., Any], *args: Any) -> Any:
    """The user's code, which may fail in any way; told in one line, with the line of theirs that failed."""
    try:
        return function(*args)
    except Exception as error:
        own = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(model.file.resolve())]
        at = f", at line {own[-1]}" if own else ""
        why = " ".join(str(error).split("\n\n")[0].split())
        raise UsageError(f"`{call}` in {model.name} failed{at}: {type(error).__name__}: {why}") from error
