"""The training loop: it runs the step until the limit is reached, the user interrupts, or a non-finite value is found."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager

import jax
import jax.numpy as jnp

from nandetect import findings
from nandetect.annotations import Array, Pytree
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

# Steps between two checks of the guard: fewer than those whose metrics the ledger keeps.
_CHECK_EVERY = 32


def run(settings: TrainSettings, observer: Observer | None = None) -> TrainResult:
    """Train as asked, telling `observer` how it goes."""
    watched = settings.debug_nans or _flag("jax_debug_nans") or _flag("jax_debug_infs")
    # The guard does the work of JAX's own checks, which stop with a bare error, and at the wrong place as often as not.
    with configured(jax_enable_x64=settings.x64, jax_debug_nans=False, jax_debug_infs=False):
        ready = prepare(settings)
        initial = audited(ready) if settings.audit else ()
        if observer:
            observer.begun(initial)
        return _run(ready, settings, observer, watched, initial)


def _flag(name: str) -> bool:
    return getattr(jax.config, name)


@contextmanager
def configured(**flags: bool) -> Iterator[None]:
    """JAX's flags set to these values inside the `with` block, and as they were after it."""
    before = {name: _flag(name) for name in flags}
    for name, value in flags.items():
        jax.config.update(name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


def _run(ready: Ready, settings: TrainSettings, observer: Observer | None, watched: bool, initial: tuple[Finding, ...]) -> TrainResult:
    """Train, then judge the whole run and measure what a faster one could have saved. `initial` are the findings before the first step."""
    sinks = [observer.chunk] if observer else []
    ledger = Ledger(ready.steps_per_epoch, ready.batch_size, layout.of(ready.params), *sinks)
    # Rules that are left out: those of the audit's findings, and non-finite values, which the guard's report or the loss tells of.
    known = {"non-finite", *(finding.rule for finding in initial)}
    tell = _telling(observer, ledger, known)
    training = _Training(ready, settings, ledger, watched)
    stopped, report = _trained(training, tell)
    result = _result(ready, training.params, ledger, stopped, report, known)
    if stopped != "finished" or any(finding.rule == "non-finite" for finding in result.findings):
        return dataclasses.replace(result, findings=(*initial, *result.findings))
    slow = pace.findings(settings, ready, training.params, training.state)
    cost = init_cost.measured(ready, settings, ledger) if init_cost.is_due(ready, ledger, initial) else None
    return dataclasses.replace(result, toll=cost, findings=(*initial, *result.findings, *slow))


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
        self._guarded = guard(ready.step, check_every=_CHECK_EVERY) if watched else None
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
        # Parameters kept only where the next step reads them: a second set would go through the caches in each step.
        self._last = self.params if self.ledger.will_want_all() else None
        if self.settings.jit and not self.ledger.entered:
            # The step's light program is compiled at the beginning too, so that nothing compiles in the middle of a run.
            self.ready.step(self.params, self.state, inputs, targets, self.params, False)
        # A light step gets the parameters that it has anyway in the place of `before`: a guard need not keep others for it.
        before = before if full else self.params
        self.params, self.state, metrics = self._step(self.params, self.state, inputs, targets, before, full)
        return self.ledger.enter(metrics["vitals"])

    def flush(self) -> None:
        """Let the guard check the steps that it has not checked yet."""
        if self._guarded is not None:
            self._guarded.flush()


def _trained(training: _Training, tell: Callable[[], None]) -> tuple[Stopped, Report | None]:
    """Take the steps. What comes back is why they ended, and the report where a non-finite value ended them."""
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
    # Steps after the fault do not count; a guard finds it some steps late.
    sound = ledger.entered if report is None or report.step is None else report.step
    last = ledger.snapshot(sound - 1)
    finished = report is None and ledger.entered > 0
    judged = judge(ledger.history())
    shown = (finding for finding in judged if finding.severity != "note" and finding.rule not in known)
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
        findings=(*_not_finite(report, params, ledger), *shown),
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
