"""A small attention layer in haiku, its step guarded by nandetect.

python examples/haiku_attention.py            # trains, prints one line
python examples/haiku_attention.py --break    # writes the softmax by hand: prints the report, exits 1
"""

import sys

import haiku as hk
import jax
import jax.numpy as jnp
import optax

import nandetect as nd


def broken_softmax(scores):
    weights = jnp.exp(scores)  # <-- origin
    return weights / jnp.sum(weights, axis=-1, keepdims=True)


class Attention(hk.Module):
    def __call__(self, x, softmax):
        queries, keys, values = (hk.Linear(16, name=name)(x) for name in ("queries", "keys", "values"))
        # Not divided by the root of 16, as it should be: the scores are some hundreds apart.
        return softmax(queries @ keys.swapaxes(-1, -2)) @ values


def main():
    softmax = broken_softmax if "--break" in sys.argv else jax.nn.softmax
    model = hk.without_apply_rng(hk.transform(lambda x: hk.Linear(1)(Attention()(x, softmax).mean(-2))[..., 0]))
    optimizer = optax.adam(1e-3)

    @jax.jit
    def step(params, opt_state, x, y):
        loss, grads = jax.value_and_grad(lambda params: jnp.mean((model.apply(params, x) - y) ** 2))(params)
        updates, opt_state = optimizer.update(grads, opt_state)
        return optax.apply_updates(params, updates), opt_state, loss

    step = nd.guard(step)

    key_x, key = jax.random.split(jax.random.key(0))
    x = 10 * jax.random.normal(key_x, (32, 6, 8))
    y = jnp.mean(x[..., 0], axis=-1)
    params = model.init(key, x)
    opt_state = optimizer.init(params)

    try:
        for _ in range(300):
            params, opt_state, loss = step(params, opt_state, x, y)
        step.flush()
    except nd.NonFiniteError as error:
        print(error.report)
        return 1
    print(f"haiku: loss {loss:.3f} after 300 steps")
    return 0


if __name__ == "__main__":
    sys.exit(main())
