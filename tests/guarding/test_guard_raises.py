"""A call that raises because of a bad value is located; one that raises for another reason stays as it was."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import checkify
from jax.extend.core import Primitive
from jax.interpreters import mlir

import nandetect as nd


def line_of(mark):
    (line,) = [number for number, line in enumerate(Path(__file__).read_text().splitlines(), 1) if line.endswith(f"# {mark}")]
    return line


def fail(message):
    def check(x):
        raise ArithmeticError(message)

    return check


def checked(x, bad):
    """As equinox has it: a branch that calls back to raise."""
    struct = jax.ShapeDtypeStruct(x.shape, x.dtype)
    return jax.lax.cond(bad, lambda: jax.pure_callback(fail("a check of the program's"), struct, x), lambda: x)


@jax.jit
def through(w, x):
    y = jnp.log(x @ w)  # through
    return w - 0.25, checked(y, jnp.isnan(y).any()).sum()


@jax.jit
def beside(w, x):
    y = jnp.sqrt((x @ w).sum())  # beside
    return checked(w, jnp.isnan(y)) - 0.25, jnp.float32(0)


@functools.partial(jax.jit, donate_argnums=0)
def donated(w, x):
    y = jnp.log(x @ w)  # donated
    return w - 0.25, checked(y, jnp.isnan(y).any()).sum()


@jax.jit
def in_a_loop(w, x):
    def body(carry, row):
        y = jnp.log(row @ carry)  # loop
        return checked(carry, jnp.isnan(y)), y

    return jax.lax.scan(body, w, x)[0] - 0.25, jnp.float32(0)


@pytest.mark.parametrize("check_every", [None, 3, 50])
@pytest.mark.parametrize(
    ("step", "mark", "primitive"),
    [(through, "through", "log"), (beside, "beside", "sqrt"), (donated, "donated", "log"), (in_a_loop, "loop", "log")],
)
def test_a_check_of_the_program_s_own_that_raises_is_located(step, mark, primitive, check_every):
    # The weights are 1, 3/4, 1/2, 1/4, 0 and, in the sixth call, negative.
    guarded, w, x = nd.guard(step, check_every=check_every), jnp.ones(3), jnp.ones((4, 3))
    with pytest.raises(nd.NonFiniteError) as caught:
        for _ in range(8):
            w, value = guarded(w, x)
            if step is not beside:
                value = jnp.where(jnp.isinf(value), 0, value).block_until_ready()
            jax.block_until_ready(w)
        guarded.flush()
    report = caught.value.report
    # The log of zero before it is a fault of its own, where it comes out.
    first = 4 if step in (through, donated) else 5
    assert (report.origin.primitive, report.step, getattr(report.origin.source, "line", None)) == (primitive, first, line_of(mark))


def test_what_asks_for_a_function_is_told_and_the_error_goes_on_its_way():
    reports = []
    guarded = nd.guard(beside, on_find=reports.append)
    with pytest.raises(Exception, match="a check of the program's"):
        jax.block_until_ready(guarded(-jnp.ones(3), jnp.ones((4, 3))))
    guarded.flush()
    assert [report.origin.primitive for report in reports] == ["sqrt"]


@jax.jit
def impatient(w, limit):
    masked = jnp.where(w > 0, jnp.log(jnp.where(w > 0, w, 1)), -jnp.inf)
    return checked(w, limit > 3), masked.max()


def test_a_check_that_has_nothing_to_do_with_bad_values_is_left_alone():
    guarded, w = nd.guard(impatient), jnp.arange(3.0)
    with pytest.raises(Exception, match="a check of the program's"):
        for limit in range(8):
            w, _ = guarded(w, limit)
            jax.block_until_ready(w)
    guarded.flush()
    assert guarded.findings() == []


@pytest.mark.parametrize("error", [TypeError, KeyboardInterrupt, RuntimeError, FileNotFoundError])
def test_what_the_step_s_own_code_raises_is_the_same_error_and_the_code_does_not_run_again(error):
    runs, raised = [], error("the program's own")

    @jax.jit
    def step(x):
        runs.append(x)
        raise raised

    guarded = nd.guard(step)
    with pytest.raises(error) as caught:
        guarded(jnp.zeros(3))
    assert (caught.value is raised, caught.value.__cause__, len(runs)) == (True, None, 1)


def test_what_checkify_throws_from_a_function_that_is_not_compiled_is_located():
    def inner(x):
        y = jnp.log(x - 1)  # checkify
        checkify.check(jnp.isfinite(y).all(), "y is bad")
        return y

    compiled = jax.jit(checkify.checkify(inner))

    def step(x):
        error, y = compiled(x)
        error.throw()
        return y

    guarded = nd.guard(step)
    assert np.allclose(guarded(jnp.array([2.0])), 0)
    with pytest.raises(nd.NonFiniteError) as caught:
        guarded(jnp.array([0.5]))
    origin = caught.value.report.origin
    assert (origin.primitive, getattr(origin.source, "line", None), type(caught.value.__cause__).__name__) == (
        "log",
        line_of("checkify"),
        "JaxRuntimeError",
    )


@pytest.mark.parametrize("jit", ["equinox", "jax"])
def test_error_if_of_equinox_is_located(equinox, jit):
    def step(x):
        y = jnp.log(x - 1)  # equinox
        return equinox.error_if(y, jnp.isnan(y).any(), "loss is not finite").sum()

    guarded = nd.guard(equinox.filter_jit(step) if jit == "equinox" else jax.jit(step))
    with pytest.raises(nd.NonFiniteError) as caught:
        for number in range(3):
            float(guarded(jnp.array([3.0, 2.5]) - number))
    report = caught.value.report
    assert (report.origin.primitive, report.step, getattr(report.origin.source, "line", None)) == ("log", 2, line_of("equinox"))


def test_what_would_come_after_a_check_that_raised_is_not_called():
    # As equinox's `error_if` does: on a machine that squelches what a callback raises, a second callback waits at a prompt.
    asked = []

    def refuse(x):
        raise ValueError("not finite")

    def wait_at_a_prompt(x):
        asked.append(1)
        return x

    def check(x):
        shape = jax.ShapeDtypeStruct(x.shape, x.dtype)

        def refused():
            return jax.pure_callback(wait_at_a_prompt, shape, jax.pure_callback(refuse, shape, x))

        return jax.lax.cond(jnp.isnan(x).any(), refused, lambda: x)

    guarded = nd.guard(jax.jit(lambda x: check(jnp.log(x)).sum()))
    with pytest.raises(nd.NonFiniteError) as caught:
        guarded(jnp.array([-1.0, 2.0]))
    assert (caught.value.report.origin.primitive, asked) == ("log", [])


def test_what_a_check_saw_is_followed_back_through_the_loop_that_gave_up_for_it():
    # A solver that halves its step as long as its error is nan, and raises after so many: what it returns is finite.
    def solve(x):
        def body(state):
            steps, size, y = state
            tried = y + jnp.sqrt(x - 3.0) * size
            accepted = jnp.abs(tried - y) < 1.0
            return steps + 1, jnp.where(accepted, size, size / 2), jnp.where(accepted, tried, y)

        return jax.lax.while_loop(lambda s: (s[0] < 9) & (s[2] < 1.0), body, (0, jnp.float32(1.0), x))

    def give_up(y):
        raise ValueError("too many steps")

    def step(x):
        benign = jnp.where(x > 0, 1.0, 1.0 / (x - x))
        steps, _, y = solve(x)
        shape = jax.ShapeDtypeStruct((), jnp.float32)
        return jax.lax.cond(steps >= 9, lambda: jax.pure_callback(give_up, shape, y), lambda: y) + benign

    guarded = nd.guard(jax.jit(step))
    with pytest.raises(nd.NonFiniteError) as caught:
        guarded(jnp.float32(0.5))
    assert (caught.value.report.origin.primitive, caught.value.report.origin.context) == ("sqrt", (("while", 8),))


def test_what_a_check_saw_is_the_step_that_was_rejected_though_the_last_one_was_not():
    # A solver that may not go beyond 0.65, where the field has no value: it creeps there until its steps are too many.
    def body(state):
        steps, at, size = state
        error = 0.0 * jnp.log(0.65 - at - size)
        accepted = error < 1.0
        return steps + 1, jnp.where(accepted, at + size, at), jnp.where(accepted, 2 * size, size / 4)

    def give_up(at):
        raise ValueError("too many steps")

    def step(x):
        steps, at, _ = jax.lax.while_loop(lambda s: (s[0] < 8) & (s[1] < 1.0), body, (0, x, jnp.float32(0.4)))
        unused = jnp.full(2, jnp.inf) * 1.0
        shape = jax.ShapeDtypeStruct((), jnp.float32)
        return jax.lax.cond(steps >= 8, lambda: jax.pure_callback(give_up, shape, at), lambda: at), unused

    guarded = nd.guard(jax.jit(step))
    with pytest.raises(nd.NonFiniteError) as caught:
        guarded(jnp.float32(0.0))
    assert (caught.value.report.origin.primitive, caught.value.report.origin.context) == ("log", (("while", 1),))


def test_a_derivative_in_forward_mode_is_one_behind_a_check_that_raised_too():
    def refuse(x):
        raise ValueError("not finite")

    def step(x):
        slope = jax.jvp(lambda x: jnp.sqrt(x * x), (x,), (jnp.float32(1.0),))[1]
        shape = jax.ShapeDtypeStruct((), jnp.float32)
        return jax.lax.cond(jnp.isfinite(slope), lambda: slope, lambda: jax.pure_callback(refuse, shape, slope))

    guarded = nd.guard(jax.jit(step))
    with pytest.raises(nd.NonFiniteError) as caught:
        guarded(jnp.float32(0.0))
    origin = caught.value.report.origin
    assert (origin.primitive, origin.phase, origin.role) == ("div", "backward", "forward mode")


def test_a_check_inside_a_primitive_of_another_library_is_asked_what_it_was_given():
    def refuse(x):
        if not np.isfinite(x).all():
            raise ValueError("the solver received nan")
        return x

    def checked(x):
        return jax.pure_callback(refuse, jax.ShapeDtypeStruct(x.shape, x.dtype), x)

    # As lineax's: what it runs stands in no jaxpr.
    solve = Primitive("solve_of_another_library")
    solve.def_impl(jax.jit(checked))
    solve.def_abstract_eval(lambda x: x)
    mlir.register_lowering(solve, mlir.lower_fun(checked, multiple_results=False))

    guarded = nd.guard(jax.jit(lambda x: solve.bind(jnp.log(x) * 2.0)))
    guarded(jnp.ones(2))
    with pytest.raises(nd.NonFiniteError) as caught:
        guarded(jnp.array([1.0, -1.0]))
    report = caught.value.report
    assert (report.origin.primitive, report.origin.index, report.step) == ("log", (1,), 1)


def test_what_a_check_saw_as_nan_may_have_begun_as_an_overflow():
    def refuse(x):
        raise ValueError("not finite")

    def step(x):
        big = jnp.exp(x)
        shape = jax.ShapeDtypeStruct((), jnp.float32)
        return jax.lax.cond(big - big == 0.0, lambda: x, lambda: jax.pure_callback(refuse, shape, x))

    guarded = nd.guard(jax.jit(step))
    with pytest.raises(nd.NonFiniteError) as caught:
        guarded(jnp.float32(1000.0))
    assert (caught.value.report.origin.primitive, caught.value.report.origin.value) == ("exp", "inf")
