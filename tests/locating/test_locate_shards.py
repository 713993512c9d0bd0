"""Sharded steps on eight virtual devices: the shard that holds the element is named. In a fresh process, since JAX counts devices once."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

PROGRAM = """
import json, sys
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
import nandetect as nd
from nandetect import effects

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


def mine(shard):
    return jax.lax.axis_index("d") == shard


def looping(w, x):
    # Shard 5 alone takes the first branch, in iteration 2, with what all shards carried there.
    def body(carry, i):
        total = jax.lax.psum(carry, "d")
        gap = jax.lax.cond(mine(5) & (i == 2), lambda c: jnp.log(c - total).sum(), lambda c: 0.0 * c.sum(), carry)  # <-- cond
        return carry + 1.0, gap

    return jax.lax.psum(jax.lax.scan(body, (x @ w)[:1], jnp.arange(4))[1].sum(), "d")


def uneven(w, x):
    # Each shard goes on for another while; shard 3 for four iterations, of which the last breaks.
    def body(state):
        count, value = state
        return count + 1, jnp.sqrt(value + 2.0 - 10.0 * (count == 3))  # <-- while

    number = jax.lax.axis_index("d")
    value = jax.lax.while_loop(lambda state: state[0] <= jnp.minimum(number, 3), body, (number * 0, (x @ w)[:1]))[1]
    return jax.lax.psum(jnp.where(mine(3), value, 0.0).sum(), "d")


def rooting(w, x):
    def body(carry, i):
        return carry + jnp.sqrt((w[0] * carry) ** 2 * (1.0 - mine(6) * (i == 1))), None  # <-- scan of roots

    return jax.lax.psum(jax.lax.scan(body, jnp.ones(2) * x[0, 0] + 1.0, jnp.arange(3))[0].sum(), "d")


def twice(w, x):
    def body(carry, i):
        return carry, jnp.log(carry - 9.0 * mine(2) * (i == 1)) + 1.0 / (carry * (1.0 - mine(4)))

    return jax.lax.psum(jax.lax.scan(body, x[0] @ w + 1.0, jnp.arange(3))[1].sum(), "d")


def gathered(w, x):
    ring = [(shard, (shard + 1) % 8) for shard in range(8)]
    return jax.lax.psum(jnp.log(jax.lax.all_gather(jax.lax.ppermute(x @ w, "d", ring), "d")).sum(), "d")


def chosen(w, x):
    return jax.lax.psum(jnp.where(x[:, 0] > 0.5, x[:, 0], jnp.nan).sum(), "d")


def taken(w, x):
    return jax.lax.psum(jnp.take(x[0], jnp.arange(2) + 7 * mine(6), mode="fill").sum(), "d")


def written(w, x):
    # The loss reads the first row alone, the gradient multiplies all of them by 0.
    rows = (jnp.zeros((2, 3)) * jnp.nan).at[0].set(x[0])  # <-- written
    return jax.lax.psum(jnp.sum((rows * w)[0]), "d")


def mapped(function, **options):
    return jax.shard_map(function, mesh=mesh, in_specs=(P(), P("d")), out_specs=P(), **options)


def mapped_by_pmap(w, x):
    return jax.pmap(with_a_count, axis_name="d", in_axes=(None, 0))(w, x.reshape(8, 2, 3))


def told(step, *args):
    origin = nd.locate(step, *args).origin
    return [origin.primitive, origin.phase, origin.source.code.split("<-- ")[-1], origin.context, origin.index, origin.operands[-1].value]


def at_fault(step, *args):
    report = nd.locate(step, *args)
    return [report.origin.primitive, report.origin.context[0], [event.primitive for event in report.others]]


def cause(step, *args):
    return [[event.primitive, event.reason] for event in nd.locate(step, *args).cause][:1]


def under_a_set_mesh():
    with getattr(jax, "set_mesh", lambda mesh: mesh)(mesh):
        return told(jax.jit(jax.shard_map(local, in_specs=(P(), P("d")), out_specs=P(), **given)), jnp.ones(3), rows)


def waited_for():
    rows = jax.device_put(jnp.ones((1600, 1600)), NamedSharding(mesh, P("d", None)))
    return [value.is_ready() for value in effects.settled([jax.jit(lambda x: x @ x.T @ x)(rows)])]


