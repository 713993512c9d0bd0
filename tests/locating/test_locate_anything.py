"""Programs of unusual make: whatever JAX runs is looked into, and the line is found."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from jax import lax


def test_a_scan_of_no_rows_hands_on_what_it_was_given(find, xs):
    @jax.jit
    def f(x):
        start = jnp.log(x[1])  # <-- origin
        return lax.scan(lambda total, row: (total + jnp.exp(row), total), start, jnp.zeros(0))[0]

    assert find(f, xs).origin.context == ()


@pytest.mark.skipif(not hasattr(jax, "new_ref"), reason="this JAX has no jax.new_ref")
def test_what_is_written_into_a_mutable_array_is_followed(find, xs):
    @jax.jit
    def f(x):
        total = jax.new_ref(jnp.zeros(()))

        def add(_, row):
            total[...] = total[...] + jnp.log(row)  # <-- origin
            return _, None

        lax.scan(add, None, x)
        return total[...]

    origin = find(f, xs).origin
    assert (origin.primitive, origin.context) == ("log", (("scan", 1),))
