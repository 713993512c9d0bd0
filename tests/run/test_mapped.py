"""A function that is mapped over devices and not jitted is one operation of the program, into which it is looked."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from nandetect.run.everywhere import watching

AXES = {
    "mesh": Mesh(np.array(jax.devices()[:1]), ("d",)),
    "in_specs": (PartitionSpec("d"), PartitionSpec()),
    "out_specs": PartitionSpec("d"),
}


def shard(rows, t):
    return jnp.log(rows - t)  # <-- origin


@pytest.mark.parametrize(
    "mapped", [lambda: jax.shard_map(shard, **AXES), lambda: jax.shard_map(**AXES)(shard)], ids=["called", "as a decorator"]
)
def test_what_it_makes_is_told_by_its_line(mapped):
    told = []
    with watching(told.append) as everywhere:
        w = mapped()(jnp.ones((2, 3)), 2.0).mean(axis=0)
        print(w * 2.0)
        everywhere.flush()
    origin = told[0].origin
    assert (origin.primitive, origin.value, origin.source.line) == ("log", "nan", shard.__code__.co_firstlineno + 1)
    assert everywhere.functions.alive() == []


def test_nothing_is_said_of_one_that_is_sound_and_its_results_are_the_same():
    plain = np.asarray(jax.shard_map(shard, **AXES)(jnp.ones((2, 3)), 0.5))
    told = []
    with watching(told.append) as everywhere:
        mapped = jax.shard_map(shard, **AXES)
        watched, compiled = np.asarray(mapped(jnp.ones((2, 3)), 0.5)), np.asarray(jax.jit(mapped)(jnp.ones((2, 3)), 0.5))
        everywhere.flush()
    assert (told, everywhere.unseen.phrases()) == ([], [])
    np.testing.assert_array_equal(watched, plain)
    np.testing.assert_allclose(compiled, plain, rtol=1e-6)
