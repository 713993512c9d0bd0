"""A map to the plane in flax nnx that keeps the distances between points, its step guarded by nandetect.

python examples/flax_nnx.py            # trains, prints one line
python examples/flax_nnx.py --break    # differentiates a root at zero: prints the report, exits 1
"""

import sys

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import nandetect as nd


def distances(points):
    squared = jnp.sum((points[:, None] - points[None, :]) ** 2, axis=-1)
    # A point is at distance 0 from itself, where the root has no derivative: it is never taken there.
    apart = squared > 0
    return jnp.where(apart, jnp.sqrt(jnp.where(apart, squared, 1.0)), 0.0)


def broken_distances(points):
    squared = jnp.sum((points[:, None] - points[None, :]) ** 2, axis=-1)
    return jnp.sqrt(squared)  # <-- origin


class Embedding(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.Linear(8, 32, rngs=rngs)
        self.out = nnx.Linear(32, 2, rngs=rngs)

    def __call__(self, x):
        return self.out(nnx.relu(self.hidden(x)))


def main():
    measure = broken_distances if "--break" in sys.argv else distances

    @nnx.jit
    def step(model, optimizer, x):
        loss, grads = nnx.value_and_grad(lambda model: jnp.mean((measure(model(x)) - distances(x)) ** 2))(model)
        optimizer.update(model, grads)
        return loss

    step = nd.guard(step)

    model = Embedding(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)
    key_plane, key_x = jax.random.split(jax.random.key(0))
    x = jax.random.normal(key_x, (64, 2)) @ jax.random.normal(key_plane, (2, 8))

    try:
        for _ in range(200):
            loss = step(model, optimizer, x)
        step.flush()
    except nd.NonFiniteError as error:
        print(error.report)
        return 1
    print(f"flax nnx: loss {loss:.3f} after 200 steps")
    return 0


if __name__ == "__main__":
    sys.exit(main())
