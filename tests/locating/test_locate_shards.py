"""Sharded steps on eight virtual devices: the shard that holds the element is named. In a fresh process, since JAX counts devices once."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

PROGRAM = """
import json, sys
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
import nandetect as nd

mesh = Mesh(np.array(jax.devices()), ("d",))
rows = np.ones((16, 3), np.float32)
rows[10] = 0


def local(w, x):
    y = jnp.log(jnp.abs(x @ w))  # <-- log
    return jax.lax.psum(jnp.sum(y), "d")


def rooted(w, x):
    total = jax.lax.psum(x @ w, "d")
    return jnp.sqrt(jnp.abs(total)).sum()  # <-- sqrt


counted = jax.jit(lambda rows: (rows, 3))


def with_a_count(w, x):
    rows, count = counted(x)
    return jax.lax.psum(jnp.log(jnp.abs(rows @ w)).sum(), "d") * count  # <-- log


def overflowing(w, x):
    return jax.lax.psum(jnp.exp(88.5 * jnp.max(x)), "d")  # <-- psum


def mapped(function):
    return jax.shard_map(function, mesh=mesh, in_specs=(P(), P("d")), out_specs=P())


def mapped_by_pmap(w, x):
    return jax.pmap(with_a_count, axis_name="d", in_axes=(None, 0))(w, x.reshape(8, 2, 3))


def told(step, *args):
    origin = nd.locate(step, *args).origin
    return [origin.primitive, origin.phase, origin.source.code.split("<-- ")[-1], origin.context, origin.index, origin.operands[-1].value]


def cause(step, *args):
    return [[event.primitive, event.reason] for event in nd.locate(step, *args).cause][:1]


spread = jax.device_put(jnp.asarray(rows), NamedSharding(mesh, P("d", None)))
print(json.dumps({
    "forward": told(jax.jit(mapped(local)), jnp.ones(3), rows),
    "with gradients": told(jax.jit(jax.value_and_grad(mapped(local))), jnp.ones(3), rows),
    "across a psum": told(jax.jit(jax.grad(mapped(rooted))), jnp.zeros(3), rows),
    "an overflow in a psum": cause(jax.jit(mapped(overflowing)), jnp.ones(3), np.ones((16, 3), np.float32)),
    "a number of Python's": told(jax.jit(mapped(with_a_count)), jnp.ones(3), rows),
    "a number of Python's under pmap": nd.locate(mapped_by_pmap, jnp.ones(3), rows).origin.value,
    "named sharding": told(jax.jit(jax.value_and_grad(lambda w, x: jnp.mean(jnp.log(jnp.abs(x @ w))))), jnp.ones(3), spread)[:1]
    + told(jax.jit(lambda w, x: jnp.mean(jnp.log(jnp.abs(x @ w)))), jnp.ones(3), spread)[3:],
}))
"""


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    file = tmp_path_factory.mktemp("sharded") / "program.py"
    file.write_text(PROGRAM)
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, str(file)], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# Row 10 of 16 over 8 devices is the first of the two rows of device 5.
@pytest.mark.parametrize("step", ["forward", "with gradients"])
def test_shard_of_a_shard_map_is_named(reports, step):
    assert reports[step] == ["log", "forward", "log", [["shard", 5]], [0], 0.0]


def test_backward_of_a_shard_map_with_a_psum_is_on_its_line(reports):
    primitive, phase, line, context, _, _ = reports["across a psum"]
    assert (primitive, phase, line) == ("div", "backward", "sqrt")
    assert [name for name, _ in context] == ["shard"]


def test_an_overflow_in_a_psum_has_what_was_summed_for_its_cause(reports):
    ((primitive, reason),) = reports["an overflow in a psum"]
    assert primitive == "exp" and reason.startswith("grows to 2.7")


def test_device_of_an_element_of_a_sharded_array_is_named(reports):
    assert reports["named sharding"] == ["log", [["shard", 5]], [10], 0.0]


def test_a_number_that_python_wrote_comes_out_of_an_inner_jit_of_a_shard(reports):
    assert reports["a number of Python's"] == ["log", "forward", "log", [["shard", 5]], [0], 0.0]
    assert reports["a number of Python's under pmap"] in ("inf", "-inf")
