"""NaN and inf that stand in the program's text: told with the condition that chose them, and its values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax import lax

import nandetect as nd
from nandetect.records import Report


def report_of(function: Callable[..., Any], *args: Any) -> Report:
    """The report of a step that breaks."""
    report = nd.locate(function, *args)
    assert report is not None
    return report


def told(function, *args):
    origin = report_of(jax.jit(function), *args).origin
    return origin.primitive, origin.reason, origin.index, origin.context


# Of one sample there is no variance: n - ddof is 1 - 1. `x * 1e30` would take 98 squarings, of which `expm` does 16 at most.
LIBRARY = {
    "std": (lambda x: jnp.std(x[:1], ddof=1), "select_n", "0.0 > 0.0 is False"),
    "std where": (lambda x: jnp.std(x, where=x > 1, ddof=1), "select_n", "0.0 > 0.0 is False"),
    "expm": (lambda x: jax.scipy.linalg.expm(jnp.outer(x, x) * 1e30), "broadcast_in_dim", " > 16.0 is True"),
}


@pytest.mark.parametrize("name", LIBRARY)
def test_a_nan_that_a_library_writes_is_told_with_what_chose_it(xs, name):
    function, primitive, condition = LIBRARY[name]
    found, reason, _, _ = told(function, xs)
    assert found == primitive
    assert reason.startswith("written there as a literal: ") and reason.endswith(condition)


def test_a_condition_of_the_users_is_told_as_it_is_written(xs):
    assert told(lambda x: jnp.where(x > 0, x, jnp.nan), xs) == (
        "select_n",
        "written there as a literal: `x > 0` is False: 0.0 > 0.0",
        (1,),
        (),
    )


def test_of_conditions_that_are_joined_the_one_that_decided_is_told(xs):
    def f(x):
        return jnp.where((x >= 0) & ~(x > 1.5), x, jnp.nan)

    assert told(f, xs)[1] == "written there as a literal: `x > 1.5` is True: 2.0 > 1.5"


@pytest.mark.parametrize("over", [lambda x: x, lambda x: x + 1])
def test_a_literal_that_a_branch_returns_is_told_with_why_the_branch_ran(xs, over):
    def f(x):
        return over(lax.cond(x[0] > 3, lambda: x[2], lambda: jnp.nan))

    assert told(f, xs) == ("cond", "written there as a literal: `x[0] > 3` is False: 1.0 > 3.0", (), (("cond", 0),))
    switched = told(lambda x, which: over(lax.switch(which, [lambda: x[0], lambda: 1.0, lambda: jnp.nan])), xs, 2)
    assert switched == ("cond", "written there as a literal: branch 2 was taken", (), (("cond", 2),))


def test_a_literal_that_a_loop_returns_is_found_at_its_first_iteration(xs):
    stacked = told(lambda x: lax.scan(lambda c, row: (c, jnp.nan), 0.0, x)[1], xs)
    assert stacked == ("scan", "written there as a literal", (0,), (("scan", 0),))
    carried = told(lambda x: lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, jnp.nan), (0, x[0]))[1], xs)
    assert carried == ("while", "written there as a literal", (), (("while", 0),))


@pytest.mark.parametrize("make", [lambda x: jax.jit(lambda y: (y, jnp.nan))(x)[1], lambda x: jax.checkpoint(lambda y: (y, jnp.nan))(x)[1]])
def test_a_literal_that_a_call_returns_is_no_missing_definition(xs, make):
    assert report_of(jax.jit(make), xs).origin.reason == "written there as a literal"


def test_a_literal_that_is_computed_with_is_written_there(xs):
    assert told(lambda x: x * jnp.nan, xs)[:2] == ("mul", "written there as a literal")


def test_a_placeholder_that_only_the_gradient_meets_is_told_as_that(xs):
    # The loss reads the first row alone; the gradient of the weights multiplies all of them by their cotangents, which are 0.
    def loss(w, x):
        rows = (jnp.zeros((2, 3)) * jnp.nan).at[0].set(x)
        return jnp.sum((rows * w)[0])

    report = report_of(jax.jit(jax.value_and_grad(loss)), jnp.float32(2), xs)
    assert (report.origin.phase, report.origin.role, report.cause) == ("backward", "computed", ())
    assert report.origin.reason == "written there as a literal"
    dropped = report_of(jax.jit(lambda w, x: loss(w, x) + w * jnp.nan), jnp.float32(2), xs).origin
    assert (dropped.phase, dropped.role) == ("forward", None)


def test_a_literal_that_a_step_returns_as_it_is_is_told_as_one_at_the_line_of_its_function(xs):
    def step(x):
        return x, jnp.nan

    report = report_of(jax.jit(step), xs)
    assert (report.origin.primitive, report.origin.value, report.origin.reason) == ("<literal>", "nan", "written there as a literal")
    assert report.origin.source is not None
    assert (report.origin.source.line, report.symptoms) == (step.__code__.co_firstlineno, ("[1]",))
    assert str(report).splitlines()[0].startswith("error: nan is written as a literal into a result")
