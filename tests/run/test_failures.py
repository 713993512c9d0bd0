"""Whatever fails while nandetect looks, locates or draws is noted: it neither reaches the program nor ends it, nor is the fault lost."""

from __future__ import annotations

import contextlib
import gc
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nandetect import errors
from nandetect.cli import run_view
from nandetect.errors import NonFiniteError
from nandetect.guarding import finite, guard
from nandetect.guarding.guarded_step import GuardedStep
from nandetect.locating import diagnose as diagnosing
from nandetect.records import Event, Report
from nandetect.run import eager_origin, functions, operation_log, pricing, script, wrappers
from nandetect.run.eager import EagerWatch
from nandetect.run.everywhere import watching
from nandetect.run.functions import Functions
from nandetect.run.operation_log import OperationLog
from nandetect.speed.reads import Reads


class Broken(Exception):
    """What fails."""


def fails(*args, **kwargs):
    raise Broken("no\nluck")


def program():
    """Something of everything that is watched; it holds a NaN to its end, and reads one."""
    step = jax.jit(lambda w, x: w - 0.1 * x)
    w = jnp.ones(3)
    for _ in range(4):
        w = step(w, jnp.ones(3))
    bad = jnp.log(w - 10.0)
    read = float(jnp.sum(bad)), str(bad), np.asarray(bad * 2.0).tolist()
    jax.jit(lambda x: x)
    gc.collect()
    return w.tolist(), read[1], bad


INNER = {
    "an operation is entered": (OperationLog, "enter"),
    "an operator is entered": (OperationLog, "enter_of_two"),
    "a segment begins": (OperationLog, "begin_segment"),
    "what nothing has taken": (OperationLog, "untaken"),
    "what the program holds": (OperationLog, "held"),
    "what came of what": (OperationLog, "origins"),
    "the look at an array": (finite, "state"),
    "the look at what is read": (eager_origin, "state_read"),
    "a reading": (Reads, "enter"),
    "finding": (EagerWatch, "_find"),
    "locating": (eager_origin, "located"),
    "the locating room": (diagnosing, "diagnose"),
    "whether it arrived": (eager_origin, "arrived"),
    "the symptom": (EagerWatch, "_symptom"),
    "a function is guarded": (guard, "watched"),
    "where a function stands": (functions, "source"),
    "a function is looked at": (GuardedStep, "flush"),
    "all functions are looked at": (Functions, "flush"),
    "a value is used": (Functions, "use"),
    "a function goes": (Functions, "_count"),
    "what could be faster": (pricing, "slow"),
}


@pytest.mark.parametrize("door", INNER)
def test_what_fails_in_a_look_is_noted_and_the_program_goes_on(monkeypatch, door):
    monkeypatch.setattr(operation_log, "_OPERATIONS", 7)
    plain = program()
    owner, name = INNER[door]
    monkeypatch.setattr(owner, name, fails)
    told = []
    with watching(told.append) as watched:
        ran = program()
        watched.flush()
        watched.slow(10.0)
    assert ran[:2] == plain[:2]
    # What is known is told, or it is said that something was not looked at; what it costs is no part of that.
    assert told or any("Broken: no luck" in phrase for phrase in watched.left_out())


def test_a_fault_that_cannot_be_located_is_told_with_what_is_known(monkeypatch):
    monkeypatch.setattr(diagnosing, "diagnose", fails)
    told = []
    with watching(told.append) as watched:
        bad = jnp.log(jnp.arange(4.0) - 2.0)
        watched.flush()
    (report,) = told
    assert (report.origin.primitive, report.origin.value, report.origin.reason) == ("<unknown>", "nan", "not located")
    assert (report.origin.count, report.origin.size, int(jnp.isnan(bad).sum())) == (2, 4, 2)
    assert "Broken: no luck" in report.notes[0]


def test_an_inf_that_cannot_be_located_is_said_to_be_no_more_than_not_looked_into(monkeypatch):
    monkeypatch.setattr(diagnosing, "diagnose", fails)
    told = []
    with watching(told.append) as watched:
        float(jnp.exp(jnp.float32(1000.0)))
    assert (told, watched.left_out()) == ([], ["1 look that failed (Broken: no luck)"])


def test_what_fails_after_a_fault_is_located_leaves_it_told(monkeypatch):
    monkeypatch.setattr(eager_origin, "given", fails)
    told = []
    with watching(told.append):
        inf = jnp.asarray(np.full(3, np.inf, np.float32))
        str(inf - inf)
    assert [report.origin.primitive for report in told] == ["sub"]


def test_a_recursion_that_is_too_deep_is_one_more_failure(monkeypatch):
    def deep(*args):
        return deep(*args)

    monkeypatch.setattr(eager_origin, "located", deep)
    told = []
    with watching(told.append) as watched:
        bad = jnp.log(-jnp.ones(3))
        watched.flush()
        del bad
    assert "RecursionError" in told[0].notes[0]


@pytest.mark.parametrize("door", [(eager_origin, "located"), (GuardedStep, "flush"), (OperationLog, "enter")])
def test_ctrl_c_in_a_look_ends_the_program(monkeypatch, door):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(*door, interrupted)
    with watching(lambda report: None), pytest.raises(KeyboardInterrupt):
        float(jax.jit(lambda x: x)(jnp.sum(jnp.log(-jnp.ones(3)))))


def ran(code, show=lambda report: None, keep_going=False):
    with contextlib.redirect_stderr(io.StringIO()) as written:
        result = script.run(lambda: exec(code, {}), ["program.py"], show, keep_going)
        run_view.summary(result)
    return result, written.getvalue()


FAULTY = "import jax.numpy as jnp\nx = jnp.log(-jnp.ones(3))\nprint(end='')\nfloat(x.sum())"


def test_a_report_that_cannot_be_drawn_is_told_in_a_line():
    result, written = ran(FAULTY, show=fails)
    assert result.found and result.code == 1
    first, last = written.splitlines()
    assert first.startswith("error: `log` made nan at ") and first.endswith("; the report could not be drawn (Broken)")
    assert last.startswith("nandetect: watched ")


def test_a_watch_that_cannot_begin_leaves_the_program_alone_and_says_so(monkeypatch):
    monkeypatch.setattr(wrappers, "logged", fails)
    result, written = ran("import jax.numpy as jnp\nassert float(jnp.ones(3).sum()) == 3.0")
    assert (result.code, written) == (0, "nandetect: nothing was watched: watching could not begin (Broken: no luck)\n")


@pytest.mark.parametrize("door", [(Functions, "cost"), (Functions, "findings"), (pricing, "slow")])
def test_counting_that_fails_at_the_end_ends_nothing(monkeypatch, door):
    monkeypatch.setattr(*door, fails)
    result, written = ran("import jax, jax.numpy as jnp\njax.jit(lambda x: x + 1)(jnp.ones(3))")
    assert result.code == 0 and written.startswith("nandetect: ") and len(written.splitlines()) == 1


def test_the_text_of_an_error_whose_report_cannot_be_drawn(monkeypatch):
    origin = Event(primitive="log", value="nan")
    monkeypatch.setattr(Report, "__str__", fails)
    error = NonFiniteError(Report(origin=origin, chain=(origin,), symptoms=("result",), step=3))
    assert str(error) == "\nerror: `log` made nan in step 3; the report could not be drawn (Broken)"
    assert errors.text(error.report) == str(error).strip()


def test_what_a_program_raises_by_itself_is_no_failure_of_ours():
    with watching(lambda report: None) as watched, pytest.raises(TypeError):
        jnp.dot(jnp.ones(3), jnp.ones(4))
    assert watched.left_out() == []
