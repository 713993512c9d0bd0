"""Whatever leaves a program as numbers is looked at: printed, saved, handed to numpy; and looking at it is no reading of its own."""

from __future__ import annotations

import copy
import io
import pickle
import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nandetect.run.everywhere import watching


def found(program):
    """What is told of a program that holds nothing when it is over."""
    told = []
    with watching(told.append) as everywhere:
        program()
        everywhere.flush()
    assert not everywhere.left_out()
    return told


def logs():
    return jnp.log(jnp.array([-1.0, 2.0]))  # <-- origin


def no_int(x):
    with pytest.raises(ValueError, match="cannot convert float NaN to integer"):
        int(x)


WAYS = {
    "str": lambda x: str(x),
    "repr": lambda x: repr(x),
    "format": lambda x: f"{x}",
    "format of one": lambda x: f"{x[0]:.3f}",
    "int": lambda x: no_int(x[0]),
    "complex": lambda x: complex(x[0]),
    "round": lambda x: float(round(x[0], 2)),
    "tolist": lambda x: x.tolist(),
    "item": lambda x: x[0].item(),
    "asarray": lambda x: np.asarray(x),
    "array": lambda x: np.array(x),
    "a ufunc of numpy's": lambda x: np.exp(x),
    "a reduction of numpy's": lambda x: float(np.mean(x)),
    "save": lambda x: np.save(io.BytesIO(), x),
    "savez": lambda x: np.savez(io.BytesIO(), x=x),
    "device_get": lambda x: jax.device_get({"x": x}),
    "a tree of arrays": lambda x: jax.tree.map(np.asarray, [x]),
    "bfloat16": lambda x: np.asarray(x.astype(jnp.bfloat16)),
    "pickle": lambda x: pickle.dumps(x),
    "dlpack": lambda x: np.from_dlpack(x),
    "bytes": lambda x: x.tobytes(),
    "memory": lambda x: bytes(memoryview(x)),
    "a loop": lambda x: [str(part) for part in x],
    "unpacked": lambda x: "{} {}".format(*x),
    "a function": lambda x: (lambda y: float(y.sum()))(x),
    "print in JAX": lambda x: (jax.debug.print("{}", x), jax.effects_barrier()),
    "a callback": lambda x: jax.debug.callback(lambda y: None, x),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_nan_that_leaves_as_numbers_is_found_though_nothing_holds_it(way):
    told = found(lambda: WAYS[way](logs() * 2.0))
    assert [report.origin.primitive for report in told] == ["log"]
    assert told[0].origin.source.code.endswith("# <-- origin")


HARMLESS = {
    "data": lambda: str(jnp.asarray(np.array([np.nan, 1.0], np.float32)) * 2.0),
    "a mask": lambda: str(jnp.where(jnp.arange(3) < 2, 0.0, -jnp.inf) + 1.0),
    "masked": lambda: np.save(io.BytesIO(), jnp.where(jnp.arange(2) > 0, logs(), 0.0)),
    "copied": lambda: copy.deepcopy(jnp.nan_to_num(logs())),
    "integers": lambda: np.asarray(jnp.arange(3) * 2),
    "without its nans": lambda: float(jnp.nanmean(logs())),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_is_data_or_masked_may_leave(name):
    assert found(HARMLESS[name]) == []


def overflows():
    return jnp.exp(jnp.array([1000.0, 2.0]))  # <-- origin


def no_int_of_inf(x):
    with pytest.raises(OverflowError, match="cannot convert float infinity to integer"):
        int(x)


WAYS_OF_AN_INF = {**WAYS, "int": lambda x: no_int_of_inf(x[0])}


@pytest.mark.parametrize("way", WAYS_OF_AN_INF)
def test_an_inf_that_was_made_of_finite_numbers_is_found_where_it_leaves_as_numbers(way):
    told = found(lambda: WAYS_OF_AN_INF[way](overflows() * 2.0))
    assert [(report.origin.primitive, report.origin.value) for report in told] == [("exp", "inf")]
    assert told[0].origin.source.code.endswith("# <-- origin")


def best_so_far(best):
    for loss in (jnp.float32(3.0), jnp.float32(2.0)):
        print(best, f"{best}", float(best - loss), bool(loss < best))
        best = jnp.minimum(best, loss)
    return best


def forward_algorithm():
    logits = jnp.where(jnp.arange(3) < 1, jnp.zeros(3), -jnp.inf)
    steps = jnp.where(jnp.eye(3) > 0, 0.0, -jnp.inf)
    for _ in range(3):
        logits = jax.scipy.special.logsumexp(logits[:, None] + steps, axis=0)
    return str(logits), float(logits[2])


def shortest_paths():
    ways = jnp.where(jnp.arange(9).reshape(3, 3) % 4 == 1, 1.0, jnp.inf)
    for middle in range(3):
        ways = jnp.minimum(ways, ways[:, middle : middle + 1] + ways[middle : middle + 1, :])
    return np.asarray(ways)


STATE = {
    "a best loss": lambda: best_so_far(jnp.array(jnp.inf)),
    "a best loss of a program's own text": lambda: best_so_far(jnp.full((), jnp.inf)),
    "a best loss that stays": lambda: [float(jnp.minimum(jnp.float32(jnp.inf), jnp.float32(jnp.inf))) for _ in range(3)],
    "jnp.inf": lambda: print(jnp.inf, jnp.float32(jnp.inf), jnp.asarray([jnp.inf, 1.0])),
    "computed with": lambda: float(jnp.asarray(jnp.inf) * 2.0 / 3.0),
    "written, and computed with": lambda: float(jnp.full((), -jnp.inf) * 0.5 + 1.0),
    "data": lambda: str(jnp.asarray(np.array([np.inf, 1.0], np.float32)) * 2.0),
    "a causal mask": lambda: print(jnp.where(jnp.tril(jnp.ones((3, 3))) > 0, jnp.ones((3, 3)), -jnp.inf) / 2.0),
    "the largest of nothing": lambda: float(jnp.max(jnp.zeros(0), initial=-jnp.inf)),
    "the largest where a mask allows it": lambda: float(jnp.max(jnp.ones(3), where=jnp.zeros(3, bool), initial=-jnp.inf)),
    "the scores of a beam": lambda: str(jax.lax.top_k(jnp.full(4, -jnp.inf).at[0].set(0.0) - 1.5, 2)[0]),
    "impossible states": forward_algorithm,
    "ways that are not there": shortest_paths,
    "the log of a mask's softmax": lambda: str(jax.nn.log_softmax(jnp.where(jnp.arange(3) < 2, 1.0, -jnp.inf))),
    "an overflow that is masked": lambda: str(jnp.where(jnp.arange(2) > 0, overflows(), 0.0)),
    "an overflow that is clipped": lambda: float(jnp.clip(overflows(), 0.0, 10.0)[0]),
    "an overflow in the denominator": lambda: float(jax.nn.sigmoid(jnp.float32(-1000.0)) + jnp.sum(1.0 / (1.0 + overflows()))),
    "norms that are measured": lambda: float(jnp.linalg.norm(jnp.ones(3), ord=jnp.inf)),
}


@pytest.mark.parametrize("name", STATE)
def test_an_inf_that_was_written_or_given_is_state(name):
    assert found(STATE[name]) == []


@pytest.mark.parametrize("name", ["print", "numpy"])
def test_log_probabilities_of_what_cannot_be_are_said_and_no_fault(name):
    told = []
    with watching(told.append) as everywhere:
        logs = jnp.log(jnp.eye(3))
        print(logs) if name == "print" else np.asarray(logs)
        everywhere.flush()
    assert (told, everywhere.left_out()) == ([], ["1 array that left the program with -inf in it"])


def test_an_array_that_is_minus_inf_where_an_overflow_was_subtracted_is_a_fault():
    (report,) = found(lambda: str(jnp.ones(2) - jnp.sinh(jnp.array([1.0, 200.0]))))
    assert (report.origin.primitive, report.origin.value) == ("sinh", "inf")


def test_a_log_likelihood_of_minus_inf_is_a_fault():
    (report,) = found(lambda: float(jnp.sum(jnp.log(jnp.eye(3)))))  # <-- origin
    assert (report.origin.primitive, report.origin.value, report.origin.source.code.endswith("# <-- origin")) == ("log", "-inf", True)


def test_an_inf_that_an_overflow_brought_about_by_way_of_zero_is_a_fault():
    (report,) = found(lambda: float(jnp.log(1.0 / overflows()[0])))
    assert report.origin.primitive == "log" and "exp" in [event.primitive for event in report.cause]


def test_an_inf_that_is_read_again_and_again_hides_no_nan():
    told = []
    with watching(told.append):
        best = jnp.full((), jnp.inf)
        for number in range(50):
            float(best)
            float(jnp.log(jnp.float32(40.0 - number)) * 1.0)  # <-- origin
            if told:
                break
    assert [(report.origin.primitive, report.origin.source.code.endswith("# <-- origin")) for report in told] == [("log", True)]


def test_a_nan_that_numpy_took_is_found_before_its_origin_is_forgotten():
    told = []
    with watching(told.append):
        np.save(io.BytesIO(), logs() * 2.0)
        w = jnp.ones(3)
        for _ in range(3000):
            w = w * 0.999
    assert [report.origin.primitive for report in told] == ["log"]


def test_numpy_gets_what_it_got_and_afterwards_as_before():
    x = jnp.arange(3.0) * 2.0
    with watching(lambda report: None):
        inside = np.asarray(x), bytes(memoryview(x)), np.asarray(x.astype(jnp.bfloat16)).tolist()
        with pytest.raises((BufferError, TypeError)):
            memoryview(x.astype(jnp.bfloat16))
    assert inside[0].tolist() == [0.0, 2.0, 4.0] and not inside[0].flags.writeable
    assert inside[1] == bytes(memoryview(x)) and inside[2] == [0.0, 2.0, 4.0]
    with pytest.raises(BufferError):
        memoryview(x.astype(jnp.bfloat16))
    deleted = jnp.ones(3)
    with watching(lambda report: None):
        deleted.delete()
        with pytest.raises(RuntimeError, match="deleted"):
            np.asarray(deleted)


def bfloat16_step(w, x):
    return w + 1.0, jnp.mean(jnp.log(x - w)).astype(jnp.bfloat16)  # <-- origin


# numpy reads float32 past an array's methods; what it asks those for, the looks themselves ask for too.
@pytest.mark.parametrize("in_threads", [False, True])
def test_a_look_that_reads_a_nan_does_not_look_again(in_threads):
    told, failed = [], []

    def work():
        try:
            step = jax.jit(bfloat16_step)
            w, x = jnp.float32(-2.5), jnp.arange(8.0)
            for _ in range(5):
                w, loss = step(w, x)
                float(loss)
        except BaseException as error:
            failed.append(error)

    with watching(told.append) as everywhere:
        threads = [threading.Thread(target=work) for _ in range(3)] if in_threads else []
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if not in_threads:
            work()
        everywhere.flush()
    assert failed == [] and everywhere.unseen.phrases() == []
    assert {(report.origin.primitive, report.origin.source.code.endswith("# <-- origin")) for report in told} == {("log", True)}


def test_a_callback_that_reads_a_nan_waits_for_no_computation():
    code = """
import jax, jax.numpy as jnp, numpy as np
from nandetect.run.everywhere import watching
def seen(x):
    return np.asarray(float(np.asarray(x).sum()), np.float32)
told = []
with watching(told.append, check_every=10) as everywhere:
    step = jax.jit(lambda x: jax.pure_callback(seen, jax.ShapeDtypeStruct((), jnp.float32), jnp.log(x)))
    busy = jax.jit(lambda x: jnp.linalg.matrix_power(x, 20) + 1.0)
    for number in range(6):
        out = step(jnp.ones(3) - number), busy(jnp.eye(50))
    everywhere.flush()
print(told[0].origin.primitive)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.stdout == "log\n", done.stderr


def test_a_reading_that_fails_fails_as_it_would():
    with watching(lambda report: None), pytest.raises(TypeError, match="Only scalar arrays can be converted to Python scalars"):
        float(jnp.ones(3))


def test_a_nan_that_is_read_of_a_step_that_kept_its_state_is_no_skipped_step():
    told = []
    with watching(told.append) as everywhere:

        @jax.jit
        def step(w, x):
            v = jnp.log(x @ w).mean()  # <-- origin
            return jax.lax.cond(jnp.isfinite(v), lambda: (w * 0.99, v), lambda: (w, jnp.nan))

        w = jnp.ones(3)
        for number in range(4):
            w, v = step(w, jnp.ones((4, 3)) * (2 - number))
            if told:
                break
            str(v)
        everywhere.flush()
    assert (told[0].origin.primitive, told[0].origin.source.code.endswith("# <-- origin"), told[0].step) == ("log", True, 2)
