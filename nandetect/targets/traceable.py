"""From what a person names on the command line to a function and the arguments that it is traced on."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from nandetect import data
from nandetect.errors import UsageError
from nandetect.program import sources
from nandetect.targets import arguments, model_file, target
from nandetect.targets.defaults import BATCH_SIZE, HIDDEN, LOSS, SCHEME

_LEAVES = 6


@dataclass(frozen=True, slots=True)
class Subject:
    """A function, what it is traced on, and what the person called it."""

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]


def subject(
    text: str,
    *,
    shapes: Sequence[str] = (),
    archive: Path | None = None,
    loss: str | None = None,
    gradient: bool | None = None,
) -> Subject:
    """The subject that `text` names, differentiated where asked; a model file's loss is, unless asked not to be."""
    if shapes and archive:
        raise UsageError("--shape and --args both give the arguments: use one of them")
    if target.is_file(text) or text == model_file.BUNDLED:
        if archive:
            raise UsageError("--args goes with a function; for a model file give --shape, or nothing to use the embedded digits")
        found = of_model(text, loss, shapes)
        gradient = gradient is not False
    else:
        if loss:
            raise UsageError(f"--loss goes with a model file; {text} names a function")
        found = of_function(target.load(text), shapes, archive)
    return with_gradient(found) if gradient else found


def traced(this: Subject) -> tuple[Any, Any]:
    """The jaxpr and the shapes of what comes back; a function that does not fit its arguments is the caller's to mend."""
    try:
        return jax.make_jaxpr(this.function, return_shape=True)(*this.arguments)
    # Tracing runs the user's code, which may raise anything at all.
    except Exception as error:
        kinds = ", ".join(map(_short_type, jax.tree.leaves(this.arguments)[:_LEAVES]))
        why = " ".join(str(error).split("\n\n")[0].split()).rstrip(".")
        raise UsageError(f"{this.name} could not be traced on ({kinds}): {type(error).__name__}: {why}{_raised_at(error)}") from error


def _short_type(leaf: Any) -> str:
    return f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]" if hasattr(leaf, "dtype") else type(leaf).__name__


def _raised_at(error: BaseException) -> str:
    """The user's innermost line of a traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f", at {frame.filename}:{frame.lineno}" for frame in frames if sources.is_users(frame.filename)]
    return own[-1] if own else ""


def of_function(meant: target.Target, shapes: Sequence[str], archive: Path | None) -> Subject:
    """A function with the arguments given, or those that its module keeps."""
    function = meant.function
    if shapes:
        given = arguments.from_shapes(function, shapes)
    elif archive:
        given = arguments.from_archive(function, archive)
    else:
        function, given = arguments.from_module(function, meant.module)
    return Subject(meant.name, function, given)


def of_model(file: str, loss: str | None, shapes: Sequence[str] = ()) -> Subject:
    """A model file's loss over parameters, inputs and one-hot labels, as `nandetect train` would meet it: on a batch of the digits."""
    model = model_file.load(file)
    name = model_file.choose("loss", loss, model.losses, LOSS, model.name)
    scheme = model_file.choose("init", None, model.schemes, SCHEME, model.name)
    assert name is not None
    inputs, labels = _batch(shapes, BATCH_SIZE)

    def loss_of(params: Any, inputs: Any, labels: Any) -> Any:
        return model.losses[name](model.apply(params, inputs), labels)

    def init(key: Any) -> Any:
        return model.init(key, (inputs.shape[-1], *HIDDEN, labels.shape[-1]), *([scheme] if scheme else []))

    params = traced(Subject(f"init of {model.name}", init, (jax.random.key(0),)))[1]
    return Subject(f"{file} ({name} loss)", loss_of, (params, inputs, labels))


def _batch(shapes: Sequence[str], size: int) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
    """The shapes given, else those of a batch of the embedded digits."""
    if len(shapes) not in (0, 2):
        raise UsageError(f"a model file takes two shapes, of the inputs and of the one-hot labels; --shape was given {len(shapes)} times")
    if shapes:
        inputs, labels = map(arguments.shape, shapes)
        if not inputs.shape or not labels.shape:
            raise UsageError("a model file takes inputs and one-hot labels of at least one axis: --shape f32[40,64] --shape f32[40,10]")
        return inputs, labels
    digits = data.load("digits")
    pixels = digits.train.inputs.shape[1]
    return jax.ShapeDtypeStruct((size, pixels), jnp.float32), jax.ShapeDtypeStruct((size, digits.classes), jnp.float32)


def with_gradient(this: Subject) -> Subject:
    """The subject's value and its gradient for the first argument."""
    returned = traced(this)[1]
    has_aux = isinstance(returned, tuple)
    value = returned[0] if has_aux and returned else returned
    if getattr(value, "shape", None) != () or not jnp.issubdtype(jnp.result_type(value), jnp.floating):
        kinds = ", ".join(map(_short_type, jax.tree.leaves(returned)[:_LEAVES]))
        raise UsageError(f"--grad needs a function that returns one float, alone or first in a tuple; {this.name} returns {kinds}")
    if not all(jnp.issubdtype(jnp.result_type(leaf), jnp.inexact) for leaf in jax.tree.leaves(this.arguments[:1])):
        raise UsageError(f"--grad differentiates for the first argument, and that of {this.name} is not made of floats")
    return replace(this, function=jax.value_and_grad(this.function, has_aux=has_aux))
