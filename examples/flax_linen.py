"""A regression in flax linen that also learns its own uncertainty, with a TrainState whose step is guarded by nandetect.

python examples/flax_linen.py            # trains, prints one line
python examples/flax_linen.py --break    # lets the variance reach 0 some steps on: prints the report, exits 1
"""

import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.training.train_state import TrainState

import nandetect as nd


class Gaussian(nn.Module):
    broken: bool

    @nn.compact
    def __call__(self, x):
        mean, spread = jnp.split(nn.Dense(2)(nn.relu(nn.Dense(32)(x))), 2, axis=-1)
        # Neither is ever negative; but as the fit gets better, only one of them stays above 0.
        variance = nn.relu(spread + 2) if self.broken else nn.softplus(spread) + 1e-6
        return mean, variance


def negative_log_likelihood(mean, variance, y):
    surprise = jnp.log(variance)  # <-- origin
    return 0.5 * jnp.mean(surprise + (y - mean) ** 2 / jnp.maximum(variance, 1e-6))


@nd.guard
@jax.jit
def step(state, x, y):
    def loss_of(params):
        mean, variance = state.apply_fn(params, x)
        return negative_log_likelihood(mean, variance, y)

    loss, grads = jax.value_and_grad(loss_of)(state.params)
    return state.apply_gradients(grads=grads), loss


def main():
    key_x, key_y, key = jax.random.split(jax.random.key(0), 3)
    x = jax.random.uniform(key_x, (256, 1), minval=-2, maxval=2)
    y = jnp.sin(2 * x) + 0.1 * jax.random.normal(key_y, x.shape)

    model = Gaussian(broken="--break" in sys.argv)
    state = TrainState.create(apply_fn=model.apply, params=model.init(key, x), tx=optax.adam(1e-2))

    try:
        for _ in range(200):
            state, loss = step(state, x, y)
        step.flush()
    except nd.NonFiniteError as error:
        print(error.report)
        return 1
    print(f"flax linen: loss {loss:.3f} after 200 steps")
    return 0


if __name__ == "__main__":
    sys.exit(main())
