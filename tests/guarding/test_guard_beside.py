"""What a call returns beside its state: metrics that are at fault, and results that are thrown away and are not."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nandetect as nd


def line_of(code):
    return next(number for number, line in enumerate(Path(__file__).read_text().splitlines(), 1) if line.strip() == code)


@pytest.mark.parametrize("check_every", [None, 1, 5])
def test_a_step_that_evaluates_skips_nothing(check_every):
    @jax.jit
    def evaluate(w, x):
        scores = jnp.log(x @ w)
        return w + 0 * scores[0], scores.mean()

    guarded, w = nd.guard(evaluate, check_every=check_every), jnp.ones(3)
    with pytest.raises(nd.NonFiniteError) as caught:
        for number in range(40):
            w, _ = guarded(w, jnp.ones((4, 3)).at[2].set(number != 7))
        guarded.flush()
    report = caught.value.report
    assert (report.origin.primitive, report.origin.value, report.step) == ("log", "-inf", 7)
    assert getattr(report.origin.source, "line", None) == line_of("scores = jnp.log(x @ w)")


def descend(w, x):
    value = jnp.log(x @ w).mean()
    return jnp.where(jnp.isfinite(value), w - 0.0625, w), value


@pytest.mark.parametrize("check_every", [None, 1, 7])
def test_a_step_that_keeps_its_state_for_good_when_its_metric_is_bad_is_located(check_every):
    guarded = nd.guard(jax.jit(descend), check_every=check_every)
    w, x = jnp.ones(3), jnp.ones((4, 3))
    # Sixteen steps of 1/16 take the weights to exactly zero, and the seventeenth call has the log of it.
    with pytest.raises(nd.NonFiniteError) as caught:
        for _ in range(40):
            w, _ = guarded(w, x)
        guarded.flush()
    report = caught.value.report
    assert (report.origin.primitive, report.origin.value, report.step) == ("log", "-inf", 16)
    assert getattr(report.origin.source, "line", None) == line_of("value = jnp.log(x @ w).mean()")


def test_a_smaller_loss_scale_is_advised_only_where_a_gradient_is_taken():
    @jax.jit
    def count(w, skipped, x):
        value = jnp.log(x @ w).mean()
        sound = jnp.isfinite(value)
        return jnp.where(sound, w + 0.5, w), jnp.where(sound, skipped, skipped / 2), value

    guarded, w, scale = nd.guard(count, check_every=10), jnp.ones(3), jnp.float32(2.0**15)
    with pytest.warns(nd.NonFiniteWarning, match="5 of 20 steps changed nothing"):
        for number in range(20):
            w, scale, _ = guarded(w, scale, jnp.full((4, 3), -1.0 if number in range(13, 18) else 1.0))
    (finding,) = guarded.findings()
    assert finding.help == "a skipped step costs its time and teaches nothing; mend what makes it"


def log_density(z):
    return jnp.sum(jnp.log(jnp.sqrt(1.0 - z**2)))


def metropolis(key, z):
    proposing, accepting = jax.random.split(key)
    proposal = z + 0.8 * jax.random.normal(proposing, z.shape)
    new = log_density(proposal)
    accept = jnp.log(jax.random.uniform(accepting)) < new - log_density(z)
    return jnp.where(accept, proposal, z), {"accepted": accept, "proposal": proposal, "log_density": new}


@pytest.mark.parametrize("check_every", [None, 1, 4])
def test_a_proposal_that_was_rejected_is_no_fault(check_every):
    guarded, z = nd.guard(jax.jit(metropolis), check_every=check_every), jnp.array([0.1, -0.2])
    rejected = []
    for number in range(60):
        z, info = guarded(jax.random.fold_in(jax.random.key(0), number), z)
        rejected += [number] if np.isnan(info["log_density"]) else []
    guarded.flush()
    (note,) = guarded.findings()
    assert (note.severity, note.step, bool(jnp.isfinite(z).all())) == ("note", rejected[0], True)


def test_the_first_call_waits_for_the_second_to_show_what_is_handed_back():
    @jax.jit
    def step(w, x):
        return w - 0.1, jnp.log(x)

    # The state is sound and the logarithms are not; only the next call shows that they are not the state.
    guarded, w = nd.guard(step, check_every=1), jnp.ones(3)
    for number in range(5):
        w, _ = guarded(w, jnp.full(3, number - 0.0))
    assert [finding.severity for finding in guarded.findings()] == ["note"]
    state = nd.guard(step, check_every=1)
    with pytest.raises(nd.NonFiniteError) as caught:
        logs = jnp.zeros(3)
        for _ in range(3):
            _, logs = state(logs, logs)
    assert caught.value.report.step == 0


def test_results_of_a_step_that_hands_nothing_back_all_matter():
    guarded = nd.guard(jax.jit(lambda x: {"a": x, "b": jnp.log(x)}))
    with pytest.raises(nd.NonFiniteError):
        guarded(jnp.zeros(3))
        guarded.flush()


def wall(position):
    return jnp.sum(jnp.log(jnp.sqrt(1 - position["x"] ** 2)))


@pytest.mark.parametrize("size", [1, 2])
def test_ends_of_trajectories_that_nuts_threw_away_are_no_fault(size):
    blackjax = pytest.importorskip("blackjax")
    kernel = blackjax.nuts(wall, step_size=0.5, inverse_mass_matrix=jnp.ones(size))
    guarded, state = nd.guard(jax.jit(kernel.step)), kernel.init({"x": jnp.full(size, 0.1)})
    ends = []
    for number in range(100):
        state, info = guarded(jax.random.key(number), state)
        ends.append(info.trajectory_leftmost_state.logdensity)
    guarded.flush()
    assert not np.isfinite(ends).all() and np.isfinite(state.position["x"]).all()
    assert [finding.severity for finding in guarded.findings()] == ["note"]


def test_a_whole_adaptation_of_nuts_in_one_call_is_no_fault():
    blackjax = pytest.importorskip("blackjax")
    warmup = blackjax.window_adaptation(blackjax.nuts, wall)
    guarded = nd.guard(jax.jit(lambda key, position: warmup.run(key, position, num_steps=100)))
    (state, _), info = guarded(jax.random.key(0), {"x": jnp.array([0.1, -0.2])})
    guarded.flush()
    assert not np.isfinite(info.info.trajectory_leftmost_state.logdensity).all() and np.isfinite(state.position["x"]).all()
    assert [finding.severity for finding in guarded.findings()] == ["note"]


def test_a_nan_that_stands_where_no_result_is_yet_is_state():
    @jax.jit
    def begin(x):
        return jnp.zeros(4) + x, jnp.full(4, jnp.nan), jnp.float32(jnp.nan)

    @jax.jit
    def tell(mean, best, least):
        better = ~(mean.sum() > least)
        return mean + 1.0, jnp.where(better, mean, best), jnp.where(better, mean.sum(), least)

    first, following = nd.guard(begin, on_find="raise"), nd.guard(tell, on_find="raise")
    state = first(1.0)
    for _ in range(4):
        state = following(*state)
    first.flush()
    following.flush()


def test_a_nan_that_a_condition_wrote_is_a_fault():
    step = nd.guard(jax.jit(lambda x: jnp.where(x > 3.0, jnp.nan, x + 1.0)), on_find="raise")
    x = jnp.zeros(2)
    with pytest.raises(nd.NonFiniteError) as caught:
        for _ in range(8):
            x = step(x)
        step.flush()
    assert (caught.value.report.origin.primitive, caught.value.report.step) == ("select_n", 4)
