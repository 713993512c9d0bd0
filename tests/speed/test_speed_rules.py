"""What is told of a step's speed, word by word, and from where on: measurements in, findings out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from nandetect.records import Finding, Frame
from nandetect.speed import rules
from nandetect.speed.prices import Crossing, Donation, Jitting, Reason, Recompiling, Widening
from nandetect.speed.reads import Reads

HERE = Frame(file="/elsewhere/train.py", line=12)
# 200 steps a second without jit and 1,030 with it.
PERSONS = Jitting(name="step", operations=120, seconds=1 / 200, jitted_seconds=1 / 1030, where=HERE)
SHAPES = Recompiling(
    name="step",
    count=12,
    calls=300,
    seconds=1.3,
    of_seconds=3.2,
    spread=0.9,
    reasons=(
        Reason(kind="shape", path="inputs", others=1, example="float32[40,64] -> float32[33,64]", count=9),
        Reason(kind="weak type", path="lr", example="float32[] -> float32[] of weak type", count=2),
    ),
    where=HERE,
)
WIDE = Widening(name="step", what="`x`", where=HERE, count=3, seconds=2.8e-3, narrow_seconds=1e-3, argument="x", wide=("params['w']",))
PRINTS = Crossing(kind="callback", name="step", what="jax.debug.print('{}', l)", seconds=2e-4, without_seconds=7e-5, where=HERE)
STATE = Donation(
    name="step",
    arguments=("params", "momentum"),
    positions=(0, 1),
    size=8_000_000,
    memory=20_000_000,
    donated_memory=12_000_000,
    seconds=2e-3,
    donated_seconds=1e-3,
)


def test_a_step_that_is_not_jitted():
    assert rules.not_jitted(PERSONS) == Finding(
        rule="not-jitted",
        code="ND501",
        severity="warning",
        message="`step` at /elsewhere/train.py:12 is not jitted: it takes 5.0 ms (200 steps/s), compiled it would take 971 us "
        "(1,030 steps/s), 5.2 times as fast",
        cause="120 operations are run one by one",
        measured=5.0,
        expected=pytest.approx(0.971, abs=1e-3),
        help="step = jax.jit(step)",
    )


def test_a_step_that_is_compiled_again_and_again():
    assert rules.recompiling(SHAPES) == Finding(
        rule="recompiling",
        code="ND502",
        severity="warning",
        message="`step` was compiled 12 times in 300 calls at /elsewhere/train.py:12: after the first, that took 1.3 s, 41% of the time. "
        "`inputs` and 1 more changed their shape 9 times: float32[40,64] -> float32[33,64]; "
        "`lr` changed its weak type 2 times: float32[] -> float32[] of weak type",
        cause="a changing shape of `inputs`",
        layer="inputs",
        measured=12,
        expected=1,
        help="give every call the same shape: drop the last batch, or pad `inputs` to a few fixed sizes and mask what was added",
    )


@pytest.mark.parametrize(
    ("reason", "cause", "help"),
    [
        (Reason(kind="function"), "a new function object each time", "jit it once, before the loop: step = jax.jit(step)"),
        (
            Reason(kind="weak type", path="lr", example="float32[] -> float32[] of weak type"),
            "a changing weak type of `lr`",
            "hand it over in one way, as an array: lr = jnp.asarray(lr, jnp.float32)",
        ),
        (
            Reason(kind="dtype", path="batch['x']", example="float32[4] -> int32[4]"),
            "a changing dtype of `batch['x']`",
            "give it one dtype: batch = jnp.asarray(batch, jnp.float32)",
        ),
        (
            Reason(kind="static value", path="mode", example="'a' -> 'b'"),
            "a changing static value of `mode`",
            "take `mode` out of static_argnums and static_argnames, so that its value can change without compiling",
        ),
        (
            Reason(kind="static value", path="loss", example="the function `f` -> the function `g`"),
            "a changing static value of `loss`",
            "hand over the same function each time: make `loss` once, before the loop",
        ),
        (
            Reason(kind="settings"),
            "a changing setting of JAX",
            "set what changes (jax.config, a mesh, a context such as jax.default_matmul_precision) once, before the loop",
        ),
        (
            Reason(kind="structure"),
            "a changing structure of the arguments",
            "give `the arguments` the same keys, lengths and static fields each time",
        ),
    ],
    ids=lambda value: value.kind if isinstance(value, Reason) else "",
)
def test_every_reason_has_its_own_advice(reason, cause, help):
    finding = rules.recompiling(replace(SHAPES, reasons=(reason,)))
    assert finding is not None
    assert (finding.cause, finding.help) == (cause, help)


def test_float32_data_in_float64():
    finding = rules.x64(WIDE)
    assert finding is not None
    assert (finding.severity, finding.layer, finding.measured, finding.expected) == ("warning", "x", 2.8, 1.0)
    assert finding.message == (
        "`step` computes in float64 though its data is float32: `x` is widened at /elsewhere/train.py:12 and 2 more, where "
        "`params['w']` is float64. A step takes 2.8 ms, and 1.0 ms without x64, 2.8 times as fast"
    )
    assert finding.help == (
        "leave jax_enable_x64 off, or make `params` float32: params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)"
    )


def test_a_callback_a_reading_and_an_upload():
    told = [
        rules.host_transfer(PRINTS),
        rules.host_transfer(replace(PRINTS, kind="read", what="print(float(loss))")),
        rules.host_transfer(replace(PRINTS, kind="upload", what="batch['x']", size=6_400_000, others=1)),
    ]
    assert [(finding.severity, finding.message) for finding in told if finding] == [
        (
            "warning",
            "`step` calls back to the host in every step: `jax.debug.print('{}', l)` at /elsewhere/train.py:12 takes 130 us of 200 us",
        ),
        (
            "warning",
            "a result of `step` is read after every step at /elsewhere/train.py:12: `print(float(loss))` waits for it; read later, "
            "a step could take up to 130 us less, of 200 us",
        ),
        (
            "note",
            "`batch['x']` and 1 more of `step`, 6.4 MB, go from numpy to the device in every step: 130 us of 200 us",
        ),
    ]


def test_a_state_that_is_not_donated_is_a_note():
    assert rules.not_donated(STATE) == Finding(
        rule="not-donated",
        code="ND505",
        severity="note",
        message="`step` keeps the old `params` and `momentum` beside the new: donated, it would need 12 MB where it needs 20 MB, "
        "and 1.0 ms a step where it takes 2.0 ms",
        cause="the state is not donated",
        layer="params",
        measured=20.0,
        expected=12.0,
        help="step = jax.jit(step, donate_argnums=(0, 1)), if nothing else uses the old state",
    )


@pytest.mark.parametrize(
    ("rule", "price"),
    [
        (rules.not_jitted, replace(PERSONS, jitted_seconds=4.3e-3)),
        (rules.not_jitted, replace(PERSONS, operations=3)),
        (rules.not_jitted, replace(PERSONS, seconds=2e-5, jitted_seconds=1e-5)),
        (rules.recompiling, replace(SHAPES, count=4)),
        (rules.recompiling, replace(SHAPES, seconds=0.01)),
        (rules.x64, replace(WIDE, narrow_seconds=2.5e-3)),
        (rules.host_transfer, replace(PRINTS, without_seconds=1.8e-4)),
        (rules.host_transfer, replace(PRINTS, seconds=3e-5, without_seconds=1.5e-5)),
        (rules.not_donated, replace(STATE, donated_memory=19_500_000)),
        (rules.not_donated, replace(STATE, memory=20_000_000_000, donated_memory=19_900_000_000)),
    ],
)
def test_what_would_gain_little_is_not_told(rule, price):
    assert rule(price) is None


def test_compiling_for_many_sizes_at_the_beginning_is_no_more_than_a_note():
    finding = rules.recompiling(replace(SHAPES, spread=0.2))
    assert finding is not None and finding.severity == "note"


def readings(count: int, interval: float, waited: float) -> Reads:
    """So many at this line, each of which waited so long, at this interval."""
    reads = Reads()
    for number in range(count):
        reads.enter(number * interval, waited, 0.0)
    return reads


def test_a_reading_costs_what_the_host_could_have_done_meanwhile():
    """The device works 3 ms a step and the host 2 ms: side by side they would take 3 ms, one after the other they take 5."""
    price = readings(300, interval=5e-3, waited=3e-3).price("step", 300)
    assert price is not None and price.where is not None
    assert (price.seconds, price.without_seconds) == pytest.approx((5e-3, 3e-3))
    where: Any = price.where
    assert (price.what, where[0]) == ("reads.enter(number * interval, waited, 0.0)", __file__)


def test_a_loss_that_is_read_every_hundred_steps_is_no_reading_of_every_step():
    assert readings(30, interval=0.5, waited=0.4).price("step", 3000) is None


def test_a_reading_without_work_on_the_host_costs_nothing():
    price = readings(300, interval=5e-3, waited=4.99e-3).price("step", 300)
    assert price is not None and rules.host_transfer(price) is None
