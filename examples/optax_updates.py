"""What an optimizer made of finite gradients: `optax_health.watch_updates` in the chain, `nd.guard` around the step.

python examples/optax_updates.py            # trains, prints one line
python examples/optax_updates.py --break    # Adam without its eps, 0 / 0: prints the report, exits 1
"""

import sys

import jax
import jax.numpy as jnp
import optax

import nandetect as nd
from nandetect import optax_health


def main():
    eps = 0.0 if "--break" in sys.argv else 1e-8
    optimizer = optax.chain(optax.adam(1e-2, eps=eps), optax_health.watch_updates())

    @jax.jit
    def step(params, opt_state, x, y):
        loss, grads = jax.value_and_grad(lambda params: jnp.mean((x @ params["w"] + params["b"] - y) ** 2))(params)
        updates, opt_state = optimizer.update(grads, opt_state)  # <-- origin
        return optax.apply_updates(params, updates), opt_state, loss

    step = nd.guard(step)

    # The last feature is 0 in every row, so the gradient of its weight is 0 and so are both of Adam's averages.
    x = jax.random.normal(jax.random.key(0), (256, 4)).at[:, -1].set(0.0)
    y = x @ jnp.array([1.0, -2.0, 0.5, 0.0]) + 1.0
    params = {"w": jnp.zeros(4), "b": jnp.zeros(())}
    opt_state = optimizer.init(params)

    try:
        for _ in range(500):
            params, opt_state, loss = step(params, opt_state, x, y)
        step.flush()
    except nd.NonFiniteError as error:
        print(error.report)
        return 1
    print(f"optax: loss {loss:.1e} after 500 steps; updates {optax_health.read(opt_state)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
