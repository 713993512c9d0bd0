"""What a program gives with a fix that is called proven is the truth: that of the same program written stably by hand, value and gradient,
and that of the old program in double precision where it is sound there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import nandetect as nd
from nandetect import compat, widths
from nandetect.fixing import prove
from nandetect.fixing.prove import Tried

RNG = np.random.default_rng(7)
W = RNG.normal(size=(5, 4)).astype("f")
ROWS = RNG.normal(size=(6, 5)).astype("f")
KEEP = np.array([[True, True, False], [False, False, False], [True, False, True]])


@dataclass(frozen=True)
class Case:
    """A loss of one array that breaks at `x`, the same written by hand as it should be, and the hazard.

    `judge` says where the old loss in double precision is sound: at `x` itself, at some smaller multiple of it, or nowhere.
    """

    code: str
    old: Callable[..., Any]
    stable: Callable[..., Any]
    x: Any
    judge: str
    rtol: float = 2e-5


def old_rows(w):
    z = 60.0 * ROWS @ w
    share = jnp.exp(z - z.max(1, keepdims=True))
    share = share / share.sum(1, keepdims=True)
    return -jnp.take_along_axis(jnp.log(share), jnp.array([[0], [1], [2], [3], [0], [1]]), 1).mean()


def stable_rows(w):
    z = 60.0 * ROWS @ w
    z = jnp.take_along_axis(z, jnp.array([[0], [1], [2], [3], [0], [1]]), 1) - jax.scipy.special.logsumexp(z, 1, keepdims=True)
    return -z.mean()


def old_bernoulli(w):
    p = jnp.reciprocal(1 + jnp.exp(-ROWS @ w))
    return -jnp.sum(jnp.log1p(-p[::2])) - jnp.sum(jnp.log(p[1::2]))


def stable_bernoulli(w):
    z = ROWS @ w
    return jnp.sum(jnp.logaddexp(z[::2], 0.0)) + jnp.sum(jnp.logaddexp(-z[1::2], 0.0))


def old_filter(x):
    def body(belief, score):
        belief = (belief @ MOVES) * jnp.exp(score)
        total = belief.sum()
        return belief / total, jnp.log(total)

    return lax.scan(body, jnp.full(3, 1 / 3), x)[1].sum()


MOVES = np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.3, 0.3, 0.4]], "f")


def stable_filter(x):
    def body(belief, score):
        belief = jax.scipy.special.logsumexp(belief[:, None] + jnp.log(MOVES), axis=0) + score
        total = jax.scipy.special.logsumexp(belief)
        return belief - total, total

    return lax.scan(body, jnp.log(jnp.full(3, 1 / 3)), x)[1].sum()


def old_gate(x):
    def cell(h, row):
        gate = 1.0 / (1.0 + jnp.exp(-(row + h)))
        return h * (1 - gate) + gate * jnp.tanh(row), None

    return jnp.sum(lax.scan(cell, jnp.zeros(3), x)[0] ** 2)


def stable_gate(x):
    def cell(h, row):
        gate = 0.5 * (1 + jnp.tanh(0.5 * (row + h)))
        return h * (1 - gate) + gate * jnp.tanh(row), None

    return jnp.sum(lax.scan(cell, jnp.zeros(3), x)[0] ** 2)


def old_attention(q):
    e = jnp.exp(q @ q.T)
    return jnp.sum((e @ q / jnp.sum(e, axis=-1, keepdims=True)) ** 2)


def stable_attention(q):
    s = q @ q.T
    e = jnp.exp(s - lax.stop_gradient(s.max(-1, keepdims=True)))
    return jnp.sum((e / e.sum(-1, keepdims=True) @ q) ** 2)


def old_pairs(r):
    gap = r[:, None] - r[None]
    return jnp.exp(-jnp.sqrt(jnp.einsum("ijk,ijk->ij", gap, gap))).sum()


def stable_pairs(r):
    gap = r[:, None] - r[None]
    near = jnp.eye(len(r), dtype=bool)
    square = jnp.where(near, 1.0, (gap**2).sum(-1))
    return jnp.where(near, 1.0, jnp.exp(-jnp.sqrt(square))).sum()


def old_pairing(q):
    raised = jnp.exp(q @ q[::-1].T)
    return -jnp.mean(jnp.log(jnp.diag(raised) / raised.sum(-1)))


def stable_pairing(q):
    return -jnp.mean(jnp.diagonal(jax.nn.log_softmax(q @ q[::-1].T)))


def old_turn(x):
    square = x * x
    return jnp.where(square < 1e-8, 1 - square / 6, jnp.sin(jnp.sqrt(square)) / jnp.sqrt(square)).sum()


def old_masked_rows(x):
    s = jnp.where(KEEP, x, -jnp.inf)
    p = jnp.exp(s - s.max(-1, keepdims=True))
    p = p / p.sum(-1, keepdims=True)
    return jnp.sum(jnp.where(KEEP, p * x, 0.0))


def stable_masked_rows(x):
    s = jnp.where(KEEP, x, -1e9)
    return jnp.sum(jnp.where(KEEP, jax.nn.softmax(s) * x, 0.0))


def old_normed(x):
    centre = x.mean(-1, keepdims=True)
    return jnp.sum(jnp.tanh((x - centre) * lax.rsqrt((x * x).mean(-1, keepdims=True) - centre * centre + 1e-6)) ** 2 * W[:, 0])


def stable_normed(x):
    away = x - x.mean(-1, keepdims=True)
    return jnp.sum(jnp.tanh(away / jnp.sqrt((away * away).mean(-1, keepdims=True) + 1e-6)) ** 2 * W[:, 0])


def old_mean_of_kept(x):
    keep = jnp.asarray(KEEP)
    return jnp.sum(((x * keep).sum(1) / keep.sum(1)) ** 2)


def stable_mean_of_kept(x):
    return jnp.sum(((x * KEEP).sum(1) / np.maximum(KEEP.sum(1), 1)) ** 2)


def old_standard(x):
    return jnp.sum(((x - x.mean(1, keepdims=True)) / jnp.std(x[:, :], axis=1, keepdims=True)) ** 3 * W[:3, :3])


def stable_standard(x):
    away = x - x.mean(1, keepdims=True)
    spread = jnp.sqrt((away**2).mean(1, keepdims=True))
    return jnp.sum((away / spread) ** 3 * W[:3, :3])


def old_spread(x):
    return jnp.sum((jnp.std(x, axis=-1) - 1.0) ** 2)


def stable_spread(x):
    variance = jnp.var(x, axis=-1)
    return jnp.sum((jnp.where(variance > 0, jnp.sqrt(jnp.where(variance > 0, variance, 1.0)), 0.0) - 1.0) ** 2)


def old_heading(v):
    moves = (v**2).sum(-1) > 1e-6
    return jnp.sum(jnp.where(moves, jnp.arctan2(v[:, 1], v[:, 0]) ** 2, 0.0))


def stable_heading(v):
    moves = (v**2).sum(-1) > 1e-6
    safe = jnp.where(moves[:, None], v, jnp.array([1.0, 0.0]))
    return jnp.sum(jnp.where(moves, jnp.arctan2(safe[:, 1], safe[:, 0]) ** 2, 0.0))


def old_bins(x):
    width = 0.5
    return -jnp.mean(jnp.log(jax.nn.sigmoid(x + width) - jax.nn.sigmoid(x - width)))


def stable_bins(x):
    # sigmoid(a) - sigmoid(b) = sinh((a - b) / 2) / (2 cosh(a / 2) cosh(b / 2)).
    def log_cosh(u):
        return jnp.abs(u) + jnp.log1p(jnp.exp(-2 * jnp.abs(u))) - jnp.log(2.0)

    return jnp.mean(jnp.log(2.0) - jnp.log(jnp.sinh(0.5)) + log_cosh((x + 0.5) / 2) + log_cosh((x - 0.5) / 2))


def log_normal_tail(x):
    """log of the distribution function of a normal variable far below 0, by its continued fraction."""
    tail = x
    for k in range(60, 0, -1):
        tail = x - k / tail if k else tail
    return -0.5 * x**2 - 0.5 * np.log(2 * np.pi) - jnp.log(-tail)


def halves(x):
    return jnp.asarray(x, jnp.float16)


X = np.array([0.3, -1.2, 2.0, 0.7], "f")

CASES = {
    "log of a share of each row": Case("ND201", old_rows, stable_rows, 3 * W, "nearby"),
    "log of a chance and of what is left of it": Case("ND204", old_bernoulli, stable_bernoulli, 30 * W[:, 0], "nearby"),
    "squashed actions": Case(
        "ND206",
        lambda u: jnp.log(1 - jnp.square(jnp.tanh(u))).sum(),
        lambda u: -2 * jnp.sum(jnp.logaddexp(u, -u) - jnp.log(2.0)),
        8 * X,
        "nearby",
    ),
    "a filter in a scan": Case("ND244", old_filter, stable_filter, -30.0 * np.abs(ROWS[:, :3]) - 60, "itself", 1e-4),
    "log of cosh": Case(
        "ND245",
        lambda x: jnp.log(0.5 * (jnp.exp(x) + jnp.exp(-x))).sum(),
        lambda x: (jnp.logaddexp(x, -x) - np.log(2)).sum(),
        90 * X,
        "itself",
    ),
    "log of a normal tail": Case(
        "ND208", lambda x: jnp.log(jax.scipy.stats.norm.cdf(x)).sum(), lambda x: log_normal_tail(x).sum(), -15 - X, "itself", 1e-4
    ),
    "chances of bins": Case("ND205", old_bins, stable_bins, 20 * X, "nearby", 1e-4),
    "log of a sum of exponentials of what is far below 0": Case(
        "ND207", lambda x: jnp.log(jnp.exp(x).sum()), lambda x: jax.scipy.special.logsumexp(x), X - 150, "itself"
    ),
    "softplus out of a product": Case(
        "ND243", lambda w: jnp.log(jnp.exp(ROWS @ w) + 1).mean(), lambda w: jnp.logaddexp(ROWS @ w, 0.0).mean(), 40 * W, "itself"
    ),
    "attention": Case("ND244", old_attention, stable_attention, 6 * ROWS, "itself", 1e-4),
    "a gate in a scan": Case("ND242", old_gate, stable_gate, np.float32(60) * ROWS[:, :3] - 50, "itself"),
    "elu": Case("ND241", lambda x: jnp.where(x <= 0, jnp.exp(x) - 1.0, x).sum(), lambda x: jax.nn.elu(x).sum(), 70 * X, "itself"),
    "a quotient in a mask": Case(
        "ND231",
        lambda x: jnp.select([x != 0], [jnp.sin(x) / x], 1.0).sum(),
        lambda x: jnp.where(x != 0, jnp.sin(x) / jnp.where(x != 0, x, 1.0), 1.0).sum(),
        X - X[1],
        "nowhere",
    ),
    "log in a mask": Case(
        "ND214",
        lambda x: jnp.where(x > 0.5, jnp.log(jnp.maximum(x, 0)), x).sum(),
        lambda x: jnp.where(x > 0.5, jnp.log(jnp.where(x > 0.5, x, 1.0)), x).sum(),
        X,
        "nowhere",
    ),
    "distances of points from themselves": Case("ND222", old_pairs, stable_pairs, ROWS, "nowhere"),
    "spread of rows, one of them constant": Case("ND223", old_spread, stable_spread, np.stack([X, 0 * X, -X]), "nowhere"),
    "rows of which one is masked": Case("ND261", old_masked_rows, stable_masked_rows, W[:3, :3], "nowhere"),
    "a mask times inf": Case(
        "ND262",
        lambda x: jnp.sum(jax.nn.softmax(x + -jnp.inf * (1.0 - jnp.asarray(KEEP[0]))) ** 2),
        lambda x: jnp.sum(jax.nn.softmax(x[:2]) ** 2),
        X[:3],
        "nowhere",
    ),
    "a norm by the difference of moments": Case("ND224", old_normed, stable_normed, 1e-3 * ROWS + 40, "itself", 5e-2),
    "means, one of nothing": Case("ND232", old_mean_of_kept, stable_mean_of_kept, W[:3, :3], "nowhere"),
    "headings, one of what stands still": Case("ND235", old_heading, stable_heading, ROWS[:, :2] * (np.arange(6) != 2)[:, None], "nowhere"),
    "a count times the log of a rate": Case(
        "ND209",
        lambda r: jnp.sum(jnp.array([0.0, 2.0, 1.0]) * jnp.log(r) - r),
        lambda r: jnp.sum(jnp.array([0.0, 2.0, 1.0])[1:] * jnp.log(r[1:])) - jnp.sum(r),
        np.array([0.0, 1.5, 0.2], "f"),
        "nowhere",
    ),
    "log of a quotient of squares": Case(
        "ND218",
        lambda x: jnp.log(jnp.square(x[:2]) / jnp.square(x[2:])).sum(),
        lambda x: 2 * (jnp.log(jnp.abs(x[:2])) - jnp.log(jnp.abs(x[2:]))).sum(),
        1e-25 * X,
        "itself",
    ),
    "log of a product": Case("ND211", lambda x: jnp.log(jnp.prod(x)), lambda x: jnp.log(x).sum(), 1e-15 * np.abs(X), "itself"),
    "angle of a rotation by nothing": Case(
        "ND236", lambda a: 1.0 + 3e-2 * jnp.arccos(jnp.cos(a)) * 0.0 + a, lambda a: 1.0 + a, np.float32(0), "nowhere"
    ),
    "pairs on a diagonal": Case("ND201", old_pairing, stable_pairing, 20 * ROWS[:5], "nearby", 1e-4),
    "log of what a power leaves of 1": Case(
        "ND216",
        lambda x: jnp.log(1 - (1 - x**2.0) ** jnp.exp(x[1])).sum(),
        lambda x: jnp.log(-jnp.expm1(jnp.exp(x[1]) * jnp.log1p(-(x**2)))).sum(),
        np.array([1e-6, 0.3, 0.6], "f"),
        "itself",
        1e-3,
    ),
    "an angle over its root, both at 0": Case(
        "ND221",
        old_turn,
        lambda x: jnp.where(x * x < 1e-8, 1 - x * x / 6, jnp.sin(away := jnp.where(x * x < 1e-8, 1.0, x)) / away).sum(),
        X - X[1],
        "nowhere",
    ),
    "squares in half precision": Case(
        "ND247", lambda x: jnp.mean(jnp.square(x) / 512), lambda x: jnp.mean(x.astype(float) ** 2 / 512), halves(200 * X), "nowhere", 2e-3
    ),
    "log-likelihood in half precision": Case(
        "ND201",
        lambda x: -jnp.log(jax.nn.softmax(x) + 1e-8)[1].astype(jnp.float32),
        lambda x: -jax.nn.log_softmax(x.astype(float))[1],
        halves(10 * X),
        "nowhere",
        5e-3,
    ),
}


def flat(results) -> list[np.ndarray]:
    return [np.asarray(leaf).astype("float64") for leaf in jax.tree.leaves(results)]


def in_double(loss, x) -> list[np.ndarray]:
    with widths.double():
        return flat(jax.jit(jax.value_and_grad(loss))(jnp.asarray(np.asarray(x).astype("float64"))))


def past_the_edge(step, x):
    """The smallest multiple of `x` at which the old step breaks in its own width: in double it has lost the fewest digits there."""
    multiples = (jnp.asarray(x * np.float32(2.0**power)) for power in np.arange(-6, 0.25, 0.25))
    return next(near for near in multiples if not all(np.isfinite(part).all() for part in flat(step(near))))


def assert_close(given, truth, rtol):
    for one, other in zip(given, truth, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=rtol * max(float(np.abs(other).max()), 1e-6))


@pytest.fixture
def tried(monkeypatch) -> list[Tried]:
    """All forms that are tried in a test, with the programs that they were tried in."""
    kept: list[Tried] = []
    trials = prove.trials

    def keeping(*args):
        for one in trials(*args):
            kept.append(one)
            yield one

    monkeypatch.setattr(prove, "trials", keeping)
    return kept


@pytest.mark.parametrize("name", CASES)
def test_what_a_proven_fix_gives_is_the_truth(name, tried):
    case = CASES[name]
    x = jnp.asarray(case.x)
    step = jax.jit(jax.value_and_grad(case.old))
    report = nd.locate(step, x)
    assert report is not None
    assert [(fix.code, fix.proven) for fix in report.fixes][:1] == [(case.code, True)]
    # What was tried may be proven together with more; it is shown where nothing does it alone.
    proof = next(one for one in tried if one.is_proven and len(one.found) == len(report.fixes))
    assert_close(flat(proof.program.call()), in_double(case.stable, x), case.rtol)
    if case.judge != "nowhere":
        near = x if case.judge == "itself" else past_the_edge(step, x)
        program = jax.jit(compat.as_function(proof.program.jaxpr, proof.program.consts))
        assert_close(flat(program(near)), in_double(case.old, near), max(case.rtol, 1e-4))
