"""One table says all that is known of primitives: every one that JAX registers is in it, and no other module keeps a list."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import nandetect
import nandetect as nd
from nandetect import primitives
from nandetect.interpret.movement import MOVES
from nandetect.locating.trail import use_of
from nandetect.primitives import Depends, Use
from nandetect.primitives.table import BY_NAME, DEFAULT_PREFIXES, INSIDE_KERNELS, LEFT_TO_THE_DEFAULT

PACKAGE = Path(nandetect.__file__).parent
# What a program must import for JAX to register all of its primitives.
REGISTERING = [
    "jax.experimental.custom_partitioning",
    "jax.experimental.multihost_utils",
    "jax.experimental.pallas",
    "jax.experimental.sparse",
    "jax.experimental.shard_map",
    "jax.ffi",
    "jax.nn",
    "jax.random",
    "jax.scipy.fft",
    "jax.scipy.linalg",
    "jax.scipy.special",
]


def registered() -> set[str]:
    """The names of all primitives that JAX makes; in a process of its own, since other libraries make some too."""
    program = f"""
import gc, importlib
for module in {REGISTERING}:
    importlib.import_module(module)
from jax.extend.core import Primitive
print(*sorted({{item.name for item in gc.get_objects() if isinstance(item, Primitive)}}))
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(ended.stdout.split())


def test_every_primitive_that_jax_registers_is_in_the_table_or_left_to_the_default():
    unknown = registered() - BY_NAME.keys() - LEFT_TO_THE_DEFAULT - INSIDE_KERNELS
    unknown = {name for name in unknown if not name.startswith(DEFAULT_PREFIXES)}
    assert not unknown, (
        f"new in this JAX: give each a record in nandetect/primitives/table.py, or leave it to the default: {sorted(unknown)}"
    )


def test_what_is_left_to_the_default_has_no_record():
    assert not BY_NAME.keys() & (LEFT_TO_THE_DEFAULT | INSIDE_KERNELS)


def test_every_name_of_a_primitive_has_the_one_record():
    for record in BY_NAME.values():
        assert {primitives.named(name) for name in record.names} == {record}


def test_what_moves_has_a_function_that_moves():
    assert {name for name, record in BY_NAME.items() if record.depends is Depends.MOVED} == set(MOVES)


NAMES = set(BY_NAME) | LEFT_TO_THE_DEFAULT


def names_in(node: ast.AST) -> list[str]:
    """The primitives that a set, a tuple, a list, or the text that is split into one, names."""
    if isinstance(node, (ast.Set, ast.Tuple, ast.List)):
        texts = [item.value for item in node.elts if isinstance(item, ast.Constant) and isinstance(item.value, str)]
        return texts if len(texts) == len(node.elts) else []
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value.split()
    return []


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_no_other_module_keeps_a_list_of_primitives(file):
    # A pattern of a hazard is a shape that primitives make: to name them is all it does.
    if file == PACKAGE / "primitives" / "table.py" or file.parent == PACKAGE / "fixing" / "patterns":
        return
    # A complex number's parts are called like the primitives that take them.
    nodes = ast.walk(ast.parse(file.read_text()))
    kept = [(names, node.lineno) for node in nodes if isinstance(node, ast.expr) and len(names := names_in(node)) > 1]
    assert not [(names, line) for names, line in kept if NAMES.issuperset(names) and set(names) != {"real", "imag"}]


@pytest.mark.parametrize("reduction", [lax.max, lax.min])
@pytest.mark.parametrize("filling", [jnp.inf, -jnp.inf, 0.0])
def test_a_pool_over_cells_that_were_not_tried_is_no_fault(reduction, filling):
    # With 0 the window has no reducer of its own in XLA: the function that it carries says what it does.
    def pooled(best):
        return lax.reduce_window(best, filling, reduction, (2,), (2,), "VALID")

    assert nd.locate(jax.jit(pooled), jnp.array([jnp.inf, -jnp.inf, 1.0, 2.0])) is None


def test_a_window_that_sums_an_inf_is_a_fault():
    def pooled(x):
        return lax.reduce_window(x, 0.0, lax.add, (2,), (2,), "VALID")

    report = nd.locate(jax.jit(pooled), jnp.array([jnp.inf, -jnp.inf, 1.0, 2.0]))
    assert report is not None


@pytest.mark.parametrize(
    "arrange", [lambda x: jnp.stack([x, x]), lambda x: jnp.tile(x, 3), lambda x: jnp.unstack(x)[1]], ids=["stack", "tile", "unstack"]
)
def test_an_inf_that_is_only_arranged_anew_is_state(arrange):
    assert nd.locate(jax.jit(arrange), jnp.array([jnp.inf, -jnp.inf, 1.0])) is None


def test_a_reduction_by_a_function_of_ones_own_does_what_that_function_does():
    def use(function):
        (eqn,) = jax.make_jaxpr(lambda x: lax.reduce(x, jnp.float32(0), function, (0,)))(np.zeros(3, np.float32)).eqns
        return eqn.primitive.name, use_of(eqn)

    assert use(lambda x, y: lax.max(x, y)) in [("reduce", Use.MOVED), ("reduce_max", Use.MOVED)]
    assert use(lambda x, y: x * y + x)[1] is Use.COMPUTED
