"""A network in equinox on standardised rows, its step guarded by nandetect.

python examples/equinox_mlp.py            # trains, prints one line
python examples/equinox_mlp.py --break    # meets a blank row, 0 / 0: prints the report, exits 1
"""

import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

import nandetect as nd


class Network(eqx.Module):
    mlp: eqx.nn.MLP
    floor: float

    def __call__(self, x):
        deviation = jnp.std(x) + self.floor
        return self.mlp((x - jnp.mean(x)) / deviation)[0]  # <-- origin


def main():
    optimizer = optax.adam(1e-2)

    @eqx.filter_jit
    def step(model, opt_state, x, y):
        loss, grads = eqx.filter_value_and_grad(lambda model: jnp.mean((jax.vmap(model)(x) - y) ** 2))(model)
        updates, opt_state = optimizer.update(grads, opt_state)
        return eqx.apply_updates(model, updates), opt_state, loss

    step = nd.guard(step)

    key_x, key = jax.random.split(jax.random.key(0))
    # The last row is blank: its deviation is 0.
    x = jax.random.normal(key_x, (256, 8)).at[-1].set(3.0)
    y = jnp.sin(x[:, 0]) * x[:, 1]
    # The bug: nothing keeps the deviation above 0.
    floor = 0.0 if "--break" in sys.argv else 1e-6
    model = Network(eqx.nn.MLP(8, 1, 32, 2, key=key), floor)
    opt_state = optimizer.init(eqx.filter(model, eqx.is_inexact_array))

    try:
        for _ in range(200):
            model, opt_state, loss = step(model, opt_state, x, y)
        step.flush()
    except nd.NonFiniteError as error:
        print(error.report)
        return 1
    print(f"equinox: loss {loss:.3f} after 200 steps")
    return 0


if __name__ == "__main__":
    sys.exit(main())
