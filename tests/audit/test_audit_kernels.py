"""The init audit from the parameters alone: which kernels are right, which are wrong, and what went wrong."""

from __future__ import annotations

import itertools
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.nn import initializers

import nandetect as nd
from nandetect.audit.mistakes import FOR_RELU, MISTAKES
from nandetect.audit.schemes import Fans, readings
from nandetect.audit.weight_statistics import weight_statistics

SHAPES = ((16, 16), (64, 10), (40, 128), (3, 3, 16, 32))
CORRECT = {
    "he normal": initializers.he_normal(),
    "he uniform": initializers.he_uniform(),
    "lecun normal": initializers.lecun_normal(),
    "lecun uniform": initializers.lecun_uniform(),
    "glorot normal": initializers.glorot_normal(),
    "glorot uniform": initializers.glorot_uniform(),
    "orthogonal": initializers.orthogonal(),
    "normal 0.02": initializers.normal(0.02),
}


def key(*names: object) -> jax.Array:
    return jax.random.key(zlib.crc32(str(names).encode()))


def normal(shape: tuple[int, ...], std: float, seed: int = 0) -> jax.Array:
    # By numpy: JAX would compile a generator for every shape.
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape) * std, jnp.float32)


def only(params) -> nd.Finding:
    """The one thing that is found."""
    (finding,) = nd.audit_init(params)
    return finding


@pytest.mark.parametrize("name", CORRECT)
def test_a_correct_kernel_is_left_alone(name):
    for shape in SHAPES:
        for number in range(3):
            assert nd.audit_init({"w": CORRECT[name](key(name, shape, number), shape)}) == []


@pytest.mark.parametrize("draw", [jax.random.normal, lambda key, shape: jax.random.uniform(key, shape, minval=-(3**0.5), maxval=3**0.5)])
def test_a_scheme_need_not_be_drawn_by_jax(draw):
    for number, shape in enumerate([(640, 64), (64, 640)]):
        for variance in (2 / shape[0], 1 / shape[0], 2 / sum(shape)):
            assert nd.audit_init({"w": draw(key(number), shape) * variance**0.5}) == []


def test_the_formula_as_it_is_often_remembered_is_told_word_for_word():
    finding = only({"w1": normal((784, 128), 2 / (784 * 128) ** 0.5)})
    assert finding.message == (
        "`w1` [784, 128]: std is `2/sqrt(m*n)`: 0.0063 where He wants sqrt(2/784) = 0.0505, 8.0 times too small; "
        "you probably wrote `2/sqrt(m*n)` for `sqrt(2/m)`"
    )
    assert finding.help == (
        "write `jax.random.normal(key, (m, n)) * jnp.sqrt(2 / m)`, m = 784 and n = 128; "
        "the shape was read as (in, out) = (784, 128): give apply and inputs to have it read off the program"
    )
    assert (finding.rule, finding.code, finding.severity, finding.layer) == ("init-scale", "ND101", "warning", "w1")
    assert (finding.cause, finding.step) == ("`2/sqrt(m*n)`", None)
    np.testing.assert_allclose((finding.measured, finding.expected), (2 / (784 * 128) ** 0.5, (2 / 784) ** 0.5), rtol=0.01)


@pytest.mark.parametrize("mistake", MISTAKES + FOR_RELU, ids=lambda mistake: f"{mistake.cause} {mistake.formula}")
def test_a_mistakes_code_makes_the_variance_that_the_table_says(mistake):
    m, n = 300, 450
    scope = {"jax": jax, "jnp": jnp, "key": jax.random.key(0), "m": m, "n": n}
    fans = Fans(fan_in=m, fan_out=n, window=9 if "window" in mistake.cause else 1, shape=(n, m) if "shape" in mistake.formula else (m, n))
    wrote, meant = (np.asarray(eval(code, scope), np.float64) for code in (mistake.wrote, mistake.meant))
    right = {"He": 2 / m, "LeCun": 1 / m, "Glorot": 2 / (m + n)}[mistake.wants]
    np.testing.assert_allclose((wrote**2).mean(), mistake.variance(fans), rtol=0.03)
    np.testing.assert_allclose((meant**2).mean(), right, rtol=0.03)


@pytest.mark.parametrize("shape", [(64, 10), (784, 256), (256, 784), (128, 40), (3, 3, 16, 64)])
@pytest.mark.parametrize(
    ("cause", "std"),
    [
        ("missing sqrt", lambda m, n: 2 / m),
        ("missing sqrt", lambda m, n: 1 / m),
        ("`2/sqrt(m*n)`", lambda m, n: 2 / (m * n) ** 0.5),
        ("fan-out for fan-in", lambda m, n: (2 / n) ** 0.5),
        ("std 1", lambda m, n: 1.0),
    ],
)
def test_a_mistake_is_found_and_its_cause_is_among_those_named(shape, cause, std):
    m, n = int(np.prod(shape[:-1])), int(np.prod(shape[:-2])) * shape[-1]
    for number in range(3):
        assert cause in only({"w": normal(shape, std(m, n), number)}).cause


@pytest.mark.parametrize("shape", [(64, 10), (784, 256), (128, 40), (512, 512), (5, 5, 1, 32)])
def test_a_truncation_that_was_not_corrected_shows_where_the_weights_end(shape):
    m = int(np.prod(shape[:-1]))
    finding = only({"w": jax.random.truncated_normal(key(shape), -2, 2, shape) * (2 / m) ** 0.5})
    assert finding.cause.startswith("uncorrected truncation")


