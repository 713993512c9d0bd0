"""How often the init audit cries wolf over correct kernels, how often it sees each mistake, and how often it names it.

    python benchmarks/init_audit.py [--draws 10]

Every kernel is audited by itself, as one parameter of a dict: once from its shape alone, and once with a program around it that says what
follows it. A share of right causes counts the kernels that were flagged with the mistake among the causes that were named; "alone" is where
it was the only one. Some mistakes draw, in some shapes, what a right scheme draws (He's with fan-out, of a kernel with twice as many
outputs, is LeCun's): those are marked, and counted apart.
"""

from __future__ import annotations

import argparse
import zlib
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import initializers

import nandetect as nd

SHAPES = ((16, 16), (64, 10), (64, 64), (784, 256), (256, 784), (512, 512), (128, 40), (3, 3, 16, 32), (5, 5, 1, 32))
CUT = 0.87962566
Draw = Callable[[jax.Array, tuple[int, ...]], jax.Array]


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    window = int(np.prod(shape[:-2]))
    return window * shape[-2], window * shape[-1]


def normal(std: Callable[[int, int], float]) -> Draw:
    return lambda key, shape: jax.random.normal(key, shape) * std(*fans(shape))


def uniform(bound: Callable[[int, int], float]) -> Draw:
    return lambda key, shape: jax.random.uniform(key, shape, minval=-1, maxval=1) * bound(*fans(shape))


def truncated(std: Callable[[int, int], float]) -> Draw:
    return lambda key, shape: jax.random.truncated_normal(key, -2, 2, shape) * std(*fans(shape))


# Name -> (how it is drawn, before which nonlinearity it is right).
CORRECT: dict[str, tuple[Draw, str]] = {
    "he normal": (initializers.he_normal(), "relu"),
    "he uniform": (initializers.he_uniform(), "relu"),
    "lecun normal": (initializers.lecun_normal(), "tanh"),
    "glorot normal": (initializers.glorot_normal(), "tanh"),
    "glorot uniform": (initializers.glorot_uniform(), "sigmoid"),
    "lecun uniform": (initializers.lecun_uniform(), "gelu"),
    "he, not truncated": (normal(lambda m, n: (2 / m) ** 0.5), "relu"),
    "lecun, not truncated": (normal(lambda m, n: (1 / m) ** 0.5), "silu"),
    "orthogonal": (initializers.orthogonal(2**0.5), "relu"),
    "orthogonal, gain 1": (initializers.orthogonal(), "tanh"),
    "torch's default": (uniform(lambda m, n: 1 / m**0.5), "tanh"),
    "haiku's default": (truncated(lambda m, n: 1 / m**0.5), "tanh"),
    "GPT-2": (normal(lambda m, n: 0.02), "gelu"),
    "muP hidden": (normal(lambda m, n: 1 / m**0.5), "gelu"),
}
# Name -> (how it is drawn, before which nonlinearity, the words of the cause, whether the shape alone can tell).
MISTAKES: dict[str, tuple[Draw, str, str, bool]] = {
    "missing sqrt, He": (normal(lambda m, n: 2 / m), "relu", "missing sqrt", True),
    "missing sqrt, LeCun": (normal(lambda m, n: 1 / m), "tanh", "missing sqrt", True),
    "missing sqrt, Glorot": (normal(lambda m, n: 2 / (m + n)), "tanh", "missing sqrt", True),
    "2/sqrt(m*n)": (normal(lambda m, n: 2 / (m * n) ** 0.5), "relu", "`2/sqrt(m*n)`", True),
    "fan-out for fan-in, He": (normal(lambda m, n: (2 / n) ** 0.5), "relu", "fan-out for fan-in", True),
    "fan-out for fan-in, LeCun": (normal(lambda m, n: (1 / n) ** 0.5), "tanh", "fan-out for fan-in", True),
    "swapped axes": (lambda key, shape: _swapped(key, shape), "relu", "swapped axes", True),
    "std 1": (normal(lambda m, n: 1.0), "relu", "std 1", True),
    "LeCun for ReLU": (normal(lambda m, n: (1 / m) ** 0.5), "relu", "LeCun for ReLU", False),
    "uncorrected truncation": (truncated(lambda m, n: (2 / m) ** 0.5), "relu", "uncorrected truncation", True),
    "std as a uniform's bound": (uniform(lambda m, n: (2 / m) ** 0.5), "relu", "uniform's bound", True),
    "uniform from 0 to 1": (lambda key, shape: jax.random.uniform(key, shape), "relu", "not centred", True),
    "zeros": (lambda key, shape: jnp.zeros(shape), "relu", "zeros", True),
    "duplicated rows": (lambda key, shape: _doubled(key, shape), "relu", "duplicated", True),
    "float16 underflow": (lambda key, shape: (jax.random.normal(key, shape) * 1e-5).astype(jnp.float16), "relu", "underflow", True),
}


