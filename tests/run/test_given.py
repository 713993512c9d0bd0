"""What a compiled function was given that is not finite was made elsewhere, and that is where it is told, though nobody holds it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nandetect.run.everywhere import watching


def told_of(program):
    told = []
    with watching(told.append) as everywhere:
        program()
        everywhere.flush()
    return told


def place(report):
    return report.origin.primitive, report.origin.value, report.origin.source.code.endswith("# <-- origin")


def of_an_overflow(t):
    return jnp.exp(jnp.ones(4) + 2000.0 * t)  # <-- origin


def of_a_log(t):
    return jnp.log(0.5 - t * jnp.ones(4))  # <-- origin


def of_a_division(t):
    return -1.0 / (1.0 - t * jnp.ones(4))  # <-- origin


def train(make):
    centred = jax.jit(lambda y: y - jnp.mean(y))
    y = jnp.zeros(4)
    for number in range(5):
        y = make(jnp.float32(number == 3))
        y = 0.1 * centred(y)
    return y


@pytest.mark.parametrize(("make", "born"), [(of_an_overflow, ("exp", "inf")), (of_a_division, ("div", "-inf")), (of_a_log, ("log", "nan"))])
def test_what_code_that_is_not_jitted_made_is_told_there(make, born):
    (report, *_) = told_of(lambda: train(make))
    assert place(report) == (*born, True)


def test_of_several_arguments_the_one_that_broke_the_result_is_followed():
    def program():
        step = jax.jit(lambda unused, y, best: (jnp.sum(y - jnp.mean(y)), jnp.minimum(best, 1.0), jnp.where(unused > 0, 1.0, 0.0)))
        for number in range(4):
            t = jnp.float32(number == 2)
            step(jnp.exp(jnp.ones(3) + 1000.0 * t), of_an_overflow(t), jnp.full((), jnp.inf))

    (report, *_) = told_of(program)
    assert place(report) == ("exp", "inf", True)


def test_what_a_call_that_takes_its_state_was_given_beside_it_is_told_there():
    def program():
        step = jax.jit(lambda w, y: w + y - jnp.mean(y), donate_argnums=0)
        step(jnp.ones(4), of_an_overflow(jnp.float32(1.0)))

    (report, *_) = told_of(program)
    assert place(report) == ("exp", "inf", True)


def test_an_inf_that_a_call_before_returned_is_told_there():
    def program():
        spread = jax.jit(lambda w, t: (w * 0.9, jnp.exp(w + 1000.0 * t)))  # <-- origin
        centred = jax.jit(lambda w, y: w + y - jnp.mean(y))
        w = jnp.ones(3)
        for number in range(5):
            w, y = spread(w, jnp.float32(number == 3))
            w = centred(w, y)

    (report, *_) = told_of(program)
    assert place(report) == ("exp", "inf", True) and report.step == 3


def spread_and_best(w, t, best):
    return w * 0.9, jnp.exp(w + 1000.0 * t), best  # <-- origin


@pytest.mark.parametrize("size", [3, 500])
def test_an_inf_that_a_call_returned_and_code_that_is_not_jitted_made_nan_of_is_told_there(size):
    def program():
        spread, best = jax.jit(spread_and_best), jnp.full(2, jnp.inf)
        w = jnp.ones(size)
        for number in range(5):
            w, y, best = spread(w, jnp.float32(number == 3), best)
            float(jnp.sum(y - jnp.mean(y)))

    (report, *_) = told_of(program)
    assert place(report) == ("exp", "inf", True) and report.step == 3


def test_state_that_a_call_returned_and_code_that_is_not_jitted_made_nan_of_is_its_cause():
    def program():
        step, best = jax.jit(spread_and_best), jnp.full(8, jnp.inf)
        w = jnp.ones(100)
        for number in range(5):
            w, _, kept = step(w, 0.0, best)
            str(kept - best if number > 2 else w)  # <-- origin

    (report, *_) = told_of(program)
    assert place(report) == ("sub", "nan", True) and report.reproduced


STATE = {
    "written": lambda: jnp.full(3, jnp.inf),
    "data": lambda: jnp.asarray(np.full(3, np.inf, np.float32)) * 2.0,
    "numpy's": lambda: np.full(3, np.inf, np.float32),
}


@pytest.mark.parametrize("name", STATE)
def test_an_inf_that_nobody_made_is_the_cause_of_what_a_call_made_of_it(name):
    def program():
        centred = jax.jit(lambda y: y - jnp.mean(y))  # <-- origin
        for number in range(4):
            centred(jnp.ones(3) if number < 2 else STATE[name]())

    (report, *_) = told_of(program)
    assert place(report) == ("sub", "nan", True) and report.arrived and report.step == 2


def test_what_a_call_raised_about_is_told_where_code_that_is_not_jitted_made_it():
    def checked(y):
        if not np.isfinite(y).all():
            raise ValueError("not finite")
        return y

    step = jax.jit(lambda y: jax.pure_callback(checked, jax.ShapeDtypeStruct((4,), jnp.float32), y - jnp.mean(y)))
    told = []
    with watching(told.append) as everywhere:
        guarded = everywhere.functions.guarded(step)
        with pytest.raises(Exception, match="not finite") as raised:
            for number in range(5):
                guarded(of_an_overflow(jnp.float32(number == 3))).block_until_ready()
        everywhere.died(raised.value)
    assert place(told[0]) == ("exp", "inf", True)


@jax.jit
def begun():
    return {"mean": jnp.ones(2), "best": jnp.full(2, jnp.nan), "value": jnp.inf}


@jax.jit
def asked(state):
    return state["mean"] * 2.0, state


@jax.jit
def replaced(state, found):
    better = jnp.sum(found) < state["value"]
    return {"mean": 0.5 * found, "best": jnp.where(better, found, state["best"]), "value": jnp.where(better, jnp.sum(found), jnp.inf)}


def test_a_nan_that_stands_where_no_result_is_yet_is_state_also_to_another_function():
    told = []
    with watching(told.append) as everywhere:
        jits = [everywhere.functions.guarded(function) for function in (begun, asked, replaced)]
        state = jits[0]()
        for _ in range(2):
            found, state = jits[1](state)
            state = jits[2](state, found)
        assert np.isfinite(np.asarray(state["best"])).all()
        everywhere.flush()
    assert told == []


def test_a_nan_that_stood_where_no_result_is_yet_is_a_fault_where_it_is_computed_with():
    told = []
    with watching(told.append) as everywhere:
        state = everywhere.functions.guarded(begun)()
        result = everywhere.functions.guarded(jax.jit(lambda state: state["best"] * 2.0))(state)
        everywhere.flush()
    assert {report.origin.argument for report in told} == {"state['best']"}
    del result


def test_a_nan_that_stands_where_no_result_is_yet_is_said_where_it_leaves_the_program():
    told = []
    with watching(told.append) as everywhere:
        print(everywhere.functions.guarded(begun)()["best"])
        everywhere.flush()
    assert (told, everywhere.unseen.phrases()) == ([], ["1 array that left the program with NaN written where no result is yet"])


@pytest.mark.parametrize("read", [lambda best: best[1:], lambda best: best[1:] * 2.0, lambda best: best[0]])
def test_a_part_of_it_that_leaves_the_program_is_said_too(read):
    told = []
    with watching(told.append) as everywhere:
        print(read(everywhere.functions.guarded(begun)()["best"]))
        everywhere.flush()
    assert (told, everywhere.unseen.phrases()) == ([], ["1 array that left the program with NaN written where no result is yet"])


def test_of_a_nan_that_stands_where_no_result_is_yet_nothing_is_said_where_the_program_reads_other_numbers():
    told = []
    with watching(told.append) as everywhere:
        state = everywhere.functions.guarded(begun)()
        print(state["mean"], state["mean"] * 2.0)
        everywhere.flush()
    assert (told, everywhere.unseen.phrases()) == ([], [])
    del state
