"""What `nandetect run` takes of whole programs: each is started plainly and under it, in turns, and the times from start to end compared.

    python benchmarks/run_overhead.py [--rounds 5] [--only mlp]

All train the same MLP on random data, in processes of their own: `mlp`, a jitted step of a millisecond or two on numpy batches, with an
evaluation now and then that is not jitted; `short`, a jitted step of a fraction of a millisecond, its batch indexed on the device and its
loss read each time; `eager`, a jitted gradient whose update is done operation by operation. `start` imports JAX, and ends.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import ratios, spread

MODEL = """
import jax, jax.numpy as jnp, numpy as np

random = np.random.default_rng(0)
sizes = [{width}] * 3 + [10]
params = [(jnp.asarray(random.normal(size=(m, n)) * (2 / m) ** 0.5, jnp.float32), jnp.zeros(n)) for m, n in zip(sizes, sizes[1:])]
xs, labels = random.normal(size=(4096, {width})).astype(np.float32), random.integers(10, size=4096)

def logits(params, x):
    for w, b in params[:-1]:
        x = jax.nn.relu(x @ w + b)
    return x @ params[-1][0] + params[-1][1]

def loss(params, x, label):
    return -jnp.mean(jax.nn.log_softmax(logits(params, x))[jnp.arange(len(label)), label])

@jax.jit
def step(params, x, label):
    value, grads = jax.value_and_grad(loss)(params, x, label)
    return jax.tree.map(lambda p, g: p - 1e-3 * g, params, grads), value
"""
PROGRAMS = {
    "start": "import jax",
    "mlp": MODEL.format(width=512)
    + """
for number in range(5000):
    rows = random.integers(4096, size=128)
    params, value = step(params, xs[rows], labels[rows])
    if number % 500 == 0:
        print(number, value, jnp.mean(jnp.argmax(logits(params, xs), 1) == labels))
""",
    "short": MODEL.format(width=64)
    + """
xs, labels = jnp.asarray(xs), jnp.asarray(labels)
for number in range(10000):
    rows = random.integers(4096, size=64)
    params, value = step(params, xs[rows], labels[rows])
    if number % 1000 == 0 or value.item() > 100:
        print(number, value)
""",
    "eager": MODEL.format(width=64)
    + """
gradient = jax.jit(jax.grad(loss))
for number in range(2000):
    rows = random.integers(4096, size=256)
    grads = gradient(params, xs[rows], labels[rows])
    params = [(w - 1e-3 * dw, b - 1e-3 * db) for (w, b), (dw, db) in zip(params, grads)]
""",
}


def taken(command: list[str]) -> float:
    """The seconds from a process's start to its end."""
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=PROGRAMS)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        for name in [asked.only] if asked.only else PROGRAMS:
            file = Path(directory) / f"{name}.py"
            file.write_text(PROGRAMS[name])
            plain, watched, again = [], [], []
            for _ in range(asked.rounds):
                plain.append(taken([sys.executable, str(file)]))
                watched.append(taken([sys.executable, "-m", "nandetect", "run", str(file)]))
                again.append(taken([sys.executable, str(file)]))
            under, noise = spread(ratios(watched, plain)), spread(ratios(again, plain))
            print(f"{name}: {spread(plain, ' s')}; under nandetect run {under}; plain again {noise}")


if __name__ == "__main__":
    main()
