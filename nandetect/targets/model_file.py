"""A model file: `init(key, sizes, scheme)`, `apply(params, inputs)`, a table `LOSSES` and, where `init` takes schemes, a table `INITS`."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import ParamSpec, TypeVar

import jax
import jax.numpy as jnp

from nandetect.annotations import Array, Pytree
from nandetect.errors import UsageError
from nandetect.targets import target

BUNDLED = "mlp"
_HERE = Path(__file__).parents[1]
# The models are inside of an installed nandetect, and beside the package in a checkout.
_HOMES = (_HERE / "_models", _HERE.parent / "models")

_Given = ParamSpec("_Given")
_Returned = TypeVar("_Returned")


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """The functions of a model file. `schemes` are the names that `init` can be asked for, none where it draws in one way only."""

    name: str
    file: Path
    init: Callable[..., Pytree]
    apply: Callable[[Pytree, Array], Array]
    losses: Mapping[str, Callable[[Array, Array], Array]]
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
    files = [home / f"{name}.py" for home in _HOMES if (home / f"{name}.py").is_file()]
    if not files:
        raise UsageError(f"there is no model {name}: give {BUNDLED} or a file of your own, FILE.py")
    return files[0]


def _function(module: ModuleType, name: str, signature: str, file: str) -> Callable[..., Pytree]:
    function = getattr(module, name, None)
    if function is None:
        raise UsageError(f"{file} has no `{name}`: a model file defines `{signature}`")
    if not callable(function):
        raise UsageError(f"`{name}` in {file} is not a function but of type {type(function).__name__}: a model file defines `{signature}`")
    return function


def _table(module: ModuleType, name: str, file: str) -> Mapping[str, Callable[..., Array]] | None:
    table = getattr(module, name, None)
    if table is None:
        return None
    if not isinstance(table, Mapping) or not table or not all(isinstance(key, str) and callable(table[key]) for key in table):
        raise UsageError(f"`{name}` in {file} should be a dict from names to functions")
    return table


def choose(kind: str, asked: str | None, known: Mapping[str, object] | tuple[str, ...], preferred: str, file: str) -> str | None:
    """The name asked for, else the preferred one where the file has it, else the file's first."""
    if asked is None:
        return preferred if preferred in known else next(iter(known), None)
    if asked not in known:
        raise UsageError(f"{file} has no {kind} {asked}; it has {', '.join(known) or 'none'}")
    return asked


def initial(model: Model, key: jax.Array, sizes: tuple[int, ...], scheme: str | None, dtype: jnp.dtype) -> Pytree:
    """Fresh parameters, every floating one in `dtype`."""
    scheme_given = (scheme,) if scheme is not None else ()
    call = f"init(key, {sizes}{''.join(f', {name!r}' for name in scheme_given)})"
    params = _called(model, call, model.init, key, sizes, *scheme_given)
    floats = [leaf for leaf in jax.tree.leaves(params) if hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.inexact)]
    if not floats or len(floats) != len(jax.tree.leaves(params)):
        raise UsageError(f"`init` in {model.name} should return a pytree of floating arrays, and only those")
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), params)


def check(model: Model, loss: str, params: Pytree, inputs: Array, labels: Array) -> None:
    """Trace `apply` and the loss once. Raises `UsageError` where one of them does not fit, before a training starts."""
    shape = f"{inputs.dtype}{list(inputs.shape)}"
    logits = _called(model, f"apply(params, inputs {shape})", jax.eval_shape, model.apply, params, inputs)
    if getattr(logits, "shape", None) != labels.shape:
        raise UsageError(f"`apply` in {model.name} should return logits {list(labels.shape)}; it returns {_kind(logits)}")
    value = _called(model, f"{loss} loss", jax.eval_shape, model.losses[loss], logits, labels)
    if getattr(value, "shape", None) != () or not jnp.issubdtype(value.dtype, jnp.floating):
        raise UsageError(f"the {loss} loss in {model.name} should return one floating number; it returns {_kind(value)}")


def _kind(value: object) -> str:
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    return f"a {type(value).__name__}" if shape is None else f"{dtype}{list(shape)}"


def _called(model: Model, call: str, function: Callable[_Given, _Returned], *args: _Given.args, **kwargs: _Given.kwargs) -> _Returned:
    """What a function of the user's returns. Raises `UsageError`, with their line that failed, whatever it raises."""
    try:
        return function(*args, **kwargs)
    except Exception as error:
        own = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(model.file.resolve())]
        line = f", at line {own[-1]}" if own else ""
        why = " ".join(str(error).split("\n\n")[0].split())
        raise UsageError(f"`{call}` in {model.name} failed{line}: {type(error).__name__}: {why}") from error
