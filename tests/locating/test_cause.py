"""Why an origin's operand was deadly: the truth is a mark in the test's own source, `# <-- cause` where the value was made."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import nandetect as nd
from nandetect.locating import cause
from nandetect.locating.iterations import Loops
from nandetect.records import Event, Report


def report_of(function: Callable[..., Any], *args: Any) -> Report:
    """The report of a step that breaks."""
    report = nd.locate(function, *args)
    assert report is not None
    return report


MARK = "# <-- cause"
X = jnp.array([0.0, 200.0, 1.0])


@pytest.fixture
def why(request) -> Callable[..., tuple[Event, ...]]:
    """The causes that `locate` gives, the last of which must stand on the marked line of the test."""

    def causes(function: Callable[..., object], *args: object, strict: bool = False) -> tuple[Event, ...]:
        report = nd.locate(function, *args, strict=strict)
        assert report is not None
        lines, start = inspect.getsourcelines(request.function)
        (marked,) = [number for number, line in enumerate(lines, start) if line.rstrip().endswith(MARK)]
        source = report.cause[-1].source
        assert source is not None
        assert (source.file, source.line) == (str(request.path), marked)
        return report.cause

    return causes


def told(events: tuple[Event, ...]) -> list[tuple[str, str]]:
    assert {event.value for event in events} == {"finite"}
    return [(event.primitive, event.reason) for event in events]


def given(function: Callable[..., object], *args: object) -> Event:
    """The only cause, an argument."""
    report = nd.locate(function, *args)
    assert report is not None
    (event,) = report.cause
    assert (event.primitive, event.source) == ("<input>", None)
    return event


def test_an_exponential_that_underflowed_made_the_zero_of_a_softmax(why):
    def loss(x):
        p = jax.nn.softmax(x)  # <-- cause
        return jnp.log(p).sum()

    (event,) = why(loss, X)
    assert (event.primitive, event.reason, event.index) == ("exp", "underflows to 0 in float32", (0,))
    assert event.operands[0].value == -200.0


def test_a_sigmoid_that_rounded_to_one_is_told_behind_the_difference(why):
    def loss(x):
        p = jax.nn.sigmoid(x)  # <-- cause
        return jnp.log(1 - p).sum()

    assert told(why(loss, X)) == [("sub", "cancels to 0"), ("logistic", "rounds to 1 in float32")]


def test_a_sum_that_rounded_to_one_is_told_behind_a_quotient(why):
    def loss(x):
        e = 1.0 + jnp.exp(-x)  # <-- cause
        return jnp.log(1.0 - 1.0 / e)

    # float32: 1 + exp(-18) is 1, as 1.5e-8 is below half of the spacing 1.2e-7.
    assert np.float32(1) + np.float32(np.exp(-18)) == 1
    assert told(why(loss, jnp.float32(18))) == [("sub", "cancels to 0"), ("add", "rounds to 1 in float32")]


def test_a_zero_that_was_given_is_the_argument_with_its_element():
    event = given(jax.grad(lambda p: jnp.sqrt(p["w"][2, 0] ** 2)), {"w": jnp.array([[1.0], [2.0], [0.0]])})
    assert (event.argument, event.index, event.reason, event.shape) == ("p['w']", (2, 0), "0 in the input", (3, 1))
    assert event.operands[0].value == 0.0


def test_a_zero_that_a_matrix_product_took_from_a_row_of_zeros_is_that_row():
    w = jnp.ones((2, 2))
    event = given(lambda x: jnp.log(x @ w), jnp.array([[1.0, 2.0], [0.0, 0.0]]))
    assert (event.argument, event.index) == ("x", (1, 0))


def test_an_integer_count_of_zero_is_followed_to_the_argument():
    event = given(lambda x, step: x * jnp.asarray(step, jnp.float32) ** -0.5, X, 0 * jnp.int32(1))
    assert (event.argument, event.reason) == ("step", "0 in the input")


def test_the_difference_of_equal_values_is_told_even_where_both_are_zero(why):
    def energy(r):
        d = r[:, None] - r[None]  # <-- cause
        return jnp.sum(jnp.sqrt(d**2))

    assert told(why(jax.grad(energy), jnp.array([0.0, 1.0]))) == [("sub", "cancels to 0")]


def test_a_variance_that_cancelled_below_zero_is_told_with_its_terms(why):
    def scale(x):
        v = jnp.mean(x * x) - jnp.mean(x) ** 2  # <-- cause
        return jnp.sqrt(v)

    # In float64 the variance is 0, so that what is below it is rounding.
    x = np.full(3, 300.1, np.float32)
    (event,) = why(scale, jnp.asarray(x))
    assert (event.primitive, event.reason.split(" to ")[0]) == ("sub", "cancels")
    assert event.operands[0].value == pytest.approx(np.mean(np.float64(x) ** 2), rel=1e-6)


def test_a_difference_that_kept_its_digits_is_not_said_to_cancel(why):
    def scale(x):
        v = x - 1.4  # <-- cause
        return jnp.sqrt(v)

    assert told(why(scale, jnp.float32(1))) == [("sub", "gives -0.4")]


def test_a_mean_over_no_element_is_told_as_such(why):
    def mean(x, m):
        count = jnp.sum(m)  # <-- cause
        return jnp.sum(jnp.where(m, x, 0.0)) / count

    assert told(why(mean, X, jnp.zeros(3, bool))) == [("reduce_sum", "nothing is summed there")]


def test_a_mask_that_is_not_counted_is_told_where_it_became_a_number(why):
    def scale(x, m):
        w = m.astype(jnp.float32)  # <-- cause
        return 1.0 / (x * w)

    assert told(why(scale, X + 1, jnp.array([True, False, True]))) == [("convert_element_type", "the mask is False there: `m` is False")]


def test_a_complex_zero_has_both_parts_zero():
    event = given(lambda z: 1 / z, jnp.array([1j, 0j]))
    assert (event.argument, event.index) == ("z", (1,))


def test_a_swallowed_birth_has_a_cause_too_where_it_is_asked_for(why):
    def step(x):
        e = jnp.exp(-x)  # <-- cause
        return jnp.argmax(jnp.log(e))

    assert told(why(step, X, strict=True)) == [("exp", "underflows to 0 in float32")]


def test_an_empty_segment_is_told_as_such(why):
    def means(x, ids):
        count = jax.ops.segment_sum(jnp.ones(3), ids, 3)  # <-- cause
        return jax.ops.segment_sum(x, ids, 3) / count

    assert told(why(means, X, jnp.array([0, 0, 2]))) == [("scatter-add", "nothing is summed there")]


def test_a_rectifier_that_cut_off_is_the_cause_of_its_zero(why):
    def loss(x):
        h = jax.nn.relu(x - 5.0)  # <-- cause
        return jnp.log(h)

    (event,) = why(loss, X)
    assert (event.primitive, event.reason, event.operands[0].value) == ("max", "bounded to 0", -5.0)


def test_a_cast_that_underflowed_is_the_cause(why):
    def loss(x):
        small = x.astype(jnp.float16)  # <-- cause
        return 1 / small

    assert np.float16(1e-9) == 0
    assert told(why(loss, jnp.array([1e-9]))) == [("convert_element_type", "underflows to 0 in float16")]


def test_a_product_that_underflowed_is_the_cause(why):
    def loss(x):
        y = x * 1e-30  # <-- cause
        return jnp.log(y)

    assert told(why(loss, jnp.array([1e-30]))) == [("mul", "underflows to 0 in float32")]


def test_a_mask_of_minus_inf_is_the_cause_of_inf_minus_inf(why):
    def attend(x, m):
        s = jnp.where(m, x, -jnp.inf)  # <-- cause
        return jax.nn.softmax(s)

    assert told(why(attend, X, jnp.zeros(3, bool))) == [("select_n", "-inf is written there, `m` is False")]


def test_a_random_draw_is_the_cause_of_its_zero(why):
    def draw(key):
        u = jax.random.uniform(key, (100_000,), jnp.float16)  # <-- cause
        return jnp.log(u)

    assert told(why(draw, jax.random.key(0))) == [("random_bits", "drawn at random")]


def test_the_largest_term_of_an_exponent_is_told(why):
    def rate(x, w):
        eta = x @ w + 1.0  # <-- cause
        return jnp.exp(eta)

    assert told(why(rate, X, jnp.ones((3, 2)))) == [("dot_general", "3 products add up to 201, the largest is 200 * 1")]


def test_what_grew_in_a_scan_is_told_with_its_iteration(why):
    def grow(x):
        h, _ = lax.scan(lambda h, _: (h * 10.0, None), x, None, length=60)  # <-- cause
        return h

    (event,) = why(grow, jnp.array([1.0]))
    # 1e38 * 10 is the first product beyond 3.4e38: the 39th, counted from 0 the iteration 38. The one before made its operand.
    grown = "grows to 1e+38, it was 1 before the first of 38 iterations"
    assert (event.primitive, event.reason, event.context) == ("mul", grown, (("scan", 37),))


def test_a_row_of_a_scan_is_followed_out_to_the_argument():
    event = given(lambda xs: lax.scan(lambda c, x: (c + x, jnp.log(x)), 0.0, xs)[1], jnp.array([1.0, 2.0, 0.0]))
    assert (event.argument, event.index) == ("xs", (2,))


def test_a_value_inside_the_iteration_is_followed_there(why):
    def body(c, x):
        z = c - x  # <-- cause
        return c, 1 / z

    (event,) = why(lambda xs: lax.scan(body, 2.0, xs)[1], jnp.array([1.0, 2.0, 3.0]))
    assert (event.primitive, event.context) == ("sub", (("scan", 1),))
    assert [operand.value for operand in event.operands] == [2.0, 2.0]


def test_a_call_is_followed_in_and_out(why):
    @jax.jit
    def inner(x):
        return jnp.exp(x)  # <-- cause

    @jax.jit
    def outer(x):
        return 1 / jax.checkpoint(inner)(x)

    assert told(why(outer, -X)) == [("exp", "underflows to 0 in float32")]


def test_a_zero_pivot_is_told_of_a_singular_system(why):
    def solve(x):
        return jnp.linalg.solve(jnp.outer(x, x), x)  # <-- cause

    assert told(why(solve, X)) == [
        ("lu", "a pivot is 0, the matrix is singular"),
        ("mul", "gives that matrix: it has rank 1 of 3"),
    ]


def test_the_smallest_eigenvalue_is_told_of_a_matrix_without_a_root(why):
    def root(x):
        return jnp.linalg.cholesky(x)  # <-- cause

    matrix = np.array([[1.0, 2.0], [2.0, 1.0]])
    (smallest, _) = np.linalg.eigvalsh(matrix)
    assert told(why(root, jnp.asarray(matrix))) == [("cholesky", f"the smallest eigenvalue of its matrix is {smallest:.4g}")]


def test_a_huge_argument_is_the_cause_of_an_overflow():
    event = given(lambda x: (x * 2.0) ** 2, jnp.array([1.0, 1e30]))
    assert (event.argument, event.index, event.reason) == ("x", (1,), "1e+30 in the input")


def test_a_product_many_times_its_operands_is_the_cause_of_an_overflow(why):
    def power(x):
        y = x * x  # <-- cause
        return jnp.exp(y)

    (event,) = why(power, jnp.float32(20))
    assert (event.primitive, event.reason, event.operands[0].value) == ("mul", "grows to 400", 20.0)


def test_a_slight_addend_is_passed_over_on_the_way_to_what_is_negative(why):
    def scale(x):
        h = x * -3.0  # <-- cause
        return jnp.sqrt(h + 1e-6)

    assert told(why(scale, jnp.float32(1))) == [("mul", "gives -3")]


def test_what_a_loop_began_with_is_followed_out_to_the_argument():
    event = given(lambda c, xs: lax.scan(lambda c, x: (c + 1.0, x / c), c, xs)[1], jnp.float32(0), X + 1)
    assert (event.argument, event.reason) == ("c", "0 in the input")


def test_what_cannot_be_traced_has_no_cause_and_does_not_raise():
    nothing: Any = None
    assert cause.trace(nothing, 0, (), nothing, Loops()) == ()


def test_a_value_that_arrived_broken_has_no_cause():
    report = nd.locate(lambda x: x + 1, jnp.array([jnp.nan]))
    assert report is not None
    assert report.cause == ()


def names(function, *args):
    return [operand.name for operand in report_of(jax.jit(function), *args).origin.operands]


def test_operands_in_a_loop_are_called_what_its_body_calls_them():
    def f(xs, scale):
        def body(carry, row):
            return carry + row, row * scale / carry

        return lax.scan(body, 0.0, xs)

    assert names(f, jnp.ones(3), 2.0) == ["row * scale", "carry"]
    assert names(
        lambda x, scale: lax.while_loop(lambda s: s["i"] < 3, lambda s: {"i": s["i"] + 1, "x": s["x"] / scale}, {"i": 0, "x": x}), 1.0, 0.0
    ) == [
        "s['x']",
        "scale",
    ]


def test_operands_in_a_derivative_rule_of_the_users_have_the_names_of_the_rule():
    @jax.custom_vjp
    def root(x):
        return jnp.sqrt(x)

    def backward(x, cotangent):
        denominator = 2 * jnp.sqrt(x)
        return (cotangent / denominator,)

    root.defvjp(lambda x: (jnp.sqrt(x), x), backward)
    assert names(jax.grad(lambda x: root(x).sum()), jnp.array([1.0, 0.0])) == ["cotangent", "denominator"]


def test_an_operand_inside_of_a_library_is_not_called_what_the_librarys_result_is_assigned_to():
    library: dict[str, Any] = {"jax": jax}
    body = "@jax.jit\ndef both(x):\n    y = x * 0\n    return 1 / y, y\n\n\ndef ratio(x):\n    one, other = both(x)\n    return one + other"
    exec(compile(body, jnp.__file__, "exec"), library)

    def f(x):
        quotient = library["ratio"](x)
        return quotient

    assert names(f, jnp.ones(3)) == ["", ""]


def test_what_a_function_that_a_library_calls_reads_is_not_called_what_the_librarys_result_is_assigned_to():
    library: dict[str, Any] = {"lax": lax}
    body = "def integrate(field, y):\n    return lax.fori_loop(0, 3, lambda i, y: y + 0.1 * field(0.5 * i, y), y)"
    exec(compile(body, jnp.__file__, "exec"), library)

    def f(y0):
        solution = library["integrate"](lambda t, y: y / t, y0)
        return solution

    assert names(f, jnp.float32(1.0)) == ["", ""]
