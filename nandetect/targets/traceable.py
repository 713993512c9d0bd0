"""What a person names on the command line, as a function with the arguments that it is traced on."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import jax.numpy as jnp

from nandetect import compat, data, ownership
from nandetect.annotations import Array, Pytree
from nandetect.errors import UsageError
from nandetect.targets import arguments, model_file, target
from nandetect.targets.defaults import BATCH_SIZE, HIDDEN, LOSS, SCHEME

# How many of the arguments a message lists by their types.
_LISTED = 6


@dataclass(frozen=True, slots=True)
class Traceable:
    """A function, what it is traced on, and what the person called it."""

    name: str
    function: Callable[..., Pytree]
    arguments: tuple[Pytree, ...]


def load(
    text: str,
    *,
    shapes: Sequence[str] = (),
    archive: Path | None = None,
    loss: str | None = None,
    gradient: bool | None = None,
) -> Traceable:
    """What `text` names, differentiated where `gradient` says so; the loss of a model file is unless `gradient` is False."""
    if shapes and archive:
        raise UsageError("--shape and --args both give the arguments: use one of them")
    if target.is_file(text) or text == model_file.BUNDLED:
        if archive:
            raise UsageError("--args goes with a function; for a model file give --shape, or nothing to use the embedded digits")
        traceable = of_model(text, loss, shapes)
        gradient = gradient is not False
    else:
        if loss:
            raise UsageError(f"--loss goes with a model file; {text} names a function")
        traceable = of_function(target.load(text), shapes, archive)
    return with_gradient(traceable) if gradient else traceable


def trace(traceable: Traceable) -> tuple[compat.ClosedJaxpr, Pytree]:
    """The jaxpr, and the shapes of what the function returns. Raises `UsageError` where it does not fit its arguments."""
    try:
        return jax.make_jaxpr(traceable.function, return_shape=True)(*traceable.arguments)
    # Tracing runs the user's code, which may raise anything at all.
    except Exception as error:
        kinds = _short_types(traceable.arguments)
        why = " ".join(str(error).split("\n\n")[0].split()).rstrip(".")
        raise UsageError(f"{traceable.name} could not be traced on ({kinds}): {type(error).__name__}: {why}{_raised_at(error)}") from error


def _short_types(tree: Pytree) -> str:
    """The dtypes and shapes of the first leaves: `float32[8,64], int32[8]`."""
    return ", ".join(map(_short_type, jax.tree.leaves(tree)[:_LISTED]))


def _short_type(leaf: object) -> str:
    dtype, shape = getattr(leaf, "dtype", None), getattr(leaf, "shape", ())
    return type(leaf).__name__ if dtype is None else f"{dtype}[{','.join(map(str, shape))}]"


def _raised_at(error: BaseException) -> str:
    """The innermost line of the user's own in a traceback, in words that end a sentence; empty where there is none."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f", at {frame.filename}:{frame.lineno}" for frame in frames if ownership.is_users(frame.filename)]
    return own[-1] if own else ""


def of_function(meant: target.Target, shapes: Sequence[str], archive: Path | None) -> Traceable:
    """A function with the arguments given, or those that its module keeps."""
    function = meant.function
    if shapes:
        given = arguments.from_shapes(function, shapes)
    elif archive:
        given = arguments.from_archive(function, archive)
    else:
        function, given = arguments.from_module(function, meant.module)
    return Traceable(meant.name, function, given)


def of_model(file: str, loss: str | None, shapes: Sequence[str] = ()) -> Traceable:
    """A model file's loss over parameters, inputs and one-hot labels, as `nandetect train` would meet it: on a batch of the digits."""
    model = model_file.load(file)
    name = model_file.choose("loss", loss, model.losses, LOSS, model.name)
    scheme = model_file.choose("init", None, model.schemes, SCHEME, model.name)
    assert name is not None
    inputs, labels = _batch(shapes, BATCH_SIZE)

    def loss_of(params: Pytree, inputs: Array, labels: Array) -> Pytree:
        return model.losses[name](model.apply(params, inputs), labels)

    def init(key: jax.Array) -> Pytree:
        return model.init(key, (inputs.shape[-1], *HIDDEN, labels.shape[-1]), *([scheme] if scheme else []))

    _, params = trace(Traceable(f"init of {model.name}", init, (jax.random.key(0),)))
    return Traceable(f"{file} ({name} loss)", loss_of, (params, inputs, labels))


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


def with_gradient(traceable: Traceable) -> Traceable:
    """The function's value beside its gradient for the first argument."""
    _, returned = trace(traceable)
    has_aux = isinstance(returned, tuple)
    value = returned[0] if has_aux and returned else returned
    if getattr(value, "shape", None) != () or not jnp.issubdtype(jnp.result_type(value), jnp.floating):
        kinds = _short_types(returned)
        raise UsageError(f"--grad needs a function that returns one float, alone or first in a tuple; {traceable.name} returns {kinds}")
    if not all(jnp.issubdtype(jnp.result_type(leaf), jnp.inexact) for leaf in jax.tree.leaves(traceable.arguments[:1])):
        raise UsageError(f"--grad differentiates for the first argument, and that of {traceable.name} is not made of floats")
    return replace(traceable, function=jax.value_and_grad(traceable.function, has_aux=has_aux))
