"""Code that is not jitted: whenever its results are looked at, the fault found in them is the same."""

from __future__ import annotations

import copy
import importlib
import subprocess
import sys
import threading
import weakref
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nandetect.errors import NonFiniteError
from nandetect.run import eager, operation_log
from nandetect.run.everywhere import watching


class Told(NonFiniteError):
    """Stops the program."""


def loss(w, x):
    return jnp.sum(jax.nn.relu(x @ w)) + jnp.sqrt(jnp.sum(w * x[0]))  # <-- origin


def train(steps, bad):
    w = jnp.ones(3)
    for number in range(steps):
        w = w - 0.001 * jax.grad(loss)(w, jnp.ones(3) * (number != bad))
    return w


def found_in(steps, bad):
    """What is told of a training whose step `bad` has a fault."""
    told = []

    def tell(report):
        told.append(report)
        raise Told(report)

    with watching(tell) as everywhere:
        try:
            w = train(steps, bad)
            everywhere.flush()
            del w  # a program holds its result to its end
        except Told:
            pass
    return told


# A step is some thirty operations; some of them are handed from one trace to another, where nothing can run in between.
@pytest.mark.parametrize("steps", [2, 3, 9])
@pytest.mark.parametrize("length", range(36, 72))
def test_wherever_a_segment_ends_the_origin_is_found(monkeypatch, length, steps):
    monkeypatch.setattr(operation_log, "_OPERATIONS", length)
    monkeypatch.setattr(eager, "_LEAST", 1.0)
    (report,) = found_in(steps, bad=1)
    origin = report.origin
    assert (origin.primitive, origin.phase) == ("div", "backward")
    assert origin.source.code.endswith("# <-- origin")


@pytest.mark.parametrize("looked_at", [True, False])
def test_what_is_indexed_is_followed_back_until_it_is_known_to_be_finite(looked_at):
    told = []
    with watching(told.append) as everywhere:
        data = jnp.arange(1.0, 13.0).reshape(6, 2) * 1.5
        if looked_at:
            everywhere.flush()
        kept = jnp.log(data[np.array([0, 3])] - 1.5)  # <-- origin
        total = kept[0] - kept[0]
        everywhere.flush()
        del total
    (report,) = told
    assert (report.origin.primitive, report.origin.source.code.endswith("# <-- origin")) == ("log", True)


def test_a_nan_is_followed_through_what_only_moves_it():
    told = []
    with watching(told.append) as everywhere:
        logs = jnp.log(-jnp.ones(3))  # <-- origin
        first = jnp.copy(logs[1:])[0]
        everywhere.flush()
        del logs, first
    assert told[0].origin.source.code.endswith("# <-- origin")


def test_what_is_remembered_is_bounded_and_the_rest_is_let_go(monkeypatch):
    monkeypatch.setattr(operation_log, "_BYTES", 100_000)
    with watching(lambda report: None) as everywhere:
        given, made, remembered = [], [], []
        for number in range(50):
            x = np.full(1000, number, np.float32)
            y = jnp.asarray(x)
            given.append(weakref.ref(x))
            # What is still being computed is held by whoever computes it.
            made.append(weakref.ref((y * x).block_until_ready()))
            remembered.append(len(everywhere.eager.log.latest()))
        assert sum(one() is not None for one in given) <= 26 and not any(one() for one in made)
        assert 2 < max(remembered) < 100


def test_a_nan_that_lives_on_is_found_before_its_origin_is_forgotten():
    told = []
    with watching(told.append):
        w = jnp.ones(3)
        for number in range(3 * operation_log._OPERATIONS):
            w = w * (0.999 if told or number != 200 else jnp.log(-1.0))  # <-- origin
            if told:
                break
    assert told[0].origin.source.code.endswith("# <-- origin")


