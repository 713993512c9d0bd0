"""A value born in the forward pass: its operation, line, element and operands, through calls of every kind."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nandetect as nd


def test_log_of_zero_is_named_with_its_element_and_operand(find, xs):
    f = jax.jit(lambda x: jnp.log(x))  # <-- origin
    report = find(f, xs)
    origin = report.origin
    assert (origin.primitive, origin.value, origin.reason, origin.phase) == ("log", "-inf", "log of zero", "forward")
    assert (origin.index, origin.count, origin.size, origin.context) == ((1,), 1, 3, ())
    (operand,) = origin.operands
    assert (operand.name, operand.shape, operand.dtype, operand.value, operand.min, operand.max) == ("x", (3,), "float32", 0.0, 0.0, 2.0)
    assert (operand.nan, operand.inf, operand.zero, operand.subnormal) == (0, 0, 1, 0)
    assert report.chain == (origin,)
    assert report.symptoms == ("result",)


def test_columns_underline_the_exact_expression(find, xs):
    f = jax.jit(lambda x: x + jnp.log(x * 2))  # <-- origin
    source = find(f, xs).origin.source
    line = source.code.encode()
    assert line[source.column : source.end_column] == b"jnp.log(x * 2)"


def test_a_step_that_is_not_jitted_is_located_too(find, xs):
    def f(x):
        return jnp.log(x)  # <-- origin

    assert find(f, xs).origin.source.function.endswith("f")


def test_a_sound_step_gives_nothing(xs):
    assert nd.locate(jax.jit(lambda x: jnp.log(x + 1)), xs) is None


def test_symptoms_are_the_broken_leaves_by_path_and_only_those(find, xs):
    @jax.jit
    def f(x):
        y = jnp.log(x)  # <-- origin
        return {"a": y, "b": (y * 2, x), "c": None}

    assert set(find(f, xs).symptoms) == {"['a']", "['b'][0]"}


def test_chain_leads_from_the_origin_to_the_symptom(find, xs):
    @jax.jit
    def f(x):
        y = jnp.log(x)  # <-- origin
        return jnp.sum(-y * 2)

    assert [event.primitive for event in find(f, xs).chain] == ["log", "neg", "mul", "reduce_sum"]


def test_of_two_calls_of_one_jitted_function_the_bad_one_is_on_the_stack(find):
    @jax.jit
    def g(x):
        return jnp.log(x)  # <-- origin

    def good(x):
        return g(x + 1)

    def bad(x):
        return g(x)

    report = find(jax.jit(lambda x: good(x) + bad(x)), jnp.float32(0))
    functions = [frame.function.split(".")[-1] for frame in report.origin.frames]
    assert "bad" in functions and "good" not in functions


@pytest.mark.parametrize("size", [(), (1,), (2, 3)])
def test_any_shape(find, size):
    report = find(jax.jit(lambda x: jnp.log(x)), jnp.zeros(size))  # <-- origin
    assert (report.origin.index, report.origin.count) == ((0,) * len(size), int(np.prod(size)))


def test_first_bad_element_is_in_row_major_order_and_operands_follow_broadcasting(find):
    def f(a, b):
        return a[:, None] / b[None, :]  # <-- origin

    origin = find(jax.jit(f), jnp.array([3.0, 4.0]), jnp.array([1.0, 2.0, 0.0])).origin
    assert (origin.index, origin.count, origin.size) == ((0, 2), 2, 6)
    assert [operand.value for operand in origin.operands] == [3.0, 0.0]


def test_a_scalar_operand_has_its_value_at_every_element(find):
    def f(a, b):
        return a / b  # <-- origin

    origin = find(jax.jit(f), jnp.float32(4), jnp.ones((2, 3)).at[1, 2].set(0)).origin
    assert (origin.index, [operand.value for operand in origin.operands]) == ((1, 2), [4.0, 0.0])


def test_nan_that_inf_turned_into_has_the_inf_as_its_origin(find):
    @jax.jit
    def f(x):
        e = jnp.exp(x)  # <-- origin
        return e / (1 + e)

    report = find(f, jnp.array([100.0]))
    assert (report.origin.primitive, report.origin.value, report.chain[-1].value) == ("exp", "inf", "nan")


def test_zero_times_an_inf_that_was_written_down_is_a_birth_of_nan(find):
    @jax.jit
    def f(x, mask):
        penalty = jnp.where(mask > 0, x, jnp.inf)
        return jnp.sum(penalty * mask)  # <-- origin

    origin = find(f, jnp.ones(3), jnp.array([1.0, 0.0, 1.0])).origin
    assert (origin.primitive, origin.value, origin.index) == ("mul", "nan", (1,))
    assert {operand.value for operand in origin.operands} == {0.0, float("inf")}


def test_softmax_of_a_row_that_is_masked_altogether_is_inf_minus_inf(find, xs):
    @jax.jit
    def f(x):
        scores = jnp.where(x > 5, x, -jnp.inf)
        return jnp.exp(scores - scores.max())  # <-- origin

    origin = find(f, xs).origin
    assert (origin.primitive, origin.value, origin.reason) == ("sub", "nan", "inf minus inf")


@pytest.mark.parametrize(
    ("primitive", "function", "argument"),
    [
        ("sqrt", jnp.sqrt, -1.0),
        ("acos", jnp.arccos, 1.1),
        ("log1p", jnp.log1p, -1.0),
        ("atanh", jnp.arctanh, 1.0),
        ("erf_inv", jax.scipy.special.erfinv, 1.0),
        ("lgamma", jax.scipy.special.gammaln, 0.0),
        ("exp", jnp.exp, 1e3),
        ("pow", lambda x: x ** (1 / 3), -8.0),
        ("mul", lambda x: x * 1e38, 1e3),
        ("integer_pow", lambda x: x**4, 1e30),
    ],
)
def test_elementwise_births(primitive, function, argument):
    report = nd.locate(jax.jit(lambda x: function(x).sum()), jnp.array([0.5, argument, 0.25]))
    assert report is not None
    assert (report.origin.primitive, report.origin.index, report.origin.operands[0].value) == (primitive, (1,), pytest.approx(argument))


@pytest.mark.parametrize(
    ("primitive", "function", "argument"),
    [
        ("reduce_sum", jnp.sum, jnp.full(4, 3e38)),
        ("reduce_prod", jnp.prod, jnp.full(50, 10.0)),
        ("cumsum", jnp.cumsum, jnp.full(5, 3e38)),
        ("cumprod", jnp.cumprod, jnp.full(50, 10.0)),
        ("dot_general", lambda x: x @ x, jnp.array([1e20, 1.0])),
        ("cholesky", jnp.linalg.cholesky, -jnp.eye(2)),
    ],
)
def test_births_in_operations_over_axes(primitive, function, argument):
    report = nd.locate(jax.jit(lambda x: function(x)), argument)
    assert report is not None
    assert report.origin.primitive == primitive


def test_empty_segment_divides_zero_by_zero_at_its_row(find):
    @jax.jit
    def f(x, ids):
        total = jax.ops.segment_sum(x, ids, 3)
        return total / jax.ops.segment_sum(jnp.ones_like(x), ids, 3)  # <-- origin

    origin = find(f, jnp.ones(4), jnp.array([0, 0, 2, 2])).origin
    assert (origin.primitive, origin.index, origin.reason) == ("div", (1,), "zero divided by zero")


def test_out_of_bounds_gather_is_a_birth(find, xs):
    f = jax.jit(lambda x, i: x.at[i].get(mode="fill"))  # <-- origin
    origin = find(f, xs, jnp.array([0, 7, 2])).origin
    assert (origin.primitive, origin.index, origin.reason) == (
        "gather",
        (1,),
        "index 7 is out of bounds for axis 0 of size 3, filled with nan",
    )


def test_singular_solve_is_forward_in_a_step_without_gradients(find):
    f = jax.jit(lambda a, b: jnp.linalg.solve(a, b))  # <-- origin
    origin = find(f, jnp.zeros((2, 2)), jnp.ones(2)).origin
    assert (origin.primitive, origin.phase) == ("triangular_solve", "forward")


def test_solver_of_a_custom_linear_solve_is_looked_into(find):
    def f(b):
        def solve(matvec, b):
            return b / jnp.zeros(2)  # <-- origin

        return jax.lax.custom_linear_solve(lambda x: 0.0 * x, b, solve, symmetric=True)

    assert find(jax.jit(f), jnp.ones(2)).origin.primitive == "div"


def test_function_of_a_custom_root_is_looked_into(find):
    def f(x):
        def residual(y):
            return y - jnp.log(x)  # <-- origin

        return jax.lax.custom_root(residual, 0.0, lambda g, y: y - g(y), lambda g, y: y / g(1.0))

    assert find(jax.jit(f), jnp.float32(0)).origin.primitive == "log"


def test_operator_of_an_associative_scan_is_on_the_line(find):
    def divide(a, b):
        return a / b  # <-- origin

    f = jax.jit(lambda x: jax.lax.associative_scan(divide, x))
    assert find(f, jnp.array([1.0, 2.0, 0.0, 4.0, 5.0])).origin.primitive == "div"


def test_primal_of_a_custom_jvp_is_looked_into(find, xs):
    @jax.custom_jvp
    def g(x):
        return jnp.log(x)  # <-- origin

    g.defjvp(lambda primals, tangents: (g(primals[0]), tangents[0]))
    assert find(jax.jit(lambda x: g(x)), xs).origin.index == (1,)


def test_forward_rule_of_a_custom_vjp_is_looked_into(find, xs):
    @jax.custom_vjp
    def g(x):
        return x * x

    def forward(x):
        return jnp.log(x), x  # <-- origin

    g.defvjp(forward, lambda x, out: (out * x,))
    origin = find(jax.jit(jax.value_and_grad(lambda x: g(x).sum())), xs).origin
    assert (origin.primitive, origin.phase) == ("log", "forward")


def test_rematerialised_forward_work_is_found_on_its_own_line(find):
    def f(x):
        @jax.checkpoint
        def g(x):
            return jnp.sqrt(x)  # <-- origin

        return g(x).sum()

    origin = find(jax.jit(jax.value_and_grad(f)), jnp.array([1.0, -1.0])).origin
    assert (origin.primitive, origin.phase, origin.operands[0].value) == ("sqrt", "forward", -1.0)


def test_value_behind_a_stop_gradient_is_forward(find, xs):
    def loss(w, x):
        target = jax.lax.stop_gradient(jnp.log(x))  # <-- origin
        return jnp.mean((w * x - target) ** 2)

    assert find(jax.jit(jax.value_and_grad(loss)), jnp.float32(1), xs).origin.phase == "forward"


def test_origin_is_the_value_that_a_sort_brought_to_the_symptom(find, xs):
    @jax.jit
    def f(x):
        logs = jnp.log(x)  # <-- origin
        roots = jnp.sqrt(x - 10)
        return jnp.sort(jnp.concatenate([roots, logs]))[0]

    report = find(f, xs)
    assert (report.origin.value, report.chain[-1].value) == ("-inf", "-inf")


def test_inf_beside_a_nan_in_a_product_is_a_fault_too(find):
    def f(x):
        inverse = 1.0 / x[0]  # <-- origin
        return jnp.stack([inverse, jnp.log(x[1])]) @ jnp.array([0.0, 1.0])

    # With the logarithm mended, the inf would still meet the zero.
    assert np.isnan(f(jnp.array([0.0, 1.0])))
    assert find(f, jnp.array([0.0, -1.0])).origin.primitive == "div"


def test_running_sum_owes_nothing_to_what_stands_after_it(find, xs):
    @jax.jit
    def f(x):
        roots = jnp.sqrt(x - 10)
        logs = jnp.log(x)  # <-- origin
        return jnp.cumsum(jnp.concatenate([logs, roots]))[1]

    assert find(f, xs).origin.primitive == "log"


def test_largest_few_are_followed_to_where_they_stood(find, xs):
    @jax.jit
    def f(x):
        low = jnp.log(0 * x)
        high = 1 / x  # <-- origin
        return jax.lax.top_k(jnp.concatenate([low, high]), 2)[0][0]

    assert find(f, xs).origin.primitive == "div"


def test_segment_maximum_keeps_to_its_segment(find, xs):
    @jax.jit
    def f(x):
        roots = jnp.sqrt(x - 10)
        logs = -jnp.log(x)  # <-- origin
        return jax.ops.segment_max(jnp.concatenate([roots, logs]), jnp.array([0, 0, 0, 1, 2, 3]), 4)[2]

    assert find(f, xs).origin.primitive == "log"


@pytest.mark.parametrize("method", ["add", "subtract", "multiply", "set", "max"])
def test_scattered_value_is_followed_to_where_it_was_made(method, find, xs):
    @jax.jit
    def f(x):
        y = 1 / x  # <-- origin
        return getattr(jnp.ones(4).at[jnp.array([0, 2, 3])], method)(y)

    origin = find(f, xs).origin
    assert (origin.primitive, origin.index) == ("div", (1,))


def test_spectrum_and_convolution_lead_back_to_the_element(find):
    @jax.jit
    def f(x):
        y = jnp.log(x)  # <-- origin
        z = jax.lax.conv_general_dilated(y, jnp.ones((3, 1, 1)), (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC"))
        return jnp.abs(jnp.fft.rfft(z[0, :, 0]))

    assert find(f, jnp.ones((1, 8, 1)).at[0, 5, 0].set(0)).origin.index == (0, 5, 0)


def test_partial_and_callable_object_and_bound_jitted_method_are_functions_too(xs):
    class Model:
        def __call__(self, x):
            return jnp.log(x)

        @functools.partial(jax.jit, static_argnums=0)
        def step(self, x):
            return jnp.log(x)

    for function in (functools.partial(lambda a, x: a * jnp.log(x), 2.0), Model(), Model().step, jax.vmap(jax.jit(jnp.log))):
        report = nd.locate(function, xs)
        assert report is not None and report.origin.primitive == "log"
