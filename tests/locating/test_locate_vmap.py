"""vmap: the lane is the element; lanes that are finished and branches that a select dropped are never blamed."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

import nandetect as nd


def test_vmap_is_context_and_the_lane_is_the_first_index(find, xs):
    f = jax.jit(lambda x: jax.vmap(lambda v: jnp.log(v))(x))  # <-- origin
    origin = find(f, xs).origin
    assert (origin.context, origin.index) == ((("vmap", 3),), (1,))


def test_vmap_around_a_scan_stands_before_it(find):
    def divide(carry, x):
        return carry / x, carry  # <-- origin

    f = jax.jit(jax.vmap(lambda row: lax.scan(divide, 1.0, row)[0]))
    origin = find(f, jnp.array([[1.0, 1.0, 1.0], [1.0, 0.0, 2.0]])).origin
    assert (origin.context, origin.index) == ((("vmap", 2), ("scan", 1)), (1,))


def test_vmap_inside_a_scan_stands_after_it(find):
    def body(carry, x):
        return jax.vmap(lambda a, b: a / b)(carry, x), None  # <-- origin

    f = jax.jit(lambda xs: lax.scan(body, jnp.ones(2), xs)[0])
    origin = find(f, jnp.array([[1.0, 1.0], [1.0, 0.0], [1.0, 2.0]])).origin
    assert (origin.context, origin.index) == ((("scan", 1), ("vmap", 2)), (1,))


def test_scan_of_a_vmap_of_a_scan_keeps_the_order(find):
    def divide(carry, x):
        return carry / x, None  # <-- origin

    start: Any = 1.0

    def body(carry, rows):
        return carry + jax.vmap(lambda row: lax.scan(divide, start, row)[0])(rows).sum(), None

    f = jax.jit(lambda xs: lax.scan(body, 0.0, xs)[0])
    assert find(f, jnp.ones((3, 2, 4)).at[1, 1, 2].set(0)).origin.context == (("scan", 1), ("vmap", 2), ("scan", 2))


def test_lane_of_a_while_is_found_at_its_iteration(find):
    def lane(x):
        def log(c):
            return (c[0] + 1, jnp.log(c[1]))  # <-- origin

        return lax.while_loop(lambda c: c[0] < 3, log, (0, x))[1]

    origin = find(jax.jit(jax.vmap(lane)), jnp.array([5e8, 1.0, 1e9])).origin
    assert (origin.context, origin.index) == ((("vmap", 3), ("while", 1)), (1,))


def test_lane_that_is_finished_keeps_the_inf_of_its_last_iteration(find):
    def lane(count, x):
        def body(c):
            square = c[1] * c[1]  # <-- origin
            return c[0] + 1, square - c[1]

        return lax.while_loop(lambda c: c[0] < count, body, (0, x))[1]

    # One more iteration would make inf - inf of it.
    f = jax.jit(jax.vmap(lane))
    assert f(jnp.array([1, 3]), jnp.array([1e20, 1.0])).tolist() == [float("inf"), 0.0]
    report = find(f, jnp.array([1, 3]), jnp.array([1e20, 1.0]))
    assert [(event.primitive, event.context[-1]) for event in report.chain[:-1]] == [("mul", ("while", 0)), ("sub", ("while", 0))]
    assert (report.chain[-1].primitive, report.chain[-1].value, report.chain[-1].index) == ("while", "inf", (0,))


def test_finished_lane_that_runs_on_is_silent():
    def lane(x):
        return lax.while_loop(lambda c: c > 0.5, lambda c: jnp.log(c), x)

    assert nd.locate(jax.jit(jax.vmap(lane)), jnp.array([1.5, 20.0, 1e9])) is None


def test_finished_lane_is_not_blamed_for_the_lane_that_failed(find):
    def lane(x, slack):
        # The first lane is at log(0) when it is done; only the second returns what it made of it.
        def log(c):
            return jnp.log(c)  # <-- origin

        return lax.while_loop(lambda c: c > slack, log, x)

    origin = find(jax.jit(jax.vmap(lane)), jnp.array([1.0, jnp.e]), jnp.array([0.5, -1.0])).origin
    assert origin.index == (1,)


def test_branch_of_a_vmapped_cond_that_was_taken_is_blamed(find, xs):
    def lane(v):
        def log(v):
            return jnp.log(v)  # <-- origin

        return lax.cond(v < 1.0, log, lambda v: v + 1.0, v)

    origin = find(jax.jit(jax.vmap(lane)), xs).origin
    assert (origin.primitive, origin.index) == ("log", (1,))


def test_branch_of_a_vmapped_cond_that_was_masked_is_silent(xs):
    def lane(v):
        return lax.cond(v > 0.0, lambda v: jnp.log(v), lambda v: v + 1.0, v)

    assert nd.locate(jax.jit(jax.vmap(lane)), xs) is None
    assert nd.locate(jax.jit(jax.vmap(jax.value_and_grad(lane))), xs) is None


def test_derivative_in_a_branch_of_a_vmapped_cond_is_on_its_line(find, xs):
    def lane(v):
        def root(v):
            return jnp.sqrt(v)  # <-- origin

        return lax.cond(v < 5, root, lambda v: v, v)

    origin = find(jax.jit(jax.vmap(jax.value_and_grad(lane))), xs).origin
    assert (origin.phase, origin.index) == ("backward", (1,))


def test_vmapped_gradient_of_a_scan_names_lane_and_iteration(find, xs):
    def loss(w, xs):
        return lax.scan(lambda c, x: (c + jnp.sqrt(x * w), None), 0.0, xs)[0]  # <-- origin

    f = jax.jit(jax.vmap(jax.value_and_grad(loss), (None, 0)))
    origin = find(f, jnp.float32(1), jnp.stack([xs + 1, xs])).origin
    assert (origin.phase, origin.context, origin.index) == ("backward", (("vmap", 2), ("scan", 1)), (1,))


def test_two_vmaps_give_two_axes(find):
    f = jax.jit(jax.vmap(jax.vmap(lambda v: jnp.log(v))))  # <-- origin
    origin = find(f, jnp.ones((2, 3)).at[1, 2].set(0)).origin
    assert (origin.context, origin.index) == ((("vmap", 2), ("vmap", 3)), (1, 2))


def test_batched_linear_algebra_names_the_row(find):
    def lane(v):
        return jnp.linalg.cholesky(v * jnp.eye(2))  # <-- origin

    origin = find(jax.jit(jax.vmap(lane)), jnp.array([1.0, 1.0, -1.0])).origin
    assert (origin.primitive, origin.index[0]) == ("cholesky", 2)
