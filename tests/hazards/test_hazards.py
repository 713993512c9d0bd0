"""Every hazard is run: `before` breaks as it says, `after` does not, and both are the number that float64 says they should be."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from scipy import special

from nandetect import hazards
from nandetect.hazards.running import run

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


def orthonormal(x):
    return np.linalg.qr(x)[0]


def decayed(x, y):
    states = [0.0]
    for rate, given in zip(x, y, strict=True):
        states.append(np.exp(rate) * states[-1] + given)
    return np.array(states[1:])


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
    "ND214": lambda x: np.log(np.where(x > 0, x, 1)),
    "ND215": lambda x: np.log(2) - np.logaddexp(0, 2 * x),
    "ND216": lambda x: np.log(-np.expm1(x)),
    "ND217": lambda x: x + np.log(2),
    "ND218": lambda x: 2 * np.log(np.abs(x)),
    "ND219": lambda x, y: np.log(x) - np.log(y),
    "ND220": lambda x: special.gammaln(x),
    "ND221": lambda x: np.sqrt(x),
    "ND222": lambda x: np.sqrt(np.sum(x * x)),
    "ND223": spread,
    "ND224": spread,
    "ND225": lambda x: np.sqrt(np.maximum(1 - x, 0)),
    "ND226": lambda x: x**0.4,
    "ND227": lambda x: np.sqrt(np.maximum(np.linalg.eigvalsh((x + x.T) / 2), 0)),
    "ND228": lambda x: np.sign(x) * np.abs(x) ** 0.7,
    "ND230": lambda x: x + np.log(-np.expm1(-x)),
    "ND231": lambda x: np.divide(1, x, out=np.zeros_like(x), where=x > 0),
    "ND232": lambda m, x: np.mean(x[m]) if m.any() else 0.0,
    "ND233": lambda x: x / (np.sqrt(np.sum(x * x)) or 1),
    "ND234": lambda x: (x - np.mean(x)) / (spread(x) or 1),
    "ND235": lambda x, y: np.arctan2(y, x),
    "ND236": lambda x: np.arccos(np.clip(x, -1, 1)),
    "ND237": lambda x: np.arccos(np.clip(x, -1, 1)),
    "ND238": lambda x: np.arctanh(near_one(x)),
    "ND239": lambda x: np.divide(1, x, out=np.zeros_like(x), where=x != 0),
    "ND240": lambda x: x / (np.sum(x) or 1),
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
    "ND255": lambda x: np.sum(x),
    "ND256": lambda x: np.logaddexp(0, x),
    "ND257": lambda x: np.clip(x, -448, 448),
    "ND258": lambda x, y: np.exp(np.sum(x) - np.sum(y)),
    "ND259": lambda t: 1 / np.square(t.astype(np.float64)),
    "ND261": masked_softmax,
    "ND262": lambda w, x: masked_softmax(w > 0, x),
    "ND263": lambda x: np.where(np.isfinite(x), np.exp(x) * np.where(np.isfinite(x), x, 0), 0),
    "ND264": lambda x: special.logsumexp(np.maximum(x, -1e30)),
    "ND265": lambda x: special.logsumexp(np.maximum(x, -1e30)),
    "ND266": lambda x: special.gammaln(np.where(x > 0, x, 1)),
    "ND267": lambda x, y: np.where(x != 0, x * np.where(x != 0, y, 0), 0),
    "ND268": lambda x, y: np.where(x == y, 0, x - np.where(x == y, 0, y)),
    "ND269": lambda w, x: (1 - w) * x[0] + np.where(w != 0, w * np.where(w != 0, x[1], 0), 0),
    "ND270": lambda x, y: special.softmax(np.maximum(x + y, np.finfo(np.float32).min)),
    "ND271": lambda x: np.linalg.cholesky(x + 1e-5 * np.eye(2) * np.trace(x) / 2),
    "ND272": lambda x, y: np.linalg.lstsq(x, y, rcond=None)[0],
    "ND273": lambda x: eigenvectors(x + np.diag([0.0, 1e-3])),
    "ND274": lambda x: np.linalg.svd(x + np.diag([0.0, 1e-3]))[0],
    "ND275": lambda x: np.linalg.slogdet(x)[1],
    "ND276": lambda x: orthonormal(x + 1e-3 * np.eye(*x.shape)),
    "ND277": lambda x: np.linalg.pinv(x),
    "ND281": lambda x, t: x / (1 - 0.9 ** (t + 1)),
    "ND282": lambda x: x / (np.sqrt(np.sum(x * x)) or 1),
    "ND283": lambda t: np.maximum(t, 1) ** -0.5,
    "ND284": lambda x: x / (np.sqrt(x**2 + 1e-8) + 1e-8),
    "ND285": lambda t, x, y: np.where(y != x, (t - x) / np.where(y != x, y - x, 1), 1),
    "ND286": lambda x, t: x / t if t else 0 * x,
    "ND287": lambda x, y: np.exp(np.sum(np.log(x)) - np.sum(np.log(y))),
    "ND288": decayed,
    "ND289": lambda x, y: np.where(np.abs(x) < 1e-12, 0, y / np.where(np.abs(x) < 1e-12, 1, x)),
    "ND291": lambda x, i: x[np.minimum(i, x.size - 1)],
    "ND292": lambda x: np.where(x != 0, np.expm1(x) / np.where(x != 0, x, 1), 1 + x / 2),
    "ND293": lambda x: (x - x.min()) / (np.ptp(x) or 1),
    "ND294": lambda x: np.sum((x - np.mean(x)) ** 2) / max(x.size - 1, 1),
    "ND295": lambda x: special.erfinv(near_one(2 * x - 1)),
    "ND296": lambda x, y: x + np.log(-np.expm1(y - x)),
    "ND297": lambda x: x / np.where(x != 1, 1 - x, 1e-6),
    "ND298": lambda x: np.log1p(-np.clip(x, 1e-9, 1 - 1e-6)),
    "ND299": lambda x: 400 * np.log(x),
    "ND300": lambda x, y: y * x / (np.sqrt(np.sum(x * x)) or 1),
}
# Where `after` is a little off on purpose (clipped, shifted, in sixteen bits), or a value is sensitive to the rounding of its operand.
LOOSE = dict(
    ND224=1e-4,
    ND210=1e-4,
    ND213=1e-4,
    ND212=1e-2,
    ND238=1e-2,
    ND248=3e-3,
    ND251=5e-3,
    ND271=2e-2,
    ND273=1e-2,
    ND274=1e-2,
    ND276=1e-2,
    ND227=1e-3,
    ND295=1e-2,
    ND298=5e-3,
    ND299=1e-4,
)
# The gradient of the sum at `breaks_on`, where the function has one or a choice was made.
SLOPE = {
    "ND202": {"t": (-200.0, 0.0), "x": (0.0, 0.0)},
    "ND221": {"x": (0.0, 0.25)},
    "ND214": {"x": (0.0, 0.25)},
    "ND222": {"x": (0.0, 0.0)},
    "ND223": {"x": (0.0, 0.0)},
    "ND226": {"x": (0.0, 0.4 * 4.0**-0.6)},
    "ND231": {"x": (0.0, -1 / 16)},
    "ND233": {"x": (1.0, 1.0)},
    "ND234": {"x": (0.0, 0.0)},
    "ND236": {"x": (0.0, 0.0)},
    "ND241": {"x": (np.exp(-1.0), 1.0)},
    "ND242": {"x": (0.0, special.expit(1.0) * special.expit(-1.0))},
    "ND265": {"x": (0.0, 0.0)},
    "ND266": {"x": (0.0, special.digamma(4.0))},
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


def test_knowing_the_hazards_does_not_import_jax():
    code = "import sys, nandetect.hazards; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