given = {} if hasattr(jax, "set_mesh") else {"mesh": mesh}
spread = jax.device_put(jnp.asarray(rows), NamedSharding(mesh, P("d", None)))
print(json.dumps({
    "forward": told(jax.jit(mapped(local)), jnp.ones(3), rows),
    "with gradients": told(jax.jit(jax.value_and_grad(mapped(local))), jnp.ones(3), rows),
    "across a psum": told(jax.jit(jax.grad(mapped(rooted))), jnp.zeros(3), rows),
    "a branch in a loop": told(jax.jit(jax.value_and_grad(mapped(looping, check_vma=False))), jnp.ones(3), rows),
    "uneven loops": told(jax.jit(mapped(uneven)), jnp.ones(3), rows),
    "backward in a loop": told(jax.jit(jax.grad(mapped(rooting))), jnp.ones(3), rows),
    "a placeholder": told(jax.jit(jax.value_and_grad(mapped(written))), jnp.ones(3), rows)[:4],
    "at fault beside": at_fault(jax.jit(mapped(twice)), jnp.ones(3), rows),
    "a mesh that is set": under_a_set_mesh(),
    "reasons": [nd.locate(jax.jit(mapped(step)), jnp.ones(3), rows).origin.reason for step in (chosen, taken)],
    "a zero of another shard": cause(jax.jit(mapped(gathered)), jnp.ones(3), rows),
    "an overflow in a psum": cause(jax.jit(mapped(overflowing)), jnp.ones(3), np.ones((16, 3), np.float32)),
    "a number of Python's": told(jax.jit(mapped(with_a_count)), jnp.ones(3), rows),
    "a number of Python's under pmap": nd.locate(mapped_by_pmap, jnp.ones(3), rows).origin.value,
    "waited for": waited_for(),
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
@pytest.mark.parametrize("step", ["forward", "with gradients", "a mesh that is set"])
def test_shard_of_a_shard_map_is_named(reports, step):
    assert reports[step] == ["log", "forward", "log", [["shard", 5]], [0], 0.0]


def test_backward_of_a_shard_map_with_a_psum_is_on_its_line(reports):
    primitive, phase, line, context, _, _ = reports["across a psum"]
    assert (primitive, phase, line) == ("div", "backward", "sqrt")
    assert [name for name, _ in context] == ["shard"]


def test_a_branch_that_one_shard_takes_in_an_iteration_of_a_loop_is_entered(reports):
    # Each shard carries the sum of its first row, which is 3 but 0 on shard 5, and one more after each iteration.
    gap = 2.0 - (7 * 3.0 + 8 * 2.0)
    assert reports["a branch in a loop"] == ["log", "forward", "cond", [["shard", 5], ["scan", 2], ["cond", 1]], [0], gap]


def test_a_loop_that_goes_on_longer_on_some_shards_is_told_at_the_iteration_of_its_shard(reports):
    value = np.float64(3.0)
    for _ in range(3):
        value = np.sqrt(value + 2.0)
    primitive, phase, line, context, index, operand = reports["uneven loops"]
    assert (primitive, phase, line, context, index) == ("sqrt", "forward", "while", [["shard", 3], ["while", 3]], [0])
    assert operand == pytest.approx(value - 8.0, rel=1e-6)


def test_the_derivative_of_an_iteration_on_a_shard_is_told_there(reports):
    assert reports["backward in a loop"] == ["div", "backward", "scan of roots", [["shard", 6], ["scan", 1]], [0], 0.0]


def test_a_literal_that_only_a_gradient_meets_on_the_shards_is_told_as_that(reports):
    assert reports["a placeholder"] == ["mul", "backward", "written", [["shard", 0]]]


def test_another_shard_and_iteration_that_break_the_result_too_are_also_at_fault(reports):
    assert reports["at fault beside"] == ["log", ["shard", 2], ["div"]]


def test_why_a_literal_was_chosen_and_which_index_is_out_of_bounds_is_told_of_the_shard(reports):
    assert reports["reasons"] == [
        "written there as a literal: `x[:, 0] > 0.5` is False: 0.0 > 0.5",
        "index 7 is out of bounds for axis 0 of size 3, filled with nan",
    ]


def test_a_zero_that_collectives_moved_is_followed_to_the_shard_that_held_it_and_out_to_the_input(reports):
    assert reports["a zero of another shard"] == [["<input>", "0 in the input"]]


def test_an_overflow_in_a_psum_has_what_was_summed_for_its_cause(reports):
    ((primitive, reason),) = reports["an overflow in a psum"]
    assert primitive == "exp" and reason.startswith("grows to 2.7")


def test_device_of_an_element_of_a_sharded_array_is_named(reports):
    assert reports["named sharding"] == ["log", [["shard", 5]], [10], 0.0]


def test_a_number_that_python_wrote_comes_out_of_an_inner_jit_of_a_shard(reports):
    assert reports["a number of Python's"] == ["log", "forward", "log", [["shard", 5]], [0], 0.0]
    assert reports["a number of Python's under pmap"] in ("inf", "-inf")


def test_what_several_devices_compute_is_waited_for_before_the_next(reports):
    assert reports["waited for"] == [True]
