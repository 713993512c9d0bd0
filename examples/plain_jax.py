"""A classifier in plain JAX, its step guarded by nandetect.

python examples/plain_jax.py            # trains, prints one line
python examples/plain_jax.py --break    # takes the logarithm of a softmax: prints the report, exits 1
"""

import sys

import jax
import jax.numpy as jnp

import nandetect as nd


def cross_entropy(logits, labels):
    return -jnp.mean(jnp.sum(labels * jax.nn.log_softmax(logits), axis=-1))


def broken_cross_entropy(logits, labels):
    probs = jax.nn.softmax(logits)
    return -jnp.mean(jnp.sum(labels * jnp.log(probs), axis=-1))  # <-- origin


def main():
    entropy = broken_cross_entropy if "--break" in sys.argv else cross_entropy

    def loss_of(params, x, labels):
        hidden = jax.nn.relu(x @ params["w1"] + params["b1"])
        return entropy(hidden @ params["w2"] + params["b2"], labels)

    @jax.jit
    def step(params, x, labels):
        loss, grads = jax.value_and_grad(loss_of)(params, x, labels)
        return jax.tree.map(lambda p, g: p - 1e-3 * g, params, grads), loss

    step = nd.guard(step)

    # Pixels from 0 to 255, as they come out of a file: the logits are some hundreds apart.
    key_x, key_1, key_2 = jax.random.split(jax.random.key(0), 3)
    x = jnp.round(jax.random.uniform(key_x, (256, 20), maxval=255))
    labels = jax.nn.one_hot(jnp.argmax(x[:, :4], axis=-1), 4)
    params = {"w1": jax.random.normal(key_1, (20, 32)) * (2 / 20) ** 0.5, "b1": jnp.zeros(32)}
    params |= {"w2": jax.random.normal(key_2, (32, 4)) * (2 / 32) ** 0.5, "b2": jnp.zeros(4)}

    try:
        for _ in range(300):
            params, loss = step(params, x, labels)
        step.flush()
    except nd.NonFiniteError as error:
        print(error.report)
        return 1
    print(f"plain JAX: loss {loss:.3f} after 300 steps")
    return 0


if __name__ == "__main__":
    sys.exit(main())
