"""A step that is compiled again and again: how often, as Python's own side effects count it, and what changed."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import nandetect as nd
from nandetect.run import everywhere


class Traced:
    """A step that counts its traces, by a side effect that only tracing has."""

    def __init__(self, **options):
        self.count = 0
        self.step = nd.guard(jax.jit(self._step, **options))

    def _step(self, w, inputs, lr, mode="a"):
        self.count += 1
        return w - lr * (0.0 if mode is None else 1.0) * jnp.mean(inputs)

    def told(self):
        """What the one finding says changed, and the number of compilations that it gives."""
        (finding,) = self.step.findings()
        assert finding.rule == "recompiling"
        assert finding.measured == self.count
        return finding.message.split("% of the time. ")[1]


def test_a_batch_of_another_shape_each_time():
    traced, w = Traced(), jnp.ones(3)
    for number in range(20):
        w = traced.step(w, np.ones((40 + number % 7, 64), np.float32), 0.1)
    assert traced.told() == "`inputs` changed its shape 6 times: float32[40,64] -> float32[41,64]"
    (finding,) = traced.step.findings()
    assert (finding.measured, finding.expected, finding.layer) == (7, 1, "inputs")
    assert "`_step` was compiled 7 times in 20 calls at " in finding.message
    assert "test_speed_recompiling.py:" in finding.message


def test_several_changes_are_told_the_commonest_first():
    traced, w = Traced(), jnp.ones(3)
    for size in range(4, 9):
        w = traced.step(w, jnp.ones(size), 0.1)
    w = traced.step(w, jnp.ones(4), jnp.float32(0.1))
    w = traced.step(w, jnp.ones(4, int), 0.1)
    assert traced.told() == (
        "`inputs` changed its shape 4 times: float32[4] -> float32[5]; "
        "`lr` changed its weak type once: float32[] of weak type -> float32[]; "
        "`inputs` changed its dtype once: float32[4] -> int32[4]"
    )


def test_a_static_value_that_changes():
    traced, w = Traced(static_argnames="mode"), jnp.ones(3)
    for mode in "abcdef":
        w = traced.step(w, jnp.ones(4), 0.1, mode=mode)
    assert traced.told() == "`mode` changed its static value 5 times: 'a' -> 'b'"


def test_a_number_that_is_static():
    traced, w = Traced(static_argnums=2), jnp.ones(3)
    for number in range(6):
        w = traced.step(w, jnp.ones(4), 0.1 + number)
    assert traced.told() == "`lr` changed its static value 5 times: 0.1 -> 1.1"


def test_a_new_function_is_handed_over_each_time():
    step = nd.guard(jax.jit(lambda x, loss: loss(x), static_argnames="loss"))
    for _ in range(6):
        step(jnp.ones(3), loss=lambda x: x * 2)
    (finding,) = step.findings()
    assert (finding.measured, finding.layer) == (6, "loss")
    assert finding.help == "hand over the same function each time: make `loss` once, before the loop"


def test_a_lambda_that_is_jitted_in_the_loop():
    with everywhere.watching(lambda report: None) as watched:
        x = jnp.ones(3)
        for _ in range(8):
            x = jax.jit(lambda x: x * 0.5)(x)
        (finding,) = watched.functions.findings()
    assert (finding.rule, finding.measured, finding.cause) == ("recompiling", 8, "a new function object each time")
    assert "compiled 8 times in 8 calls" in finding.message


def test_one_function_that_is_jitted_again_compiles_once_and_is_not_told():
    def halve(x):
        return x * 0.5

    with everywhere.watching(lambda report: None) as watched:
        x = jnp.ones(3)
        for _ in range(8):
            x = jax.jit(halve)(x)
        assert watched.functions.findings() == []


def test_a_function_and_its_derivative_are_two():
    def loss(w):
        return jnp.sum(w**2)

    with everywhere.watching(lambda report: None) as watched:
        for size in range(3):
            w = jnp.ones((size + 1, 64))
            jax.jit(loss)(w)
            jax.jit(jax.grad(loss))(w)
        assert sorted((of.name, len(of.all)) for of in watched.functions._compilations.values()) == [("loss", 3), ("loss", 3)]


def test_another_shape_for_the_last_batch_and_numpy_beside_jax_are_no_matter():
    traced, w = Traced(), jnp.ones(3)
    for _ in range(5):
        for size in (40, 40, 13):
            w = traced.step(w, np.ones(size, np.float32), 0.1)
            w = traced.step(w, jnp.ones(size), 0.1)
    assert (traced.count, traced.step.findings()) == (2, [])


def test_a_numpy_array_compiles_nothing_anew_though_jax_keeps_it_apart():
    step = jax.jit(lambda x: x * 2)
    guarded = nd.guard(step)
    for _ in range(3):
        guarded(jnp.ones(3))
        guarded(np.ones(3, np.float32))
    compiled: Any = step
    assert compiled._cache_size() == 2
    assert guarded.findings() == []


def test_what_a_step_is_called_in_does_not_count_as_its_own():
    """Within another's trace it is compiled as part of that."""
    inner = nd.guard(jax.jit(lambda x: x * 2))
    outer = jax.jit(lambda x: inner(x) + 1)
    for size in range(1, 9):
        outer(jnp.ones(size))
    assert inner.findings() == []


