"""Every hazard is run: `before` breaks as it says, `after` does not, and both are the number that float64 says they should be."""

from __future__ import annotations

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

import nandetect as nd
from nandetect import hazards
from nandetect.hazards.proof import run
from nandetect.records import Event, Operand, Source

HAZARDS = {hazard.code: hazard for hazard in hazards.HAZARDS}


def log_softmax(x):
    return special.log_softmax(x)


def log_sigmoid(x):
    return special.log_expit(x)


def near_one(x):
    return np.clip(x, -1 + 1e-6, 1 - 1e-6)


def masked_softmax(m, x):
    return np.where(m, np.exp(x - x.max()), 0) / max(np.sum(np.where(m, np.exp(x - x.max()), 0)), 1e-300)


def spread(x):
    return np.sqrt(np.mean((x - np.mean(x)) ** 2))


def eigenvectors(x):
    return np.linalg.eigh((x + x.T) / 2)[1]


# What the hazard computes, in float64, written so that it stands where `before` breaks; by the names of the hazard's inputs.
TRUTH = {
    "ND201": log_softmax,
    "ND202": lambda t, x: t * log_softmax(x),
    "ND203": lambda x: log_sigmoid(-x),
    "ND204": log_sigmoid,
    "ND205": lambda x, y: log_sigmoid(x) + log_sigmoid(-y) + np.log1p(-np.exp(y - x)),
    "ND206": lambda x: np.log(4) - 2 * np.logaddexp(x, -x),
    "ND207": lambda x: special.logsumexp(x),
    "ND208": lambda x: special.log_ndtr(x),
    "ND209": lambda x: special.xlogy(x, x),
    "ND210": lambda x: np.log(np.maximum(x, np.finfo(np.float32).tiny)),
    "ND211": lambda x: np.sum(np.log(x)),
    "ND212": lambda x: special.logit(np.clip(x, 1e-6, 1 - 1e-6)),
    "ND213": lambda x: np.log(np.maximum(x, np.finfo(np.float32).tiny)),
    "ND221": lambda x: np.sqrt(x),
    "ND222": lambda x: np.sqrt(np.sum(x * x)),
    "ND223": spread,
    "ND224": spread,
    "ND225": lambda x: np.sqrt(np.maximum(1 - x, 0)),
    "ND226": lambda x: x**0.4,
    "ND231": lambda x: np.divide(1, x, out=np.zeros_like(x), where=x > 0),
    "ND232": lambda m, x: np.mean(x[m]) if m.any() else 0.0,
    "ND233": lambda x: x / (np.sqrt(np.sum(x * x)) or 1),
    "ND234": lambda x: (x - np.mean(x)) / (spread(x) or 1),
    "ND235": lambda x, y: np.arctan2(y, x),
    "ND236": lambda x: np.arccos(near_one(x)),
    "ND237": lambda x: np.arccos(near_one(x)),
    "ND238": lambda x: np.arctanh(near_one(x)),
    "ND241": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "ND242": lambda x: special.expit(x),
    "ND243": lambda x: np.logaddexp(0, x),
    "ND244": special.softmax,
    "ND245": lambda x: np.logaddexp(x, -x) - np.log(2),
    "ND246": lambda x: np.log(special.i0(x)),
    "ND247": lambda x: np.mean(x**2),
    "ND248": lambda x: np.log(x + 1e-8),
    "ND249": lambda m: np.where(m, 0.0, -65504.0),
    "ND250": lambda x, y: np.sum(x * y),
    "ND251": lambda x: x,
    "ND252": lambda x: np.sign(x) ** 200 * np.minimum(np.abs(x), 1) ** 200,
    "ND253": lambda x: np.exp(np.minimum(x, 80)),
    "ND261": masked_softmax,
    "ND262": lambda w, x: masked_softmax(w > 0, x),
    "ND263": lambda x: np.where(np.isfinite(x), np.exp(x) * np.where(np.isfinite(x), x, 0), 0),
    "ND264": lambda x: special.logsumexp(np.maximum(x, -1e30)),
    "ND265": lambda x: special.logsumexp(np.maximum(x, -1e30)),
    "ND271": lambda x: np.linalg.cholesky(x + 1e-5 * np.eye(2) * np.trace(x) / 2),
    "ND272": lambda x, y: np.linalg.lstsq(x, y, rcond=None)[0],
    "ND273": lambda x: eigenvectors(x + np.diag([0.0, 1e-3])),
    "ND274": lambda x: np.linalg.svd(x + np.diag([0.0, 1e-3]))[0],
    "ND281": lambda x, t: x / (1 - 0.9 ** (t + 1)),
    "ND282": lambda x: x / (np.sqrt(np.sum(x * x)) or 1),
    "ND283": lambda t: np.maximum(t, 1) ** -0.5,
    "ND284": lambda x: x / (np.sqrt(x**2 + 1e-8) + 1e-8),
}
# Where `after` is a little off on purpose (clipped, shifted, in sixteen bits), or a value is sensitive to the rounding of its operand.
LOOSE = dict(
    ND224=1e-4,
    ND210=1e-4,
    ND213=1e-4,
    ND212=1e-2,
    ND236=0.1,
    ND237=0.1,
    ND238=1e-2,
    ND248=3e-3,
    ND251=5e-3,
    ND271=2e-2,
    ND273=1e-2,
    ND274=1e-2,
)
# The gradient of the sum at `breaks_on`, where the function has one or a choice was made.
SLOPE = {
    "ND202": {"t": (-200.0, 0.0), "x": (0.0, 0.0)},
    "ND221": {"x": (0.0, 0.25)},
    "ND222": {"x": (0.0, 0.0)},
    "ND223": {"x": (0.0, 0.0)},
    "ND226": {"x": (0.0, 0.4 * 4.0**-0.6)},
    "ND231": {"x": (0.0, -1 / 16)},
    "ND241": {"x": (np.exp(-1.0), 1.0)},
    "ND242": {"x": (0.0, special.expit(1.0) * special.expit(-1.0))},
    "ND265": {"x": (0.0, 0.0)},
    "ND284": {"x": (1 / 1.0001e-4, 0.0)},
}


