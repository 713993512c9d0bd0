"""The training loop: run the step until it is enough, someone interrupts, or a non-finite value is found."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

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
from nandetect.train.settings import Result, Settings
from nandetect.train.start import audited
from nandetect.train.step import accuracy

# Steps between two looks: fewer than the ledger keeps the metrics of.
_LOOK = 32


def run(settings: Settings, observer: Observer | None = None) -> Result:
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


def _run(ready: Ready, settings: Settings, observer: Observer | None, watched: bool, start: tuple[Finding, ...]) -> Result:
    step: Any = guard(ready.step, check_every=_LOOK) if watched else ready.step
    ledger = Ledger(ready.steps_per_epoch, ready.batch_size, layout.of(ready.params), *([observer.chunk] if observer else []))
    # What the audit said is not said again; where a value was not finite, the guard knows better or the loss says it.
    known = {"non-finite", *(finding.rule for finding in start)}
    judging = Judging(ledger.history, observer.found, known) if observer else None
    params = last = ready.params
    state = ready.state
    stopped: Literal["finished", "interrupted", "non-finite"] = "finished"
    report: Report | None = None
    try:
        try:
            for inputs, targets in batches(ready, settings.seed):
                if ledger.entered >= ready.steps or (settings.time_limit and ledger.total_seconds >= settings.time_limit):
                    break
                full = ledger.wants_all()
                # Kept for one step more only where they are read: else a second set of them would go through the caches in each step.
                before, last = params if last is None else last, params if ledger.will_want_all() else None
                if settings.jit and not ledger.entered:
                    # Both programs of the step are compiled at the beginning, and none in the middle of a run.
                    ready.step(params, state, inputs, targets, params, False)
                # Of the steps between, a guard need not keep what they do not read.
                params, state, metrics = step(params, state, inputs, targets, before if full else params, full)
                if ledger.enter(metrics["vitals"]) and observer and judging and (snapshot := ledger.snapshot()):
                    judging.again()
                    observer.notice(snapshot)
        except KeyboardInterrupt:
            stopped = "interrupted"
        ledger.settle()
        if watched:
            step.flush()
    except NonFiniteError as error:
        stopped, report = "non-finite", dataclasses.replace(error.report, label=f"loss {ready.loss} · {ready.dtype}", called_at=None)
        ledger.settle(after_report=True)
    result = _result(ready, params, ledger, stopped, report, known)
    done = stopped == "finished" and all(finding.rule != "non-finite" for finding in result.findings)
    slow = pace.findings(settings, ready, params, state) if done else ()
    cost = init_cost.quietly(ready, settings, ledger) if done and init_cost.is_due(ready, ledger, start) else None
    return dataclasses.replace(result, toll=cost, findings=(*start, *result.findings, *slow))


def _result(
    ready: Ready,
    params: Any,
    ledger: Ledger,
    stopped: Literal["finished", "interrupted", "non-finite"],
    report: Report | None,
    known: set[str],
) -> Result:
    # A fault is found a little late; what came after it does not count.
    sound = ledger.entered if report is None or report.step is None else report.step
    last = ledger.snapshot(sound - 1)
    finished = report is None and ledger.entered > 0
    judged = judge(ledger.history())
    return Result(
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
        findings=(*_not_finite(report, params, ledger), *(one for one in judged if one.severity != "note" and one.rule not in known)),
    )


def _not_finite(report: Report | None, params: Any, ledger: Ledger) -> tuple[Finding, ...]:
    """The report as a finding; in a run that nobody guarded, what the loss and the parameters show by themselves."""
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