def test_a_nan_that_lives_on_through_a_compiled_function_is_found_before_its_origin_is_forgotten():
    told = []
    with watching(told.append):
        half = jax.jit(lambda x: x / 2)
        w = jnp.ones(3)
        for number in range(3 * operation_log._OPERATIONS):
            w = half(w) * (2.0 if told or number != 200 else jnp.log(-1.0))  # <-- origin
            if told:
                break
    assert told[0].origin.source.code.endswith("# <-- origin")


def test_a_nan_that_came_back_from_a_compiled_function_is_found_where_it_was_before():
    told = []
    with watching(told.append, check_every=100):
        half = jax.jit(lambda x: x / 2)
        logs = jnp.log(jnp.arange(3.0) - 1.0)  # <-- origin
        total = float(jnp.sum(half(logs) + logs))
    assert np.isnan(total)
    assert (told[0].origin.primitive, told[0].origin.source.code.endswith("# <-- origin")) == ("log", True)


def masked(x):
    logs = jnp.log(x)
    return jnp.where(x > 0, logs, 0.0)


def named(x):
    global KEPT
    KEPT = jnp.log(x)
    return jnp.nan_to_num(KEPT * 2.0)


# Whether a segment ends before the mask or after it.
@pytest.mark.parametrize("length", [5, 6, 7, 8, 2000])
@pytest.mark.parametrize("safe", [masked, named])
def test_a_nan_that_is_masked_is_none(monkeypatch, safe, length):
    monkeypatch.setattr(operation_log, "_OPERATIONS", length)
    monkeypatch.setattr(eager, "_LEAST", 1.0)
    told = []
    with watching(told.append) as everywhere:
        x, w = jnp.array([-1.0, 1.0, 2.0]), jnp.zeros(3)
        for _ in range(100):
            x = x + 0.001 * safe(x - 0.0 * w)
            w = w + safe(x)
        everywhere.flush()
        total = float(w.sum())
    assert told == [] and np.isfinite(total)


def test_an_operator_of_the_programs_own_type_is_its_own():
    @jax.tree_util.register_pytree_node_class
    class Quantity:
        def __init__(self, value, unit):
            self.value, self.unit = value, unit

        def tree_flatten(self):
            return (self.value,), self.unit

        @classmethod
        def tree_unflatten(cls, unit, children):
            (value,) = children
            return cls(value, unit)

        def __rmul__(self, other):
            return Quantity(other * self.value, self.unit)

    with watching(lambda report: None) as everywhere:
        product = jnp.ones(3) * Quantity(2.0, ["m"])  # a unit that has no hash
        everywhere.flush()
    assert product.unit == ["m"] and product.value.tolist() == [2.0, 2.0, 2.0]


@pytest.mark.parametrize(
    "again",
    [
        lambda x: jnp.logaddexp(x, 0.0),
        lambda x: jnp.add(x, 1.0),
        lambda x: jnp.add.reduce(x),
        lambda x: jnp.multiply.outer(x, x),
        lambda x: importlib.import_module("jax.scipy.special").logsumexp(x),
        lambda x: importlib.import_module("jax.scipy.linalg").solve_triangular(jnp.eye(3), x),
        lambda x: jnp.linalg.norm(x),
        lambda x: +x,
        lambda x: jax.device_put(x, jax.devices()[0]),
        lambda x: jax.device_put(x),
        lambda x: x[jnp.array([True, False, True])],
        lambda x: x[x != 1.0],
        lambda x: divmod(x, 2.0)[1],
    ],
)
def test_a_nan_is_followed_through_jax_s_own_functions(again):
    told = []
    with watching(told.append) as everywhere:
        roots = jnp.sqrt(jnp.arange(3.0) - 1.0)  # <-- origin
        result = again(roots) * 2.0
        del roots
        everywhere.flush()
        del result
    assert told[0].origin.source.code.endswith("# <-- origin")