def arrays(inputs):
    return {name: np.asarray(value, np.float64 if np.asarray(value).dtype.kind == "f" else None) for name, value in inputs.items()}


def truth(hazard, inputs):
    with np.errstate(all="ignore"):
        return np.asarray(TRUTH[hazard.code](**arrays(inputs)), np.float64)


def differences(hazard, inputs):
    """The gradient of the sum of the truth, by central differences in float64."""
    found = []
    for name, value in arrays(inputs).items():
        if value.dtype.kind != "f":
            continue
        slope = np.zeros_like(value)
        for at in np.ndindex(value.shape):
            ends = []
            for step in (1e-6, -1e-6):
                moved = value.copy()
                moved[at] += step
                ends.append(np.sum(truth(hazard, {**inputs, name: moved})))
            slope[at] = (ends[0] - ends[1]) / 2e-6
        found.append(slope)
    return found


def test_every_hazard_has_a_code_of_its_own_and_a_truth():
    assert len(HAZARDS) == len(hazards.HAZARDS)
    assert set(HAZARDS) == set(TRUTH)


@pytest.mark.parametrize("code", HAZARDS)
def test_before_breaks_and_after_does_not(code):
    hazard = HAZARDS[code]
    before, after = run(hazard, (hazard.before, hazard.after), hazard.breaks_on)
    failing = before[1:] if hazard.fails == "gradient" else before
    assert not all(np.isfinite(array.astype(np.float64)).all() for array in failing)
    assert all(np.isfinite(array.astype(np.float64)).all() for array in after)
    tolerance = LOOSE.get(code, 2e-5)
    np.testing.assert_allclose(after[0].astype(np.float64), truth(hazard, hazard.breaks_on), rtol=tolerance, atol=tolerance)
    for slope, expected in zip(after[1:], SLOPE.get(code, {}).values(), strict=False):
        np.testing.assert_allclose(slope, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("code", [code for code in HAZARDS if HAZARDS[code].ordinary])
def test_on_ordinary_inputs_both_are_the_same_number(code):
    hazard = HAZARDS[code]
    expected = [truth(hazard, hazard.ordinary), *(differences(hazard, hazard.ordinary) if hazard.fails == "gradient" else [])]
    for found in run(hazard, (hazard.before, hazard.after), hazard.ordinary):
        for array, number in zip(found, expected, strict=True):
            tolerance = LOOSE.get(code, 2e-5 if hazard.dtype == "float32" else 2e-3)
            np.testing.assert_allclose(array.astype(np.float64), number, rtol=tolerance, atol=tolerance)


def fixes(step, *args):
    report = nd.locate(step, *args)
    assert report is not None
    return report.fixes


def names(step, *args):
    return [fix.name for fix in fixes(step, *args)]


X = jnp.array([0.0, 200.0, 1.0])


@pytest.mark.parametrize(
    ("step", "x", "name"),
    [
        (lambda x: jnp.log(jax.nn.softmax(x)), X, "log-of-softmax"),
        (lambda x: jnp.log(jax.nn.sigmoid(-x)), X, "log-of-sigmoid"),
        (lambda x: jnp.log(1 - jax.nn.sigmoid(x)), X, "log-of-one-minus-sigmoid"),
        (lambda x: jnp.log(1.0 - 1.0 / (1.0 + jnp.exp(-x))), jnp.array([18.0, 1.0]), "log-of-one-minus-sigmoid"),
        (lambda x: jnp.log(1 - jnp.tanh(x) ** 2), X, "log-of-one-minus-tanh-squared"),
        (lambda x: jnp.log(jnp.sum(jnp.exp(x))), X, "log-sum-exp"),
        (lambda x: jnp.log(jnp.sum(jnp.exp(x))), -X - 100, "log-sum-exp"),
        (lambda x: jnp.sum(x * jnp.log(x)), X, "probability-times-its-log"),
        (lambda x: jnp.log(x), X, "log-of-zero"),
        (jax.grad(lambda x: jnp.sum(jnp.sqrt(x))), X, "sqrt-at-zero"),
        (jax.grad(lambda x: jnp.linalg.norm(x - x)), X, "norm-at-zero"),
        (jax.grad(lambda x: jnp.std(x)), jnp.ones(3), "std-of-a-constant"),
        (jax.grad(lambda x: jnp.sum(jnp.where(x > 0, 1.0 / x, 0.0))), X, "division-in-a-masked-branch"),
        (jax.grad(lambda x: jnp.sum(jnp.where(x > 0, x, jnp.exp(x) - 1))), X, "overflow-in-a-masked-branch"),
        (lambda x: jnp.mean(x, where=x > 1000), X, "mean-of-nothing"),
        (lambda x: x / jnp.linalg.norm(x), 0 * X, "normalising-a-zero-vector"),
        (lambda x: (x - x.mean()) / x.std(), jnp.ones(3), "standardising-a-constant"),
        (jax.grad(lambda x: jnp.arctan2(x[0], 0 * x[1])), X, "atan2-at-the-origin"),
        (jax.grad(lambda x: jnp.arccos(jnp.clip(x[2], -1, 1))), X, "slope-of-arccos-at-one"),
        (jax.grad(lambda x: 1.0 / (1.0 + jnp.exp(-x[1]))), -X, "own-sigmoid"),
        (lambda x: jnp.log(1 + jnp.exp(x)), X, "own-softplus"),
        (lambda x: jnp.exp(x) / jnp.sum(jnp.exp(x)), X, "softmax-without-max"),
        (lambda x: jnp.log(jnp.cosh(x)), X, "log-of-cosh"),
        (lambda x: jnp.mean(x**2), (2 * X).astype(jnp.float16), "square-in-half-precision"),
        (lambda x: jnp.log(x + 1e-8), X.astype(jnp.float16), "epsilon-in-half-precision"),
        (lambda x: (x * 1e6).astype(jnp.float16), X, "cast-to-half-precision"),
        (lambda x: jax.lax.fori_loop(0, 60, lambda _, h: h * 10, x), X, "exploding-recursion"),
        (lambda x: jax.nn.softmax(jnp.where(x > 1000, x, -jnp.inf)), X, "softmax-of-a-masked-row"),
        (lambda x: (1.0 - x) * -jnp.inf, X, "mask-times-inf"),
        (lambda x: jnp.linalg.solve(jnp.outer(x, x), x), X, "solving-a-singular-system"),
        (lambda x: jnp.linalg.cholesky(jnp.outer(x, x) - jnp.eye(3)), X, "cholesky-of-an-indefinite-matrix"),
    ],
)
def test_a_report_offers_the_fix_of_its_hazard_first(step, x, name):
    assert names(step, x)[0] == name


@pytest.mark.parametrize(
    "step",
    [
        lambda x: jnp.arcsin(x),
        lambda x: 1.0 / x,
        lambda x: jnp.log(-1 - x),
        lambda x: jnp.sqrt(-x),
        lambda x: x * jnp.finfo(jnp.float32).max,
    ],
)
def test_no_fix_is_better_than_a_wrong_one(step):
    assert names(step, jnp.array([0.0, 200.0])) == []


def test_an_update_that_divides_by_a_zero_gradient_norm_is_told():
    def step(w):
        g = jax.grad(lambda w: jnp.sum(0 * w))(w)
        n = jnp.sqrt(jnp.sum(g * g))
        return w - g / n

    assert names(step, X) == ["dividing-by-the-gradient-norm"]


def test_a_bias_correction_that_counts_from_zero_is_told():
    def step(w, t):
        g = jax.grad(lambda w: jnp.sum(w**2))(w)
        return w - g / (1 - 0.9**t)

    assert names(step, X, jnp.float32(0)) == ["bias-correction-at-step-zero"]


def test_the_proof_is_what_both_ways_give_on_the_users_own_logits():
    (fix,) = fixes(lambda x: jnp.log(jax.nn.softmax(x)), jnp.array([0.0, 150.0]))
    assert fix.proof == "before gives -inf, after gives -150"


def test_the_proof_of_a_hazard_of_the_gradient_shows_gradients():
    (fix,) = fixes(jax.grad(lambda x: jnp.sum(jnp.sqrt(x))), X)
    assert fix.proof == "before gives a gradient of inf, after gives a gradient of 0"


def test_without_the_users_values_there_is_no_proof():
    (fix,) = fixes(jax.grad(lambda x: jnp.std(x)), jnp.ones(3))
    assert fix.proof is None


def test_at_most_two_fixes_and_only_specific_ones_where_there_are_any():
    source = Source(file="loss.py", line=1, code="loss = x * jnp.log(x)")
    origin = Event(primitive="log", value="-inf", reason="log of zero", source=source, operands=(Operand(value=0.0),))
    assert [fix.name for fix in hazards.fixes(origin)] == ["probability-times-its-log"]
    assert len(hazards.fixes(origin)) <= hazards.MOST


def test_complex_operands_are_no_trouble():
    origin = Event(primitive="acos", reason="acos outside [-1, 1]", operands=(Operand(value=1 + 2j),))
    assert hazards.fixes(origin) == ()


def test_knowing_the_hazards_does_not_import_jax():
    code = "import sys, nandetect.hazards; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_normal_density_is_no_norm_of_a_vector():
    def density(x, scale):
        return jax.scipy.stats.norm.logpdf(x, 0.0, scale)

    report = nd.locate(jax.jit(density), jnp.float32(0), jnp.float32(1e-30))
    assert report is not None and "ND233" not in [fix.code for fix in report.fixes]