def test_square_kernels_cannot_tell_two_mistakes_apart_so_both_are_named():
    assert only({"w": normal((512, 512), 2 / 512)}).cause == "missing sqrt or `2/sqrt(m*n)`"


def test_what_explains_more_of_the_kernels_is_the_cause():
    sizes = (64, 128, 40, 10)
    params = {f"w{at}": normal((m, n), 2 / (m * n) ** 0.5) for at, (m, n) in enumerate(itertools.pairwise(sizes))}
    assert [finding.cause for finding in nd.audit_init(params)] == ["`2/sqrt(m*n)`"] * 3


def test_a_uniform_from_0_to_1_is_not_centred():
    finding = only({"w": jax.random.uniform(key(), (64, 32))})
    assert finding.cause == "not centred: `jax.random.uniform` draws from 0 to 1"


def test_zeros_everywhere_are_an_error():
    findings = nd.audit_init({"w1": jnp.zeros((64, 32)), "b1": jnp.zeros(32), "w2": jnp.zeros((32, 10))})
    assert [(one.rule, one.severity, one.cause, one.layer) for one in findings] == [
        ("init-symmetry", "error", "zeros", "w1"),
        ("init-symmetry", "error", "zeros", "w2"),
    ]
    assert findings[0].message == "all 2,048 weights of `w1` [64, 32] are 0 and so are all the others: no gradient can pass"


@pytest.mark.parametrize("zero", ["head", "w3", "layers.1.lora_b", "gate"])
def test_zeros_that_belong_there_are_left_alone(zero):
    assert nd.audit_init({"w1": normal((64, 32), 0.125), "w2": normal((32, 32), 0.25), zero: jnp.zeros((32, 32))}) == []


def test_equal_weights_and_repeated_units_are_symmetric():
    half = normal((64, 16), 0.125)
    assert only({"w": jnp.full((64, 32), 0.1)}).cause == "equal weights"
    columns = only({"w": jnp.concatenate([half, half], axis=1)})
    assert (columns.rule, columns.cause) == ("init-symmetry", "duplicated columns")
    assert columns.message == "16 of the 32 columns of `w` [64, 32] repeat another one: those outputs start out alike"
    assert only({"w": jnp.concatenate([half[:32], half[:32]]) * 1.4}).cause == "duplicated rows"


def test_weights_that_float16_cannot_hold_are_told():
    finding = only({"w": (normal((64, 32), 1.0) * 1e-5).astype(jnp.float16)})
    assert (finding.rule, finding.cause) == ("init-scale", "float16 underflow")
    assert nd.audit_init({"w": normal((64, 32), 0.125).astype(jnp.float16)}) == []


def test_weights_that_are_not_finite_are_an_error():
    finding = only({"w": normal((64, 32), 0.125).at[3, 4].set(jnp.nan)})
    assert (finding.rule, finding.severity) == ("non-finite", "error")


@pytest.mark.parametrize(
    "params",
    [
        {"embedding": normal((1000, 64), 1.0), "w": normal((64, 64), 0.125)},
        {"scale": jnp.ones((4, 64)), "bias": jnp.zeros((4, 64)), "w": normal((4, 64, 64), 0.125)},
        {"query": normal((64, 4, 16), 0.125), "out": normal((4, 16, 64), 0.125)},
        {"w": jnp.eye(64)},
        {"h": [{"fc": normal((64, 256), 0.02, at), "proj": normal((256, 64), 0.02 / 8**0.5, at)} for at in range(4)]},
        {"h": [{"a": normal((64, 64), (2 / 64) ** 0.5 / 2, at), "z": jnp.zeros((64, 64))} for at in range(4)]},
        {"w1": normal((64, 256), 1 / 8), "head": normal((256, 10), 1 / 256)},
        {"w": normal((6, 6), 1.0)},
    ],
    ids=["embedding", "stacked", "attention", "identity", "GPT-2's residuals", "Fixup", "muP's readout", "too small to tell"],
)
def test_what_is_rightly_otherwise_is_left_alone(params):
    assert nd.audit_init(params) == []


def test_a_million_small_deviations_are_no_alarm():
    assert nd.audit_init({"w": normal((1024, 1024), (2 / 1024) ** 0.5 * 1.05)}) == []


def test_parameters_are_wanted():
    with pytest.raises(nd.UsageError, match="audit_init wants parameters, a pytree with floating arrays in it; dict has none"):
        nd.audit_init({"steps": 3})


@pytest.mark.parametrize(
    ("draw", "form"),
    [
        (lambda r, n: r.normal(size=n), "normal"),
        (lambda r, n: r.uniform(-1, 1, size=n), "uniform"),
        (lambda r, n: (x := r.normal(size=3 * n))[np.abs(x) < 2][:n], "truncated"),
    ],
)
def test_the_form_of_a_distribution_is_told_from_640_weights(draw, form):
    for seed in range(20):
        assert weight_statistics(draw(np.random.default_rng(seed), 640).astype(np.float32)).forms == {form}


def test_a_convolution_and_a_stack_are_read_by_their_shape():
    assert [fans.fan_in for fans in readings((3, 3, 16, 32))] == [144]
    assert [fans.fan_in for fans in readings((32, 16, 3, 3), outputs_first=True)] == [144]
    assert {fans.fan_in for fans in readings((24, 64, 256))} == {64, 24, 24 * 64}
