"""The program as compiled decides: what only the compiler made is found there, what the compiler removed is not reported."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.experimental
import jax.numpy as jnp
import numpy as np
import pytest

import nandetect as nd
from nandetect.locating.diagnose import diagnose
from nandetect.program.trace import trace


def fused_variance(x):
    mean = jnp.mean(x)
    return jnp.sqrt(jnp.mean(x * x) - mean * mean)


def disagreeing():
    """Numbers whose fused variance is negative only when compiled, and a sound square root otherwise; None where none is found."""
    for seed in range(200):
        x = jnp.full(3, np.random.default_rng(seed).uniform(1, 1e3), jnp.float32)
        with jax.disable_jit():
            eager = fused_variance(x)
        if np.isfinite(eager) and not np.isfinite(jax.jit(fused_variance)(x)):
            return x
    return None


def test_fault_that_only_the_compiled_program_has_is_found_and_said_to_be_so(find):
    x = disagreeing()
    if x is None:
        pytest.skip("this compiler does not fuse the variance into a negative number")

    def f(x):
        mean = jnp.mean(x)
        return jnp.sqrt(jnp.mean(x * x) - mean * mean)  # <-- origin

    report = find(jax.jit(f), x)
    assert report.compiled_only
    assert (report.origin.primitive, report.origin.reason) == ("sqrt", "square root of a negative number")
    assert report.origin.operands[0].value < 0


def test_fault_of_both_programs_is_not_laid_on_the_compiler(find, xs):
    f = jax.jit(lambda x: jnp.log(x))  # <-- origin
    assert not find(f, xs).compiled_only


def test_product_with_a_mask_that_the_compiler_made_a_select_is_silent(xs):
    assert nd.locate(jax.jit(lambda x: jnp.log(x) * (x > 0)), xs) is None


def test_product_with_a_mask_some_equations_later_is_not_blamed_for_the_fault_beside_it(find):
    def f(x, y):
        kept = (3.0 - 2.0 * jnp.log(x)) / 7.0 * (x > 0)
        return jnp.sqrt(y) - 2.0 * kept  # <-- origin

    x = jnp.array([1.0, 0.0])
    if not np.isfinite(jax.jit(f)(x, jnp.ones(2))).all():
        pytest.skip("this compiler does not make a select of a product with a mask")
    assert find(jax.jit(f), x, jnp.array([-1.0, 1.0])).origin.primitive == "sqrt"


def test_replay_computes_what_the_compiled_step_computed():
    f = jax.jit(lambda x: jnp.exp(jnp.tanh(x) @ jnp.cos(x)) / jnp.sum(jnp.sin(x) * 0))
    report = nd.locate(f, jnp.linspace(0, 1, 7))
    assert report is not None
    x = np.linspace(0, 1, 7)
    assert report.origin.operands[0].value == pytest.approx(np.exp(np.tanh(x) @ np.cos(x)), rel=1e-5)


@pytest.mark.filterwarnings("ignore:divide by zero encountered in log:RuntimeWarning")
def test_what_cannot_be_looked_into_is_named(find, xs):
    @jax.jit
    def f(x):
        y = jax.pure_callback(lambda a: np.log(np.asarray(a)), jax.ShapeDtypeStruct((3,), jnp.float32), x)  # <-- origin
        return y + 1

    report = find(f, xs)
    assert (report.origin.primitive, report.unseen) == ("pure_callback", ("pure_callback",))


def effects():
    """Steps with one effect per call, or three, with the list that counts them."""

    def once(count, x):
        jax.debug.callback(lambda v: count.append(v), x)
        return jnp.log(x)

    def ordered(count, x):
        y = jax.experimental.io_callback(
            lambda v: (count.append(v), np.asarray(v))[1], jax.ShapeDtypeStruct((3,), jnp.float32), x, ordered=True
        )
        return jnp.log(y)

    def debug_in_scan(count, x):
        def body(carry, v):
            jax.debug.callback(lambda v: count.append(v), v)
            return carry + jnp.log(v), None

        return jax.lax.scan(body, 0.0, x)[0]

    def ordered_in_scan(count, x):
        def body(carry, v):
            jax.experimental.io_callback(lambda v: count.append(v), None, v, ordered=True)
            return carry + jnp.log(v), None

        return jax.lax.scan(body, 0.0, x)[0]

    def scan_beside_the_fault(count, x):
        def body(carry, v):
            jax.experimental.io_callback(lambda v: count.append(v), None, v, ordered=True)
            return carry + v, None

        return jax.lax.scan(body, 0.0, x)[0] + jnp.log(x)

    def debug_in_while(count, x):
        def body(state):
            jax.debug.callback(lambda v: count.append(v), state[0])
            return state[0] + 1, jnp.log(state[1])

        return jax.lax.while_loop(lambda state: state[0] < 3, body, (0, x))[1]

    return {"1 debug": once, "1 ordered": ordered} | {
        f"3 {f.__name__}": f for f in (debug_in_scan, ordered_in_scan, scan_beside_the_fault, debug_in_while)
    }


@pytest.mark.parametrize("name", effects())
def test_effects_happen_once(name, xs):
    count: list[object] = []
    step = effects()[name]
    report = nd.locate(jax.jit(lambda x: step(count, x)), xs)
    jax.effects_barrier()
    assert report is not None and report.origin.primitive == "log"
    assert len(count) == int(name[0])


def test_effects_of_a_step_that_is_not_jitted_happen_once(xs):
    count: list[object] = []

    def f(x):
        y = jax.experimental.io_callback(lambda v: (count.append(v), np.asarray(v))[1], jax.ShapeDtypeStruct((3,), jnp.float32), x)
        return jnp.log(y)

    assert nd.locate(f, xs) is not None
    jax.effects_barrier()
    assert len(count) == 1


@pytest.mark.parametrize("kind", ["scan", "while"])
def test_an_iteration_is_replayed_with_what_its_callbacks_returned_then(find, kind):
    drawn = iter([1.0, 2.0, 3.0, 4.0, 0.0, 5.0])

    def repeated(body, x, length):
        if kind == "scan":
            return jax.lax.scan(lambda x, _: (body(x), None), x, None, length=length)[0]
        return jax.lax.while_loop(lambda state: state[0] < length, lambda state: (state[0] + 1, body(state[1])), (0, x))[1]

    def add(x):
        value = jax.experimental.io_callback(lambda: np.float32(next(drawn)), jax.ShapeDtypeStruct((), jnp.float32), ordered=True)
        return x + jnp.log(value)  # <-- origin

    origin = find(jax.jit(lambda x: repeated(lambda x: repeated(add, x, 3), x, 2)), jnp.float32(0)).origin
    # The zero is drawn second in the second round of three.
    assert (origin.context, origin.operands[0].value) == (((kind, 1), (kind, 1)), 0.0)


def test_debug_print_prints_once(capfd, xs):
    def f(x):
        jax.debug.print("seen {}", x[0])
        return jax.lax.scan(lambda c, y: (c + jnp.log(y), jax.debug.print("row {}", y)), 0.0, x)[0]

    report = nd.locate(jax.jit(f), xs)
    jax.effects_barrier()
    assert report is not None and report.origin.context == (("scan", 1),)
    assert sorted(capfd.readouterr().out.splitlines()) == ["row 0.0", "row 1.0", "row 2.0", "seen 1.0"]


def test_what_no_run_shows_is_told_as_the_step_returned_it():
    program = trace(jax.jit(lambda x: x / 2.0), (jnp.ones(3),), {})
    report = diagnose(replace(program, call=lambda: [jnp.array([1.0, jnp.nan, jnp.nan])]))
    assert report is not None
    origin = report.origin
    assert (origin.primitive, origin.value, origin.index, origin.count, report.reproduced) == ("div", "nan", (1,), 2, False)
    assert "finite" not in str(report)