def test_what_jax_is_imported_meanwhile_is_watched_and_left_as_it_was():
    code = """
import jax, jax.numpy as jnp
from nandetect.run.everywhere import watching
told = []
with watching(told.append) as everywhere:
    from jax.scipy.special import logsumexp
    import jax.scipy.linalg
    result = logsumexp(jnp.log(jnp.arange(3.0) - 1.0))
    everywhere.flush()
assert told[0].origin.primitive == "log", told
import jax._src.scipy.linalg as private, jax.scipy.special as public
for kept in (private._solve_triangular, public.logsumexp, public.expit, jnp.ufunc.__call__):
    assert "nandetect" not in type(kept).__module__ + getattr(kept, "__code__", kept.__call__).__repr__(), kept
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_nan_is_followed_through_a_function_with_a_derivative_of_its_own():
    told = []
    with watching(told.append) as everywhere:
        loss, slope = jax.value_and_grad(lambda x: jax.nn.relu(jnp.sqrt(x)))(-1.0)  # <-- origin
        everywhere.flush()
        del loss, slope
    assert (told[0].origin.primitive, told[0].origin.source.code.endswith("# <-- origin")) == ("sqrt", True)
    relu: Any = jax.nn.relu
    assert "nandetect" not in type(relu.fun).__module__ + repr(getattr(relu.fun, "__code__", ""))


def test_a_loss_beside_a_gradient_is_of_the_forward_pass():
    told = []
    with watching(told.append) as everywhere:
        value, slope = jax.value_and_grad(lambda w: jnp.mean(jnp.arctanh(w)))(jnp.full(4, 2.0))  # <-- origin
        print(float(value))
        everywhere.flush()
        del slope
    origin = told[0].origin
    assert (origin.primitive, origin.phase, origin.role, origin.derivative_of) == ("atanh", "forward", None, None)


def trained(beside, rate):
    slope = jax.grad(lambda w: jnp.sum(jnp.sqrt(w)))(jnp.full(3, 4.0))
    made = beside()
    return made, 1.0 - rate() * slope


def root():
    return jnp.sqrt(jnp.arange(3.0) - 2.0)


@pytest.mark.parametrize(
    ("beside", "rate", "phase"),
    [(root, lambda: jnp.log(jnp.arange(3.0) - 2.0), "forward"), (lambda: 0.0, root, "update")],
    ids=["beside", "schedule"],
)
def test_what_code_that_is_not_jitted_computes_beside_a_gradient_is_an_update_only_for_one(beside, rate, phase):
    told = []
    with watching(told.append) as everywhere:
        kept = trained(beside, rate)
        everywhere.flush()
        del kept
    made = [told[0].origin, *told[0].others, *told[0].benign]
    assert [event.phase for event in made if event.primitive == "sqrt"] == [phase]


@jax.custom_vjp
def ruled(x):
    return 2 * x


def ruled_backward(x, out):
    return (out / x,)


ruled.defvjp(lambda x: (ruled(x), x), ruled_backward)


def test_what_a_derivative_rule_of_the_users_own_computes_is_on_the_line_of_the_rule():
    told = []
    with watching(told.append) as everywhere:
        slope = jax.grad(lambda x: jnp.sum(ruled(x)))(jnp.zeros(3))
        slope = slope - slope
        everywhere.flush()
        del slope
    origin = told[0].origin
    assert (origin.primitive, origin.phase, origin.derivative_of) == ("div", "backward", None)
    assert (origin.source.file, origin.source.line) == (__file__, ruled_backward.__code__.co_firstlineno + 1)


def test_the_coefficient_of_a_derivative_that_stops_makes_no_forward_value_of_what_only_the_gradient_meets():
    def loss(x):
        guess = jax.lax.stop_gradient(jnp.sqrt(x - 5000.0))
        masked = jnp.where(x < 8.0, jnp.exp(x), 0.0)
        return jnp.sum(masked + jnp.where(jnp.isfinite(guess), guess, x))

    told = []
    with watching(told.append) as everywhere:
        slope = jax.grad(loss)(jnp.full(3, 1000.0))
        everywhere.flush()
        del slope
    assert (told[0].origin.primitive, told[0].origin.phase) == ("exp", "backward")


def test_the_text_that_jax_takes_of_a_function_that_holds_an_inf_is_not_read_by_the_program():
    def scaled(x):
        return jax.lax.scan(lambda carry, row: (carry, row / jax.lax.stop_gradient(jnp.exp(1000.0 * row))), 0.0, x)[1]

    told = []
    with watching(told.append) as everywhere:
        slopes = jax.jacrev(scaled)(jnp.ones(3))
        everywhere.flush()
    assert not slopes.any()
    assert not told


def test_what_a_function_reads_while_it_is_differentiated_is_read_by_the_program():
    def loss(x):
        return x * float(jnp.exp(jnp.float32(1000.0)))

    told = []
    with watching(told.append) as everywhere:
        jax.grad(loss)(1.0)
        everywhere.flush()
    assert told[0].origin.primitive == "exp"


def test_a_rule_that_a_loop_calls_in_code_that_is_not_jitted_keeps_its_line():
    @jax.custom_vjp
    def own(x):
        return 2 * x

    def forward(x):
        return jnp.log(x), None

    own.defvjp(forward, lambda _, out: (out,))

    def loss(x):
        return jax.lax.scan(lambda carry, _: (own(carry), None), x, None, length=2)[0]

    told = []
    with watching(told.append) as everywhere:
        slope = jax.value_and_grad(loss)(-1.0)
        everywhere.flush()
        del slope
    origin = told[0].origin
    assert (origin.primitive, origin.phase, origin.source.line) == ("log", "forward", forward.__code__.co_firstlineno + 1)


def test_a_rule_in_a_jitted_function_that_is_differentiated_without_jit_keeps_its_line():
    @jax.custom_jvp
    def own(x):
        return 2 * x

    @own.defjvp
    def tangent(primals, tangents):
        slope = jnp.log(primals[0])
        return own(primals[0]), slope * tangents[0]

    told = []
    with watching(told.append) as everywhere:
        slope = jax.grad(everywhere.functions.guarded(jax.jit(lambda x: own(x))))(-1.0)
        everywhere.flush()
        del slope
    origin = told[0].origin
    assert (origin.primitive, origin.phase, origin.source.line) == ("log", "backward", tangent.__code__.co_firstlineno + 2)


def test_what_waits_for_the_device_is_waited_for_before_where_it_came_from_is_forgotten(monkeypatch):
    monkeypatch.setattr(operation_log, "_OPERATIONS", 100)
    told = []
    with watching(told.append):
        w, a = jnp.ones((200, 200)), jnp.eye(200)
        for number in range(600):
            w = (w @ a) * (1.0 if told or number != 120 else jnp.log(-1.0))  # <-- origin
    assert told[0].origin.source.code.endswith("# <-- origin")


def test_what_was_held_long_before_is_there_when_operations_are_run_again(monkeypatch):
    monkeypatch.setattr(operation_log, "_OPERATIONS", 6)
    monkeypatch.setattr(eager, "_LEAST", 1.0)
    told = []
    with watching(told.append):
        early, x, w = jnp.zeros(3) * 1.0 + 1.0, jnp.array([-1.0, 1.0, 2.0]), jnp.ones(3)
        for number in range(60):
            masked = jnp.nan_to_num(jnp.log(x * early)) * early
            w = w * (jnp.sqrt(-early) if number == 20 else 1.0) * early  # <-- origin
            if told:
                break
            del masked
    assert (told[0].origin.primitive, told[0].origin.source.code.endswith("# <-- origin")) == ("sqrt", True)


def test_nan_that_is_data_is_no_fault_where_the_operations_cannot_be_run_again():
    told = []
    with watching(told.append) as everywhere:
        data = jnp.asarray(np.array([np.nan, 1.0, 2.0], np.float32)) * 2.0
        chosen = jnp.unique(data)  # its size is known when it has run, and not before
        total = float(chosen.sum())
        everywhere.flush()
    assert np.isnan(total) and told == []


def test_a_reference_that_the_program_writes_to_is_left_as_the_program_left_it():
    ref_of = getattr(jax, "new_ref", None)
    if ref_of is None:
        pytest.skip("this JAX has no jax.new_ref")
    with watching(lambda report: None) as everywhere:
        ref = ref_of(jnp.zeros(3))
        old = ref[...]
        ref[...] = old + 1.0
        bad = jnp.log(old - 1.0)
        everywhere.flush()
        del bad
    assert ref[...].tolist() == [1.0, 1.0, 1.0]


def test_two_threads_may_run_operations(monkeypatch):
    monkeypatch.setattr(operation_log, "_OPERATIONS", 50)
    told, failed = [], []

    def work():
        try:
            w = jnp.ones(3)
            for _ in range(2000):
                w = w * 0.999 + 0.001
        except BaseException as error:
            failed.append(error)

    with watching(told.append) as everywhere:
        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        everywhere.flush()
    assert (told, failed) == ([], [])


def test_a_function_of_jax_s_in_a_class_or_a_copy_is_what_it_was():
    class Model:
        activation = jax.nn.relu

    with watching(lambda report: None):

        class Watched:
            activation = jax.nn.relu
            copied = copy.deepcopy(jax.nn.relu)

        watched: Any = Watched()
        model: Any = Model()
        assert watched.activation(jnp.ones(3)).tolist() == model.activation(jnp.ones(3)).tolist() == [1.0, 1.0, 1.0]
        assert watched.copied(-1.0) == 0.0


def sampled():
    """A scan that gives the end of each trajectory beside the state, as a sampler does: it has diverged where the state was kept."""

    def step(state, _):
        end = jnp.log(state - 2.0)
        state = jnp.where(jnp.isfinite(end), end, state)
        return state, (state, end)

    return jax.lax.scan(step, jnp.ones(3), length=4)


def test_what_a_scan_returns_beside_what_is_used_is_a_note():
    told = []
    with watching(told.append) as everywhere:
        kept = sampled()
        jnp.mean(kept[1][0])
        everywhere.flush()
        notes = everywhere.eager.findings
    line = sampled.__code__.co_firstlineno + 8
    assert told == []
    assert [(note.severity, note.message) for note in notes] == [
        ("note", f"a result of `scan` at test_eager.py:{line} held nan; nothing that was read or computed with did")
    ]


@pytest.mark.parametrize("read", [lambda state, ends: print(ends), lambda state, ends: None, lambda state, ends: ends + state])
def test_what_a_scan_returns_is_a_fault_where_it_is_used_or_nothing_of_it_is(read):
    told = []
    with watching(told.append) as everywhere:
        _, (state, ends) = kept = sampled()
        kept = kept, read(state, ends)
        everywhere.flush()
    assert {report.origin.primitive for report in told} == {"log"}
    del kept


def test_what_a_scan_carries_is_its_state_whatever_else_of_it_is_used():
    told = []
    with watching(told.append) as everywhere:
        state, before = jax.lax.scan(lambda state, _: (jnp.log(state - 2.0), state), jnp.ones(3), length=1)
        jnp.mean(before)
        everywhere.flush()
    assert [report.origin.primitive for report in told] == ["log"]
    del state


def test_a_metric_that_a_scan_returns_is_no_record_of_what_was_tried():
    told = []
    with watching(told.append) as everywhere:
        _, (state, losses) = jax.lax.scan(lambda w, _: (w, (w, jnp.log(w - 2.0).sum())), jnp.ones(3), length=4)
        jnp.mean(state)
        everywhere.flush()
    assert [report.origin.primitive for report in told] == ["log"]
    del losses


def test_of_what_arrived_no_report_is_made(monkeypatch):
    def fails(*args):
        raise AssertionError

    monkeypatch.setattr("nandetect.locating.reporting._beside", fails)
    monkeypatch.setattr("nandetect.locating.reporting._cause", fails)
    told = []
    with watching(told.append) as everywhere:
        data = jnp.asarray(np.array([np.nan, 1.0, np.inf], np.float32))
        print(data * 2.0, jnp.exp(data)[2])
        everywhere.flush()
    assert (told, everywhere.unseen.phrases()) == ([], [])
