"""A NaN in the input that the forward pass masks and the backward pass brings back: 0 times NaN is NaN."""

from __future__ import annotations

import inspect

import jax
import jax.numpy as jnp
import pytest

import nandetect as nd

X = jnp.array([1.0, jnp.nan, 2.0])
W = jnp.ones(3)


def line_of(function, mark):
    """The number of the line of a function that ends in a mark."""
    lines, start = inspect.getsourcelines(function)
    (at,) = [number for number, line in enumerate(lines, start) if line.rstrip().endswith(mark)]
    return at


def by_a_mask(x, w):
    y = x * w  # <-- back
    return jnp.where(jnp.isnan(x), 0.0, y).sum()  # <-- masked


def after_another_operation(x, w):
    y = jnp.exp(x * w)  # <-- back
    return jnp.where(jnp.isnan(x), 0.0, y).sum()  # <-- masked


def after_a_matrix_product(x, w):
    y = jnp.stack([x, W]) @ w
    y = jnp.tanh(y)  # <-- back
    return jnp.where(jnp.isnan(y), 0.0, y).sum()  # <-- masked


def in_a_scan(x, w):
    def body(total, row):
        y = row * w  # <-- back
        return total + jnp.where(jnp.isnan(row), 0.0, y).sum(), None  # <-- masked

    return jax.lax.scan(body, 0.0, x)[0]


@pytest.mark.parametrize("loss", [by_a_mask, after_another_operation, after_a_matrix_product, in_a_scan])
@pytest.mark.parametrize("inner", [False, True])
def test_both_lines_are_named(loss, inner):
    report = nd.locate(jax.jit(jax.value_and_grad(jax.jit(loss) if inner else loss, argnums=1)), X, W)
    assert report is not None
    masked, back = line_of(loss, "# <-- masked"), line_of(loss, "# <-- back")
    assert (report.origin.primitive, report.origin.argument, report.symptoms) == ("<input>", "x", ("[1]",))
    assert report.notes == (f"masked in the forward pass at line {masked}; 0 * nan in the backward pass at line {back}; mask before use",)


def test_a_parameter_made_of_the_gradient_alone_tells_it_too():
    def step(x, w):
        return w - 0.1 * jax.grad(by_a_mask, argnums=1)(x, w)

    report = nd.locate(jax.jit(step), X, W)
    assert report is not None and len(report.notes) == 1


@pytest.mark.parametrize("differentiated", [jax.grad, jax.value_and_grad])
def test_nothing_is_called_masked_where_the_loss_is_nan_too(differentiated):
    report = nd.locate(jax.jit(differentiated(lambda w, x: (x * w).sum())), W, X)
    assert report is not None
    assert (report.origin.primitive, report.notes) == ("<input>", ())


def test_an_inf_that_a_division_swallows_is_not_called_masked():
    report = nd.locate(jax.jit(jax.value_and_grad(lambda w, x: (1 / (w * x)).sum())), W, jnp.array([1.0, jnp.inf, 2.0]))
    assert report is None or report.notes == ()