def _swapped(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """He's initialiser told that the last axis but one is the outputs'."""
    return initializers.he_normal(in_axis=-1, out_axis=-2)(key, shape)


def _doubled(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Half of the rows drawn, and all of them twice."""
    m, _ = fans(shape)
    half = jax.random.normal(key, (-(-m // 2), shape[-1])) * (2 / m) ** 0.5
    return jnp.concatenate([half, half])[:m].reshape(shape)


FOLLOWS = {
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
}


def programmed(kernel: jax.Array, follows: str) -> list[nd.Finding]:
    """The findings on a kernel whose product goes into a nonlinearity, as a program says."""
    if kernel.ndim == 2:
        inputs = jax.random.normal(jax.random.key(1), (8, kernel.shape[0]))

        def product(kernel, x):
            return x @ kernel
    else:
        inputs = jax.random.normal(jax.random.key(1), (2, 8, 8, kernel.shape[2]))

        def product(kernel, x):
            return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def apply(params, x):
        return FOLLOWS[follows](product(params["w"], x.astype(kernel.dtype)))

    return nd.audit_init({"w": kernel}, apply, inputs)


def told(findings: list[nd.Finding]) -> list[nd.Finding]:
    """What is said of the kernel itself, and is more than a note."""
    return [one for one in findings if one.severity != "note" and one.rule.startswith("init-")]


def draws(draw: Draw, name: str, shape: tuple[int, ...], count: int) -> Iterator[jax.Array]:
    for number in range(count):
        yield draw(jax.random.key(zlib.crc32(f"{name} {shape} {number}".encode())), shape)


def correct(count: int) -> None:
    print(f"{'correct kernels':28}{'kernels':>9}{'false alarms':>14}{'with a program':>16}")
    totals = [0, 0, 0]
    for name, (draw, follows) in CORRECT.items():
        alone = beside = seen = 0
        for shape in SHAPES:
            for number, kernel in enumerate(draws(draw, name, shape, count)):
                seen += 1
                alone += bool(nd.audit_init({"w": kernel}))
                # GPT-2's 0.02 belongs to nets that normalise: by itself, only its shape is judged.
                if number < 2:
                    beside += bool(told(programmed(kernel, follows)))
        print(f"{name:28}{seen:>9,}{alone:>14}{beside:>16}")
        totals = [total + one for total, one in zip(totals, (seen, alone, beside), strict=True)]
    print(f"{'all':28}{totals[0]:>9,}{totals[1]:>14}{totals[2]:>16}\n")


def mistakes(count: int) -> None:
    """A line for each mistake and shape in which it makes a difference of 1.25 in the variance."""
    print(f"{'mistake':28}{'shape':>18}{'ratio':>8}   from the shape: found / right / alone   with a program      also right as")
    sums = {"": [0] * 8, "like no right scheme, ": [0] * 8}
    for name, (draw, follows, cause, by_shape) in MISTAKES.items():
        for shape in SHAPES:
            kernels = list(draws(draw, name, shape, count))
            wanted = (2 if follows == "relu" else 1) / fans(shape)[0]
            drawn = float(np.mean(np.square(np.asarray(kernels, np.float64))))
            ratio = drawn / wanted
            odd = name in ("zeros", "duplicated rows", "uniform from 0 to 1")
            if kernels[0].size < 640 or (not odd and max(ratio, 1 / max(ratio, 1e-12)) < 1.25):
                continue
            alone = _shares([told(nd.audit_init({"w": kernel})) for kernel in kernels], cause)
            beside = _shares([told(programmed(kernel, follows)) for kernel in kernels[:3]], cause)
            shown = f"{alone[0]:>5}/{alone[1]}/{alone[2]} of {alone[3]}" if by_shape else f"{'-':>5}"
            like = "" if odd or not by_shape else _twin(drawn, shape)
            print(f"{name:28}{shape!s:>18}{ratio:>8.3g}   {shown:36}{beside[0]:>5}/{beside[1]}/{beside[2]} of {beside[3]:<8}{like:>8}")
            counts = (*(alone if by_shape else (0, 0, 0, 0)), *beside)
            for which in sums if not like else [""]:
                sums[which] = [total + one for total, one in zip(sums[which], counts, strict=True)]
    for which, totals in sums.items():
        for title, (found, right, only, of) in (("from the shape", totals[:4]), ("with a program", totals[4:])):
            causes = f"{right / max(found, 1):.1%} with the right cause, {only / max(found, 1):.1%} alone"
            print(f"{which}{title}: {found} of {of} found, {found / of:.1%}; of those {causes}")


def _twin(variance: float, shape: tuple[int, ...]) -> str:
    """The scheme that draws this shape with the same variance, as far as so many weights could tell; every one comes in every form."""
    m, n = fans(shape)
    schemes = {"He": 2 / m, "LeCun": 1 / m, "Glorot": 2 / (m + n)}
    return next((name for name, right in schemes.items() if abs(np.log(variance / right)) < 4 * (2 / np.prod(shape)) ** 0.5), "")


def _shares(found: list[list[nd.Finding]], cause: str) -> tuple[int, int, int, int]:
    flagged = [findings for findings in found if findings]
    right = [findings for findings in flagged if any(cause in one.cause for one in findings)]
    only = [findings for findings in right if all(" or " not in one.cause.replace("or swapped", "") for one in findings)]
    return len(flagged), len(right), len(only), len(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=13, help="kernels of each scheme and shape")
    options = parser.parse_args()
    correct(options.draws)
    mistakes(options.draws)


if __name__ == "__main__":
    main()
