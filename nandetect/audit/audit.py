"""The audit of a model's start: every kernel as its program uses it, then what one batch shows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np

from nandetect import compat
from nandetect.annotations import Array, Pytree
from nandetect.audit import batch, parameters, reading, rules, signal, telling
from nandetect.audit.kernels import InitialKernel, kernels, scaled
from nandetect.audit.parameters import Parameters
from nandetect.audit.reading import Key, Reading
from nandetect.audit.result import Audit, Layer
from nandetect.audit.scale import ScaleVerdict, agreed, judge
from nandetect.audit.signal import Signal
from nandetect.errors import UsageError
from nandetect.records import Finding

assert rules  # its import fills the table of `reading`
# Gains that an orthogonal kernel may have; policies start their last layer at 0.01.
_GAINS = (0.005, 2.2)


def audit_init(
    params: Pytree,
    apply: Callable[[Pytree, Pytree], Pytree] | None = None,
    inputs: Pytree = None,
    loss: Callable[[Pytree], Pytree] | None = None,
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
    params: Pytree,
    apply: Callable[[Pytree, Pytree], Pytree] | None = None,
    inputs: Pytree = None,
    loss: Callable[[Pytree], Pytree] | None = None,
) -> Audit:
    """`audit_init` with all that was measured: a row for each kernel, the loss at the start, and the findings."""
    given = parameters.of(params)
    programs = _programs(given, _applied(params, apply, inputs, loss), inputs, loss)
    every = kernels(given.all, programs.read.reading if programs.read else None)
    verdicts = agreed([_verdict(kernel) for kernel in every])
    measured = _measured(programs.run, given) if programs.run else _Measured()
    first = _first_signals(programs.run.reading, measured.signals) if programs.run else {}
    return Audit(
        layers=tuple(_layer(kernel, verdict, first.get(kernel.parameter.number)) for kernel, verdict in zip(every, verdicts, strict=True)),
        findings=tuple(_findings(every, verdicts, programs, measured, [parameter.path for parameter in given.all])),
        loss=measured.loss,
        chance=programs.chance,
        unseen=measured.unseen,
        parameters=sum(parameter.size for parameter in given.all),
    )


def _applied(
    params: Pytree,
    apply: Callable[[Pytree, Pytree], Pytree] | None,
    inputs: Pytree,
    loss: Callable[[Pytree], Pytree] | None,
) -> Callable[[Pytree, Pytree], Pytree] | None:
    """The function that the inputs go through: `apply`, else parameters that are callable; None without inputs."""
    if apply is None and inputs is not None and not callable(params):
        raise UsageError("audit_init was given inputs and no apply(params, inputs) to put them through")
    if apply is not None and inputs is None and loss is None:
        raise UsageError("audit_init was given apply and no inputs: give a batch of them, or leave both out")
    if inputs is None:
        return None
    return apply or (lambda model, inputs: model(inputs))


@dataclass(frozen=True, slots=True)
class _Program:
    """A traced function of the parameters: `classes` is the last axis of the one array that it returns, `batch` the product of the
    others."""

    jaxpr: compat.Jaxpr
    consts: list[Array]
    reading: Reading
    classes: int | None
    batch: int


@dataclass(frozen=True, slots=True)
class _Programs:
    """The traced functions, those that were given."""

    applied: _Program | None
    loss: _Program | None

    @property
    def read(self) -> _Program | None:
        """The program that shows what each kernel is for."""
        return self.applied or self.loss

    @property
    def run(self) -> _Program | None:
        """The program that is run with taps in it: the loss, if there is one, which can be differentiated."""
        return self.loss or self.applied

    @property
    def chance(self) -> float | None:
        """The loss of guessing, ln C; None where the classes are not known, or the loss takes no logarithm."""
        if self.applied is None or self.applied.classes is None or self.loss is None or not self.loss.reading.has_logarithm:
            return None
        return math.log(self.applied.classes)


def _programs(
    given: Parameters,
    apply: Callable[[Pytree, Pytree], Pytree] | None,
    inputs: Pytree,
    loss: Callable[[Pytree], Pytree] | None,
) -> _Programs:
    applied = _traced(lambda params: apply(params, inputs), given, "apply", "parameters and inputs") if apply is not None else None
    return _Programs(applied, _traced(loss, given, "loss", "parameters") if loss is not None else None)


def _traced(function: Callable[[Pytree], Pytree], given: Parameters, name: str, taken: str) -> _Program:
    """`function(params)` as a jaxpr, read; what it closes over counts as inputs. `taken` says in words what it takes."""

    def flat(leaves: Sequence[Array]) -> list[Array]:
        return [leaf for leaf in jax.tree.leaves(function(given.rebuild(leaves))) if hasattr(leaf, "dtype")]

    try:
        closed, shapes = jax.make_jaxpr(flat, return_shape=True)(given.leaves())
    # The user's code runs here, and may fail in any way.
    except Exception as error:
        why = " ".join(str(error).split("\n\n")[0].split())
        raise UsageError(f"{name} could not be traced on these {taken}: {type(error).__name__}: {why}") from error
    if name == "loss" and (not shapes or shapes[0].shape != () or not jnp.issubdtype(shapes[0].dtype, jnp.floating)):
        kinds = ", ".join(f"{out.dtype}{list(out.shape)}" for out in shapes[:3]) or "no array"
        raise UsageError(f"loss(params) should return one floating number; it returns {kinds}")
    jaxpr, consts = compat.open_jaxpr(closed)
    whole = [out.shape for out in shapes if len(out.shape) > 1]
    classes = whole[0][-1] if len(whole) == 1 and whole[0][-1] > 1 else None
    batch_size = math.prod(whole[0][:-1]) if whole else 1
    return _Program(jaxpr, consts, reading.read(jaxpr, consts, range(len(given.all))), classes, batch_size)


def _verdict(kernel: InitialKernel) -> ScaleVerdict | None:
    """The verdict on a kernel's scale; None where no scheme's scale is to be expected of it."""
    if kernel.pattern.constant is not None or kernel.pattern.sparse or any(site.is_changed for site in kernel.sites):
        return None
    gain = kernel.pattern.gain
    if gain is not None and _GAINS[0] <= gain * abs(kernel.sites[0].factor if kernel.sites else 1.0) <= _GAINS[1]:
        return None
    return judge(scaled(kernel), kernel.fans, kernel.around)


@dataclass(frozen=True, slots=True)
class _Measured:
    """What one run of the program shows: the signal at its sites, the loss where it is one; or why it could not be followed."""

    signals: Mapping[Key, Signal] = field(default_factory=dict)
    loss: float | None = None
    unseen: str = ""


def _measured(program: _Program, given: Parameters) -> _Measured:
    """What a run with taps shows. Where the program cannot be run like that, the kernels are judged without."""
    is_loss = program.classes is None and not compat.aval(program.jaxpr.outvars[0]).shape
    try:
        outs, signals = signal.measure(program.jaxpr, program.consts, given.leaves(), program.reading, is_loss)
    # Any program at all is run here; what is special in it must not keep a training from starting.
    except Exception as error:
        return _Measured(unseen=f"the signal could not be followed: {type(error).__name__}: {' '.join(str(error).split())[:200]}")
    return _Measured(signals, float(np.asarray(outs[0])) if is_loss else None)


def _findings(
    every: Sequence[InitialKernel],
    verdicts: Sequence[ScaleVerdict | None],
    programs: _Programs,
    measured: _Measured,
    paths: Sequence[str],
) -> list[Finding]:
    """All findings: those on each kernel, then those on the batch, which name the kernels' for their causes."""
    found: list[Finding] = []
    for kernel, verdict in zip(every, verdicts, strict=True):
        found += [*telling.of_pattern(kernel, every), *telling.of_scale(kernel, verdict)]
    if programs.run is not None:
        seen, signals = programs.run.reading, measured.signals
        found += batch.of_inputs(seen, signals, paths)
        if programs.applied is not None and programs.applied.classes and programs.chance is not None and measured.loss is not None:
            found += batch.of_loss(measured.loss, programs.applied.classes, programs.applied.batch, found)
        found += batch.of_units(seen, signals, paths, found)
        found += batch.of_travel(seen, signals, paths, found)
    if any(each.rule == "inputs-unscaled" for each in found):
        found = [telling.with_inputs_first(each) for each in found]
    return telling.folded(found)


