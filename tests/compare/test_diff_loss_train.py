"""diff-loss --train: the same run under two losses, of which one breaks."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from pairs import cross_entropy_naive, cross_entropy_stable

from nandetect.compare.pair import Side
from nandetect.compare.scene import scene
from nandetect.compare.training import training
from nandetect.errors import UsageError


def trained(first, second, steps):
    sides = (Side("one", first), Side("two", second))
    return training(sides, scene(sides, jnp.dtype("float32")), 0, "float32", steps)


def test_training_tells_the_step_that_breaks_and_where_it_came_from():
    found = trained(cross_entropy_naive, cross_entropy_stable, 300)
    naive, stable = found.runs
    assert naive.non_finite_step is not None and naive.report is not None and naive.report.origin.source is not None
    assert "cross_entropy_naive" in naive.report.origin.source.function
    assert found.parted_at is not None and found.parted_at <= naive.non_finite_step
    assert (stable.non_finite_step, stable.report, stable.steps) == (None, None, 300)
    assert [at for at, _ in stable.accuracy] == [0, 100, 200, 300]
    assert stable.accuracy[-1][1] > 0.9 > 0.3 > stable.accuracy[0][1]


def test_a_loss_beside_itself_never_parts():
    found = trained(cross_entropy_stable, cross_entropy_stable, 50)
    assert found.parted_at is None
    assert found.runs[0].loss is not None
    assert found.runs[0].loss == found.runs[1].loss and np.isfinite(found.runs[0].loss)


def test_a_loss_without_labels_cannot_be_trained():
    with pytest.raises(UsageError, match="--train needs losses of logits and labels"):
        trained(jnp.mean, jnp.mean, 1)
