"""Looking at arrays that lie on an accelerator: one compiled program for each kind, and nothing that cannot be read together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nandetect as nd
from nandetect.guarding import finite

ALL: Any = finite._all
EACH: Any = finite._each


@pytest.fixture
def accelerator(monkeypatch):
    """The CPU's arrays are taken for an accelerator's: they have no buffer to read, and numpy is not asked."""
    monkeypatch.setattr(finite, "_is_on_host", lambda leaf: not isinstance(leaf, jax.Array))
    monkeypatch.setattr("nandetect.guarding.screen._joined", lambda column: None)
    ALL.clear_cache()
    EACH.clear_cache()


@jax.jit
def step(w, x):
    w = w - 0.01 * x
    return w, jnp.mean(jnp.sqrt(x))


def train(guarded, count, bad=()):
    w = jnp.ones(40)
    for number in range(count):
        w, _ = guarded(w, jnp.full(40, -1.0 if number in bad else 1.0))
    guarded.flush()


def test_however_many_steps_a_look_is_at_its_programs_are_compiled_once(accelerator):
    guarded = nd.guard(step, check_every=7)
    train(guarded, 30)
    for count in (1, 3, 40):
        train(guarded, count)
    assert (ALL._cache_size(), EACH._cache_size()) == (1, 1)


@pytest.mark.parametrize("at", [0, 31, 32, 49])
def test_a_metric_that_is_bad_for_one_step_is_found_at_that_step(accelerator, at):
    with pytest.raises(nd.NonFiniteError) as caught:
        train(nd.guard(step, check_every=50), 50, {at})
    assert (caught.value.report.step, caught.value.report.origin.primitive) == (at, "sqrt")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "complex64", "float8_e5m2"])
def test_bad_values_of_every_kind_are_told_apart(accelerator, dtype):
    arrays = [jnp.array(values, dtype) for values in ([1.0, 2.0], [jnp.inf, 1.0], [jnp.nan, jnp.inf])]
    assert finite.states(arrays) == [finite.state(one) for one in arrays] == [finite.FINITE, finite.INF, finite.NAN]
    assert [finite.all_finite([one] * 33) for one in arrays] == [True, False, False]
    assert finite.all_finite([])


def test_metrics_of_several_shapes_and_types_are_looked_at_together(accelerator):
    sound: list[Any] = [jnp.ones(shape, dtype) for shape in ((), 3) for dtype in ("float32", "bfloat16")] + [np.float32(1)]
    assert finite.all_finite(sound)
    assert not finite.all_finite([*sound, jnp.array(jnp.nan)])
    bad: list[Any] = [*sound, np.float32("nan")]
    assert not finite.all_finite(bad)


def test_to_look_once_at_a_small_array_compiles_nothing(accelerator):
    assert [finite.state(jnp.full(size, jnp.nan)) for size in range(1, 20)] == [finite.NAN] * 19
    assert EACH._cache_size() == 0
    assert finite.state(jnp.full(finite._READ, jnp.inf)) == finite.INF
    assert EACH._cache_size() == 1


APART = """
import json
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from nandetect.guarding import finite

finite._is_on_host = lambda leaf: not isinstance(leaf, jax.Array)
devices = jax.devices()
bad = jnp.arange(4.0).at[3].set(jnp.nan)
meshes = [Mesh(np.array(devices), ("d",)), Mesh(np.array(devices[::-1]), ("d",)), Mesh(np.array(devices[:2]), ("d",))]
arrays = [jax.device_put(x, device) for device in devices[:2] for x in (jnp.ones(4), bad)]
arrays += [jax.device_put(x, NamedSharding(mesh, spec)) for mesh in meshes for spec in (P("d"), P()) for x in (jnp.ones(4), bad)]
answers = []
# As it is, and as if each array were spread over processes: then its shards are looked at one by one.
for finite._parts in (finite._parts, lambda leaf: [shard.data for shard in leaf.addressable_shards]):
    sound = arrays[::2]
    answers.append([finite.states(arrays), finite.all_finite(sound), [finite.all_finite([*sound, one]) for one in arrays[1::2]]])
print(json.dumps(answers))
"""


def test_arrays_on_different_devices_are_looked_at_in_one_call():
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", APART], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    for states, sound, spoilt in json.loads(done.stdout):
        assert states == [finite.FINITE, finite.NAN] * 8
        assert sound
        assert spoilt == [False] * 8