def test_what_a_step_computes_at_once_while_it_is_traced_does_not_count_as_its_own():
    @nd.guard
    @jax.jit
    def step(w):
        with jax.ensure_compile_time_eval():
            tables = [jnp.sum(jnp.cumsum(jnp.arange(100.0 + size))) for size in range(8)]
        return w + sum(tables)

    w = jnp.ones(3)
    for _ in range(20):
        w = step(w)
    assert step.findings() == []


class Summed:
    """A node that computes when it is put together."""

    def __init__(self, x):
        self.x = x


def put_together(_, children):
    (x,) = children
    return Summed(jnp.cumsum(jnp.tan(x)) if isinstance(x, jax.Array) else x)


jax.tree_util.register_pytree_node(Summed, lambda node: ((node.x,), None), put_together)


def test_what_a_node_computes_when_it_is_put_together_does_not_count_as_the_step_s_own():
    step = nd.guard(jax.jit(lambda x: Summed(x)))
    for _ in range(20):
        step(jnp.ones(71))
    assert step.findings() == []


def test_what_a_library_s_jit_keeps_static_in_the_structure_of_its_arguments_is_told():
    step = nd.guard(jax.jit(lambda function, x: function(x)))
    for number in range(8):
        step(jax.tree_util.Partial(functools.partial(jnp.multiply, number)), jnp.ones(3))
    (finding,) = step.findings()
    assert "a static field of the arguments, or how they are put together, changed 7 times" in finding.message


def test_an_argument_that_cannot_be_read_stops_nothing():
    class Odd:
        def __hash__(self):
            return 1

        def __eq__(self, other):
            return self is other

        def __repr__(self):
            raise RuntimeError("not now")

    step = nd.guard(jax.jit(lambda x, odd: x * 2, static_argnums=1))
    for _ in range(6):
        step(jnp.ones(3), Odd())
    assert [finding.rule for finding in step.findings()] == ["recompiling"]


def test_the_filtered_jit_of_equinox(equinox):
    step = nd.guard(equinox.filter_jit(lambda x, rate: x * rate))
    for number in range(6):
        step(jnp.ones(3), number + 0.5)
    (finding,) = step.findings()
    assert (finding.measured, finding.layer) == (6, "rate")
    assert "`rate` changed its static value 5 times: 0.5 -> 1.5" in finding.message


def test_calls_that_a_loop_makes():
    step = jax.jit(lambda w, x: w - 0.1 * jnp.mean(x))
    w, calls = jnp.ones(3), [(jnp.ones(3), jnp.ones(size)) for size in (5, 6, 7)]
    (finding,) = nd.audit_speed(step, w, jnp.ones(4), also=calls, seconds=0.05)
    assert (finding.rule, finding.measured, finding.layer) == ("recompiling", 4, "x")
    assert nd.audit_speed(step, w, jnp.ones(4), also=[(w, jnp.ones(4)), (w, jnp.ones(3))], seconds=0.05) == []


@functools.partial(jax.jit, donate_argnums=0)
def donating(w, x):
    return w - 0.1 * jnp.mean(x)


def test_a_step_that_donates():
    step, w = nd.guard(donating), jnp.ones(3)
    for size in range(3, 10):
        w = step(w, jnp.ones(size))
    (finding,) = step.findings()
    assert (finding.measured, finding.layer) == (7, "x")
