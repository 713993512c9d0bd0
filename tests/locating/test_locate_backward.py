"""A value born by differentiation: the derivative's operation, at the forward line that it is the derivative of."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest

import nandetect as nd


def test_derivative_of_sqrt_at_zero_stands_on_the_line_of_the_sqrt(find, xs):
    def f(x):
        return jnp.sqrt(x).sum()  # <-- origin

    report = find(jax.jit(jax.value_and_grad(f)), xs)
    origin = report.origin
    assert (origin.primitive, origin.value, origin.phase, origin.index) == ("div", "inf", "backward", (1,))
    assert [operand.value for operand in origin.operands] == [0.5, 0.0]
    assert origin.derivative_of == "sqrt"
    assert report.symptoms == ("[1]",)


@pytest.mark.parametrize("jitted", [True, False])
def test_grad_alone_is_backward_too(find, xs, jitted):
    def f(x):
        return jnp.sqrt(x).sum()  # <-- origin

    step = jax.grad(f)
    assert find(jax.jit(step) if jitted else step, xs).origin.phase == "backward"


@pytest.mark.parametrize(
    ("function", "argument"),
    [
        (jnp.linalg.norm, jnp.zeros(3)),
        (lambda x: jnp.std(x), jnp.ones(4)),
        (lambda x: jnp.arccos(x).sum(), jnp.array([0.5, 1.0])),
        (lambda x: jnp.arctan2(x, 0 * x).sum(), jnp.array([1.0, 0.0])),
        (lambda x: jnp.sum(x**0.5), jnp.array([1.0, 0.0])),
        (lambda x: jnp.where(x > 0, jnp.sqrt(x), 0.0).sum(), jnp.array([1.0, 0.0])),
        (lambda x: jax.scipy.special.xlogy(x, x).sum(), jnp.array([1.0, 0.0])),
        (lambda a: jnp.linalg.svd(a, full_matrices=False)[0].sum(), jnp.eye(2)),
        (lambda a: jnp.linalg.eigh(a)[1].sum(), jnp.eye(2)),
    ],
)
def test_finite_value_with_a_broken_derivative_is_backward(function, argument):
    report = nd.locate(jax.jit(jax.value_and_grad(lambda x: function(x))), argument)
    assert report is not None
    assert report.origin.phase == "backward"
    assert report.symptoms == ("[1]",)


def test_branch_that_where_dropped_breaks_the_gradient_and_is_named(find, xs):
    def f(x):
        root = jnp.sqrt(x)  # <-- origin
        return jnp.where(x > 0, root, 0.0).sum()

    report = find(jax.jit(jax.value_and_grad(f)), xs)
    assert (report.origin.primitive, report.chain[-1].value) == ("div", "nan")


def test_forward_overflow_is_forward_even_if_only_the_gradient_is_returned(find):
    def f(x):
        return jnp.sum(jnp.exp(x))  # <-- origin

    origin = find(jax.jit(jax.grad(f)), jnp.array([100.0])).origin
    assert (origin.primitive, origin.phase) == ("exp", "forward")


def test_with_both_broken_the_forward_birth_is_the_origin(find, xs):
    def f(x):
        return jnp.log(x).sum()  # <-- origin

    report = find(jax.jit(jax.value_and_grad(f)), xs)
    assert (report.origin.primitive, report.origin.phase) == ("log", "forward")
    assert set(report.symptoms) == {"[0]", "[1]"}


def test_overflow_of_a_cotangent_is_backward(find):
    def f(x):
        return (x * x * x * 1e20).sum()  # <-- origin

    origin = find(jax.jit(jax.grad(f)), jnp.array([1e10])).origin
    assert (origin.primitive, origin.value, origin.phase) == ("mul", "inf", "backward")


def test_cotangent_that_does_not_fit_half_precision_is_backward(find):
    def f(x, scale):
        return (x.astype(jnp.float16).astype(jnp.float32) * scale).sum()  # <-- origin

    origin = find(jax.jit(jax.grad(f)), jnp.ones(2), jnp.float32(2.0**20)).origin
    assert (origin.primitive, origin.phase, origin.value) == ("convert_element_type", "backward", "inf")


def test_rematerialised_derivative_stands_on_the_forward_line(find, xs):
    def f(x):
        @jax.checkpoint
        def g(x):
            return jnp.sqrt(x)  # <-- origin

        return g(x).sum()

    origin = find(jax.jit(jax.value_and_grad(f)), xs).origin
    assert (origin.primitive, origin.phase, origin.index) == ("div", "backward", (1,))


def test_derivative_through_two_jitted_functions_stands_on_the_inner_line(find, xs):
    @jax.jit
    def inner(w, x):
        return jnp.sqrt(w * x)  # <-- origin

    @jax.jit
    def loss(w, x):
        return inner(w, x).sum()

    assert find(jax.jit(jax.value_and_grad(loss)), jnp.float32(1), xs).origin.phase == "backward"


def test_tangent_rule_of_a_custom_jvp_is_on_the_line_of_the_rule(find, xs):
    @jax.custom_jvp
    def square(x):
        return x * x

    @square.defjvp
    def rule(primals, tangents):
        (x,), (t,) = primals, tangents
        return square(x), t * (1.0 / x)  # <-- origin

    assert find(jax.jit(jax.grad(lambda x: square(x).sum())), xs).origin.phase == "backward"


def test_tangent_solve_of_a_custom_root_is_on_its_own_line(find):
    def f(x):
        def slope(g, y):
            return y / g(1.0)  # <-- origin

        return jax.lax.custom_root(lambda y: y * y * y - x, 0.0, lambda g, y: y, slope)

    assert find(jax.jit(jax.grad(f)), jnp.float32(0)).origin.primitive == "div"


@jax.custom_vjp
def doubled(x):
    return 2 * x


def doubled_backward(x, out):
    slope = 1.0 / x  # the origin
    return (out * slope,)


doubled.defvjp(lambda x: (doubled(x), x), doubled_backward)
RULE_LINE = doubled_backward.__code__.co_firstlineno + 1


@pytest.mark.parametrize(
    "step",
    [
        jax.jit(jax.value_and_grad(lambda x: doubled(x).sum())),
        jax.jit(jax.grad(lambda x: doubled(x).sum())),
        jax.grad(lambda x: doubled(x).sum()),
        jax.jit(jax.value_and_grad(jax.jit(lambda x: doubled(x).sum()))),
        jax.jit(jax.vmap(jax.value_and_grad(lambda x: doubled(x)))),
        jax.jit(jax.value_and_grad(lambda x: jax.lax.scan(lambda c, y: (c + doubled(y), None), 0.0, x)[0])),
        jax.jit(jax.value_and_grad(lambda x: jax.checkpoint(doubled)(x).sum())),
    ],
    ids=["value_and_grad", "grad", "not jitted", "inner jit", "vmap", "scan", "remat"],
)
def test_bad_operation_in_the_users_own_backward_rule_is_on_the_line_of_the_rule(step, xs):
    report = nd.locate(step, xs)
    assert report is not None and report.origin.source is not None
    assert (report.origin.primitive, report.origin.phase, report.origin.source.line) == ("div", "backward", RULE_LINE)
    assert report.origin.source.file == __file__


def not_traced_again(x):
    raise RuntimeError("once is enough")


@pytest.mark.parametrize(("again", "line"), [(lambda x: x + jnp.sin(x), RULE_LINE), (not_traced_again, None)], ids=["longer", "raises"])
def test_step_that_traces_otherwise_the_second_time_is_located_all_the_same(xs, again, line):
    traced = []

    def loss(x):
        traced.append(x)
        x = again(x) if len(traced) > 1 else x
        return jax.lax.cond(x[0] > -1.0, lambda x: doubled(x).sum(), lambda x: x.sum(), x)

    report = nd.locate(jax.jit(jax.grad(loss)), xs)
    called = loss.__code__.co_firstlineno + 3
    assert len(traced) > 1 and report is not None and report.origin.source is not None
    assert (report.origin.primitive, report.origin.phase, report.origin.source.line) == ("div", "backward", line or called)


def test_helper_that_a_backward_rule_calls_is_on_the_line_of_the_helper(find, xs):
    def helper(a, b):
        return a / b  # <-- origin

    scaled: Any = jax.custom_vjp(lambda n, x: x * n, nondiff_argnums=(0,))
    scaled.defvjp(lambda n, x: (scaled(n, x), x), lambda n, x, out: (helper(out, x),))
    assert find(jax.jit(jax.grad(lambda x: scaled(2.0, x).sum())), xs).origin.primitive == "div"


def test_jitted_helper_that_a_backward_rule_calls_is_on_the_line_of_the_helper(find, xs):
    @jax.jit
    def helper(a, b):
        return a / b  # <-- origin

    @jax.custom_vjp
    def same(x):
        return 1.0 * x

    same.defvjp(lambda x: (same(x), x), lambda x, out: (helper(out, x),))
    assert find(jax.jit(jax.grad(lambda x: same(x).sum())), xs).origin.primitive == "div"


@pytest.mark.parametrize("transform", [jax.hessian, jax.jacrev, lambda f: lambda x: jax.jvp(jax.grad(f), (x,), (x,))[1]])
def test_second_derivatives_and_jacobians_are_backward(find, xs, transform):
    def f(x):
        return jnp.sqrt(x).sum()  # <-- origin

    origin = find(jax.jit(transform(f)), xs).origin
    assert (origin.primitive, origin.phase) == ("div", "backward")


def test_forward_mode_is_located(find, xs):
    def f(x):
        return jnp.sqrt(x)  # <-- origin

    assert find(jax.jit(lambda x: jax.jvp(f, (x,), (jnp.ones(3),))[1]), xs).origin.primitive == "div"


def test_vjp_and_linear_transpose_are_backward(find, xs):
    def f(x):
        return jnp.sqrt(x)  # <-- origin

    def step(x):
        y, pull = jax.vjp(f, x)
        return y, pull(jnp.ones(3))

    assert find(jax.jit(step), xs).origin.phase == "backward"


def test_inner_gradient_that_a_loss_is_made_of_is_forward(find, xs):
    def loss(w, x):
        slope = jax.grad(lambda x: jnp.sum(jnp.sqrt(x * w)))(x)  # <-- origin
        return jnp.sum(slope)

    origin = find(jax.jit(jax.value_and_grad(loss)), jnp.float32(1), xs).origin
    assert (origin.primitive, origin.phase) == ("div", "forward")


def test_gradient_penalty_breaks_in_the_outer_backward_pass(find, xs):
    def loss(w, x):
        slope = jax.grad(lambda x: jnp.sum(w * x * 0))(x)
        return jnp.linalg.norm(slope)  # <-- origin

    assert find(jax.jit(jax.value_and_grad(loss)), xs, xs).origin.phase == "backward"


def test_gradient_through_an_inner_step_is_backward(find, xs):
    def inner(w, x):
        return jnp.sum(jnp.sqrt(w * x))  # <-- origin

    def outer(w, x):
        return inner(w - 0.1 * jax.grad(inner)(w, x + 1), x)

    assert find(jax.jit(jax.value_and_grad(outer)), jnp.float32(1), xs).origin.phase == "backward"


def test_per_example_gradients_name_the_example(find, xs):
    def loss(w, x):
        return jnp.sqrt(w * x)  # <-- origin

    origin = find(jax.jit(jax.vmap(jax.grad(loss), (None, 0))), jnp.float32(1), xs).origin
    assert (origin.phase, origin.context, origin.index) == ("backward", (("vmap", 3),), (1,))


def test_what_a_checkpoint_computes_again_is_no_cotangent(find, xs):
    @jax.checkpoint
    def f(x, w):
        return jnp.log((x * w) ** 2).sum()  # <-- origin

    origin = find(jax.jit(jax.grad(f)), xs, xs).origin
    assert (origin.primitive, origin.phase) == ("div", "backward")
    assert [operand.name for operand in origin.operands] == ["cotangent", "(x * w) ** 2"]


def test_what_a_derivative_takes_is_said_where_the_user_has_no_name_for_it(xs):
    def loss(x):
        return jax.lax.scan(lambda carry, row: (carry + jnp.sqrt(row), None), 0.0, x)[0]

    def named(x):
        root = jnp.sqrt(x)
        return (root**2).sum()

    def taken(function):
        report = nd.locate(jax.jit(jax.grad(function)), xs)
        assert report is not None
        return [(operand.name, operand.made_by) for operand in report.origin.operands]

    assert taken(loss) == [("", ""), ("", "the result of `sqrt`")]
    assert taken(named) == [("", ""), ("root", "")]
