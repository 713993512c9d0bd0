"""The audit of a model's start: its kernels by themselves, then as its program uses them, then what one batch shows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nandetect import compat
from nandetect.audit import batch, parameters, reading, rules, signal, telling
from nandetect.audit.kernels import Kernel, kernels, scaled
from nandetect.audit.parameters import Parameters
from nandetect.audit.reading import Key, Reading
from nandetect.audit.result import Audit, Layer
from nandetect.audit.scale import Verdict, agreed, judge
from nandetect.audit.signal import Signal
from nandetect.errors import UsageError
from nandetect.records import Finding

assert rules  # its import fills the table
# An orthogonal kernel's gain is free within these; policies start their last layer at 0.01.
_GAINS = (0.005, 2.2)


def audit_init(
    params: Any, apply: Callable[[Any, Any], Any] | None = None, inputs: Any = None, loss: Callable[[Any], Any] | None = None
) -> list[Finding]:
    """What is wrong with freshly drawn parameters, as findings; none where nothing is.

    `params` is any pytree of floating arrays: dicts, flax (linen's variables, an nnx module), equinox modules, haiku's parameters. Alone,
    the kernels (leaves of two or more axes) are held against the schemes with fans read off their shapes: (in, out), (*window, in, out),
    and what stacks and attention make of those; (out, in, *window) for equinox. With `apply(params, inputs)` and `inputs`, a batch, the
    fans and what follows each kernel are read off the program, and the signal is followed through it. With `loss(params)`, one floating
    number for a batch that it holds, the gradient is followed back and the loss is held against ln C. `params` may itself be callable in
    place of `apply`.

    A scale is wrong where it is more than 4 standard errors, and more than a factor of 1.25 in the variance, from that of every scheme
    that would be right there (He et al. 2015, LeCun et al. 1998, Glorot and Bengio 2010, and what `audit.schemes` lists with its sources).

    Raises `UsageError` where there are no parameters, and where `apply` or `loss` fails on what it is given.
    """
    return list(audit(params, apply, inputs, loss).findings)


def audit(
    params: Any, apply: Callable[[Any, Any], Any] | None = None, inputs: Any = None, loss: Callable[[Any], Any] | None = None
) -> Audit:
    """`audit_init` with all that was measured: a row for each kernel, the loss at the start, and the findings."""
    given = parameters.of(params)
    if apply is None and inputs is not None:
        if not callable(params):
            raise UsageError("audit_init was given inputs and no apply(params, inputs) to put them through")
        apply = _called
    if apply is not None and inputs is None and loss is None:
        raise UsageError("audit_init was given apply and no inputs: give a batch of them, or leave both out")
    run = _traced(lambda params: apply(params, inputs), given, "apply", inputs) if apply is not None and inputs is not None else None
    lossy = _traced(loss, given, "loss", None) if loss is not None else None
    program, measured = run or lossy, lossy or run
    found = kernels(given.all, program.reading if program else None)
    verdicts = agreed([_verdict(kernel) for kernel in found])
    signals, value, unseen = _measured(measured, given) if measured else ({}, None, "")

    told: list[Finding] = []
    for kernel, verdict in zip(found, verdicts, strict=True):
        told += [*telling.of_pattern(kernel, found), *telling.of_scale(kernel, verdict)]
    paths = [parameter.path for parameter in given.all]
    classes = run.classes if run else None
    chance = math.log(classes) if classes and lossy and lossy.reading.has_logarithm else None
    if measured:
        told += batch.of_inputs(measured.reading, signals, paths)
        if chance and value is not None and classes:
            told += batch.of_loss(value, classes, run.batch if run else 1, told)
        told += batch.of_units(measured.reading, signals, paths, told)
        told += batch.of_travel(measured.reading, signals, paths, told)
    if any(one.rule == "inputs-unscaled" for one in told):
        told = [telling.with_inputs_first(one) for one in told]
    rows = _by_leaf(measured.reading, signals) if measured else {}
    return Audit(
        layers=tuple(_layer(kernel, verdict, rows.get(kernel.parameter.number)) for kernel, verdict in zip(found, verdicts, strict=True)),
        findings=tuple(telling.folded(told)),
        loss=value,
        chance=chance,
        unseen=unseen,
        parameters=sum(parameter.size for parameter in given.all),
    )


def _called(model: Any, inputs: Any) -> Any:
    return model(inputs)


@dataclass(frozen=True, slots=True)
class _Program:
    """A traced function of the parameters: `classes` is the last axis of the one array that it returns, `batch` the product of the
    others."""

    jaxpr: Any
    consts: list[Any]
    reading: Reading
    classes: int | None
    batch: int


def _traced(function: Callable[[Any], Any], given: Parameters, name: str, inputs: Any) -> _Program:
    """`function(params)` as a jaxpr, what it closes over taken for data."""

    def flat(leaves: Sequence[Any]) -> Any:
        return [leaf for leaf in jax.tree.leaves(function(given.rebuild(leaves))) if hasattr(leaf, "dtype")]

    try:
        closed, shapes = jax.make_jaxpr(flat, return_shape=True)(given.leaves())
    # The user's code runs here, and may fail in any way.
    except Exception as error:
        why = " ".join(str(error).split("\n\n")[0].split())
        given_to = "parameters and inputs" if inputs is not None else "parameters"
        raise UsageError(f"{name} could not be traced on these {given_to}: {type(error).__name__}: {why}") from error
    if name == "loss" and (not shapes or shapes[0].shape != () or not jnp.issubdtype(shapes[0].dtype, jnp.floating)):
        kinds = ", ".join(f"{one.dtype}{list(one.shape)}" for one in shapes[:3]) or "no array"
        raise UsageError(f"loss(params) should return one floating number; it returns {kinds}")
    jaxpr, consts = compat.open_jaxpr(closed)
    seen = reading.read(jaxpr, consts, range(len(given.all)), constants_are_data=True)
    whole = [one.shape for one in shapes if len(one.shape) > 1]
    classes = whole[0][-1] if len(whole) == 1 and whole[0][-1] > 1 else None
    return _Program(jaxpr, consts, seen, classes, math.prod(whole[0][:-1]) if whole else 1)


def _verdict(kernel: Kernel) -> Verdict | None:
    """The verdict on a kernel's scale, unless it is not a scale that it has."""
    if kernel.pattern.constant is not None or kernel.pattern.sparse or any(site.is_changed for site in kernel.sites):
        return None
    gain = kernel.pattern.gain
    if gain is not None and _GAINS[0] <= gain * abs(kernel.sites[0].factor if kernel.sites else 1.0) <= _GAINS[1]:
        return None
    return judge(scaled(kernel), kernel.fans, kernel.around)


def _measured(program: _Program, given: Parameters) -> tuple[dict[Key, Signal], float | None, str]:
    """The signals, the loss, and why there are none where the program cannot be run with taps in it: the kernels are judged anyway."""
    is_loss = program.classes is None and not program.jaxpr.outvars[0].aval.shape
    try:
        outs, signals = signal.measure(program.jaxpr, program.consts, given.leaves(), program.reading, is_loss)
    # Any program at all is run here; what is special in it must not keep a training from starting.
    except Exception as error:
        return {}, None, f"the signal could not be followed: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return signals, float(np.asarray(outs[0])) if is_loss else None, ""


def _by_leaf(reading: Reading, signals: dict[Key, Signal]) -> dict[int, Signal]:
    """The signal at the first site of each parameter."""
    rows: dict[int, Signal] = {}
    for key, one in signals.items():
        rows.setdefault(reading.sites[key].leaf, one)
    return rows


def _layer(kernel: Kernel, verdict: Verdict | None, row: Signal | None) -> Layer:
    fans = verdict.fans if verdict else kernel.fans[0]
    row = row or Signal(forward=math.nan)
    return Layer(
        path=kernel.parameter.path,
        shape=kernel.parameter.shape,
        dtype=kernel.parameter.dtype,
        fan_in=fans.fan_in,
        fan_out=fans.fan_out,
        follows=kernel.around.follows,
        std=kernel.spread.deviation,
        wanted=verdict.wanted if verdict else None,
        scheme=_scheme(kernel, verdict),
        is_off=bool(verdict and verdict.is_off),
        forward=row.forward,
        backward=row.backward,
        idle=row.idle,
    )


def _scheme(kernel: Kernel, verdict: Verdict | None) -> str:
    if kernel.pattern.constant is not None:
        return "zeros" if kernel.is_zero else "constant"
    if kernel.pattern.gain is not None and verdict is None:
        return f"orthogonal, gain {kernel.pattern.gain:.3g}"
    if verdict is None:
        return ""
    return verdict.fits.name if verdict.fits else ""