def _first_signals(reading: Reading, signals: Mapping[Key, Signal]) -> dict[int, Signal]:
    """The signal at the first site of each parameter, by the number of the parameter."""
    first: dict[int, Signal] = {}
    for key, at_site in signals.items():
        first.setdefault(reading.sites[key].leaf, at_site)
    return first


def _layer(kernel: InitialKernel, verdict: ScaleVerdict | None, measured: Signal | None) -> Layer:
    """The row of a kernel."""
    fans = verdict.fans if verdict else kernel.fans[0]
    measured = measured or Signal(forward=math.nan)
    return Layer(
        path=kernel.parameter.path,
        shape=kernel.parameter.shape,
        dtype=kernel.parameter.dtype,
        fan_in=fans.fan_in,
        fan_out=fans.fan_out,
        follows=kernel.around.follows,
        std=kernel.statistics.deviation,
        wanted=verdict.wanted if verdict else None,
        scheme=_scheme(kernel, verdict),
        is_off=bool(verdict and verdict.is_off),
        forward=measured.forward,
        backward=measured.backward,
        idle=measured.idle,
    )


def _scheme(kernel: InitialKernel, verdict: ScaleVerdict | None) -> str:
    """The scheme that a kernel was drawn by, as the table has it; empty where none is known."""
    if kernel.pattern.constant is not None:
        return "zeros" if kernel.is_zero else "constant"
    if kernel.pattern.gain is not None and verdict is None:
        return f"orthogonal, gain {kernel.pattern.gain:.3g}"
    if verdict is None:
        return ""
    return verdict.fits.name if verdict.fits else ""
