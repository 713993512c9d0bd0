"""The training loop: run the step until it is enough, someone interrupts, or a non-finite value is found."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager

import jax
import jax.numpy as jnp

from nandetect import findings
from nandetect.errors import NonFiniteError
from nandetect.guarding.guard import guard
from nandetect.monitor import layout
from nandetect.monitor.explosion import exploded, explosion
from nandetect.monitor.judging import Judging
from nandetect.monitor.rules import judge
from nandetect.records import Finding, Report
from nandetect.train import init_cost, pace
from nandetect.train.ledger import Ledger
from nandetect.train.observers import Observer
from nandetect.train.prepare import Ready, batches, prepare
from nandetect.train.settings import Stopped, TrainResult, TrainSettings
from nandetect.train.start import audited
from nandetect.train.step import TrainStep, accuracy
from nandetect.types import Array, Pytree

# Steps between two looks of the guard: fewer than the ledger keeps the metrics of.
_LOOK = 32


def run(settings: TrainSettings, observer: Observer | None = None) -> TrainResult:
    """Train as asked, telling `observer` how it goes."""
    watched = settings.debug_nans or _flag("jax_debug_nans") or _flag("jax_debug_infs")
    # JAX's own checks stop with a bare error, and at the wrong place as often as not: the guard does their work.
    with configured(jax_enable_x64=settings.x64, jax_debug_nans=False, jax_debug_infs=False):
        ready = prepare(settings)
        start = audited(ready) if settings.audit else ()
        if observer:
            observer.begun(start)
        return _run(ready, settings, observer, watched, start)


def _flag(name: str) -> bool:
    return getattr(jax.config, name)


@contextmanager
def configured(**flags: bool) -> Iterator[None]:
    """These flags of JAX's for as long as this is open."""
    before = {name: _flag(name) for name in flags}
    for name, value in flags.items():
        jax.config.update(name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


def _run(ready: Ready, settings: TrainSettings, observer: Observer | None, watched: bool, start: tuple[Finding, ...]) -> TrainResult:
    """Train, and look at the run once more when it is done. `start` are the findings before the first step."""
    sinks = [observer.chunk] if observer else []
    ledger = Ledger(ready.steps_per_epoch, ready.batch_size, layout.of(ready.params), *sinks)
    # What the audit said is not said again. Where a value was not finite, the report of the guard or the loss says it.
    known = {"non-finite", *(finding.rule for finding in start)}
    tell = _telling(observer, ledger, known)
    training = _Training(ready, settings, ledger, watched)
    stopped, report = _trained(training, tell)
    result = _result(ready, training.params, ledger, stopped, report, known)
    if stopped != "finished" or any(finding.rule == "non-finite" for finding in result.findings):
        return dataclasses.replace(result, findings=(*start, *result.findings))
    slow = pace.findings(settings, ready, training.params, training.state)
    cost = init_cost.measured(ready, settings, ledger) if init_cost.is_due(ready, ledger, start) else None
    return dataclasses.replace(result, toll=cost, findings=(*start, *result.findings, *slow))


def _telling(observer: Observer | None, ledger: Ledger, known: Set[str]) -> Callable[[], None]:
    """A function that tells the observer how the run stands and what it has newly come to show, the `known` rules left out."""
    if observer is None:
        return lambda: None
    judging = Judging(ledger.history, observer.found, known)

    def tell() -> None:
        if snapshot := ledger.snapshot():
            judging.judge_if_due()
            observer.notice(snapshot)

    return tell


class _Training:
    """The parameters and the optimizer's state as they go through the steps."""

    def __init__(self, ready: Ready, settings: TrainSettings, ledger: Ledger, watched: bool):
        self.ready, self.settings, self.ledger = ready, settings, ledger
        self.params, self.state = ready.params, ready.state
        self._guarded = guard(ready.step, check_every=_LOOK) if watched else None
        self._step: TrainStep = self._guarded or ready.step
        # The parameters that the latest step began with, None where no full measure will read them.
        self._last: Pytree = ready.params

    @property
    def is_over(self) -> bool:
        """Whether the run has taken its steps, or its time."""
        limit = self.settings.time_limit
        return self.ledger.entered >= self.ready.steps or bool(limit and self.ledger.total_seconds >= limit)

    def advance(self, inputs: Array, targets: Array) -> bool:
        """Take a step over a mini-batch; True when it is time to show something."""
        full = self.ledger.wants_all()
        before = self.params if self._last is None else self._last
        # Kept only where the next step reads it: else a second set of parameters would go through the caches in each step.
        self._last = self.params if self.ledger.will_want_all() else None
        if self.settings.jit and not self.ledger.entered:
            # The light program of the step is compiled at the beginning as well, and none in the middle of a run.
            self.ready.step(self.params, self.state, inputs, targets, self.params, False)
        # A light step is given the parameters it has anyway, so that a guard need not keep others for it.
        before = before if full else self.params
        self.params, self.state, metrics = self._step(self.params, self.state, inputs, targets, before, full)
        return self.ledger.enter(metrics["vitals"])

    def flush(self) -> None:
        """Let the guard look at the steps that it has not looked at yet."""
        if self._guarded is not None:
            self._guarded.flush()


def _trained(training: _Training, tell: Callable[[], None]) -> tuple[Stopped, Report | None]:
    """Take the steps: why the last one was the last, and the report where that was a non-finite value."""
    ready, ledger = training.ready, training.ledger
    stopped: Stopped = "finished"
    try:
        try:
            for inputs, targets in batches(ready, training.settings.seed):
                if training.is_over:
                    break
                if training.advance(inputs, targets):
                    tell()
        except KeyboardInterrupt:
            stopped = "interrupted"
        ledger.settle()
        training.flush()
    except NonFiniteError as error:
        ledger.settle(after_report=True)
        return "non-finite", dataclasses.replace(error.report, label=f"loss {ready.loss} · {ready.dtype}", called_at=None)
    return stopped, None


def _result(
    ready: Ready,
    params: Pytree,
    ledger: Ledger,
    stopped: Stopped,
    report: Report | None,
    known: Set[str],
) -> TrainResult:
    """The result of a run that ended with these parameters; the findings of `known` rules are left out."""
    # A guard finds a fault some steps late; those after it do not count.
    sound = ledger.entered if report is None or report.step is None else report.step
    last = ledger.snapshot(sound - 1)
    finished = report is None and ledger.entered > 0
    judged = judge(ledger.history())
    told = (finding for finding in judged if finding.severity != "note" and finding.rule not in known)
    return TrainResult(
        stopped=stopped,
        data=ready.data.name,
        model=ready.model.name,
        loss_name=ready.loss,
        init=ready.init,
        dtype=str(ready.dtype),
        train_samples=len(ready.data.train),
        held_out_samples=len(ready.data.held_out),
        parameters=sum(leaf.size for leaf in jax.tree.leaves(params)),
        steps=sound,
        epochs=sound / ready.steps_per_epoch,
        seconds=ledger.seconds,
        compile_seconds=ledger.compile_seconds,
        steps_per_second=ledger.steps_per_second,
        loss=last.loss if last else None,
        gradient_norm=last.gradient_norm if last else None,
        accuracy=accuracy(ready.model.apply, params, ready.data.train, ready.dtype) if finished else None,
        held_out_accuracy=accuracy(ready.model.apply, params, ready.data.held_out, ready.dtype) if finished else None,
        overfit=ledger.overfit,
        explosion=explosion(ledger.history(), judged) if exploded(judged) else None,
        findings=(*_not_finite(report, params, ledger), *told),
    )


def _not_finite(report: Report | None, params: Pytree, ledger: Ledger) -> tuple[Finding, ...]:
    """The report as a finding; in a run without a guard, what the loss and the parameters show by themselves."""
    if report is not None:
        return (findings.non_finite(report),)
    if ledger.first_bad is not None:
        return (_unguarded(f"the loss was not finite at step {ledger.first_bad}", ledger.first_bad),)
    if not all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(params)):
        return (_unguarded(f"the parameters are not finite after {ledger.entered} steps", ledger.entered - 1),)
    return ()


def _unguarded(message: str, step: int) -> Finding:
    help = "run it again with --debug-nans to see which operation made it"
    return findings.finding("non-finite", "error", message, step=step, help=help)
