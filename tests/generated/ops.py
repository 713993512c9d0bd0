"""What generated programs compute: lines that take vectors of four numbers of size one to such vectors, and lines that look like faults.

`{a}` and `{b}` are vectors, `{out}` is the result, `{n}` makes a name unique. Every result stays below about 2 where the operands do, and
so does every derivative, so that a program made of them is finite, with its gradient, however long it is.
"""

from __future__ import annotations

from typing import NamedTuple


class Op(NamedTuple):
    """Lines of source; `dtypes` that it is written for (all where there are none)."""

    text: str
    dtypes: tuple[str, ...] = ()

    def suits(self, dtype: str) -> bool:
        """Whether it can be written in this type."""
        return not self.dtypes or dtype in self.dtypes


FULL = ("float32", "float64")

_ANY = """
jnp.tanh({a} + {b})
jnp.sin({a}) * jnp.cos({b})
0.5 * {a} - 0.25 * {b}
jax.nn.sigmoid({a})
jax.nn.relu({a})
0.5 * jax.nn.gelu({a})
0.5 * jax.nn.silu({b})
jnp.where({a} > 0, {a}, 0.1 * {b})
jnp.maximum({a}, {b})
jnp.minimum({a}, 0.5)
{a} / (1.0 + {b} * {b})
jnp.log1p({a} * {a})
jnp.sqrt(1.0 + {a} * {a}) - 1.0
lax.rsqrt(2.0 + {a} * {b} * 0.1)
jnp.arctan({a})
jnp.arctan2({a}, 3.0 + {b})
0.5 * ({a} - jnp.mean({a}))
0.5 * ({a} - jnp.mean({a})) / jnp.sqrt(jnp.var({a}) + 1.0)
jax.nn.softmax({a}) * {b}
0.25 * jax.nn.log_softmax({a})
0.25 * ({a} - jax.scipy.special.logsumexp({a}))
jnp.cumsum({a}) / 4
jnp.sort({a})
{b}[jnp.argsort({a})]
{a}[::-1]
jnp.roll({a}, 1)
{a}[jnp.array([2, 0, 3, 3])]
jnp.take({a}, jnp.array([0, 1, 1, 3]))
{a}.at[1].set({b}[0])
{a}.at[jnp.array([0, 2])].add(0.1 * {b}[:2])
{a}.at[jnp.array([3, 1])].multiply(0.5)
{a}.at[jnp.argmax({b})].min(0.25)
MATRIX @ {a} / 4
{b} * jnp.dot({a}, {a}) / (1.0 + jnp.dot({a}, {a}))
jnp.einsum("ij,j->i", jnp.tanh(jnp.outer({a}, {b})), {b}) / 4
jnp.convolve({a}, KERNEL, mode="same")
lax.conv_general_dilated({a}[None, None], KERNEL[None, None], (1,), "SAME")[0, 0]
lax.reduce_window({a}, -jnp.inf, lax.max, (2,), (1,), "SAME")
lax.top_k({a}, 4)[0]
jax.ops.segment_sum({a}, jnp.array([0, 1, 1, 0]), 4) / 2
jax.nn.one_hot(jnp.argmax({a}), 4, dtype={a}.dtype) * {b}
lax.cummax({a})
{a} / (1.0 + jnp.linalg.norm({a} + 3.0))
jnp.concatenate([{a}[2:], {b}[:2]])
lax.dynamic_slice(jnp.concatenate([{a}, {b}]), (jnp.argmin({a}),), (4,))
lax.dynamic_update_slice({a}, {b}[:2], (1,))
jnp.prod(jnp.tanh({a})) * {b}
jnp.stack([{a}, {b}]).max(axis=0)
jnp.var({a}) * {b} / 4
{a}.reshape(2, 2).T.reshape(4)
jnp.clip({a}, -1.0, 1.0)
jnp.tanh({a}) ** 3
0.5 * (1.5 + jnp.tanh({a})) ** 0.5
jnp.expm1(-jnp.abs({a}))
jax.scipy.special.erf({a})
jnp.floor({a}) * 0.25 + {b} * 0.5
jnp.sum(({a} > {b}) & ({a} < 1.0)).astype({a}.dtype) * 0.1 * {b}
0.1 * jax.random.normal(jax.random.key(3), (4,), {a}.dtype) * {a}
jnp.select([{a} < -0.5, {a} < 0.5], [{b}, 0.5 * {a}], 0.25)
lax.select({a} > {b}, {a}, {b})
lax.map(lambda v: 0.5 * jnp.sin(v), {a})
jnp.median({a}) * 0.5 + 0.25 * {b}
lax.associative_scan(jnp.maximum, {a})
lax.associative_scan(lambda p, q: 0.5 * (p + q), {a})
jnp.tril(jnp.outer({a}, {b})).sum(axis=1) / 8
jnp.pad({a}, 1)[1:5] * 0.5
jnp.repeat({a}[:2], 2)
jnp.triu(MATRIX, 1) @ {b} / 4
lax.optimization_barrier({a}) * 0.5
jnp.vectorize(lambda p, q: 0.5 * p * q)({a}, {b})
lax.reduce({a}, jnp.asarray(0, {a}.dtype), lax.add, (0,)) * 0.1 * {b}
jnp.where(jnp.any({a} > 1.0), {a}, 0.5 * {b})
"""

_FULL_PRECISION = """
jnp.linalg.solve(3.0 * EYE + 0.2 * jnp.tanh(jnp.outer({a}, {b})), {a})
jnp.linalg.cholesky(EYE + 0.1 * jnp.outer({a}, {a}))[:, 0] * {b}
0.1 * jnp.linalg.inv(3.0 * EYE + 0.2 * jnp.tanh(jnp.outer({a}, {b})))[0] + 0.5 * {b}
0.02 * jnp.linalg.eigvalsh(jnp.diag(jnp.arange(1.0, 5.0, dtype={a}.dtype)) + 0.02 * jnp.outer({a}, {a}))
0.1 * jnp.linalg.slogdet(3.0 * EYE + 0.2 * jnp.tanh(jnp.outer({a}, {b})))[1] * {a}
jax.scipy.linalg.solve_triangular(EYE + 0.1 * jnp.tril(jnp.outer({a}, {b})), {a}, lower=True)
0.5 * jnp.linalg.qr(2.0 * EYE + 0.1 * jnp.tanh(jnp.outer({a}, {b})))[1][0]
jnp.interp({a}, jnp.array([-1.0, 0.0, 1.0], {a}.dtype), jnp.array([0.0, 1.0, 0.5], {a}.dtype))
jnp.real(jnp.exp(1j * {a}))
0.25 * jnp.real(jnp.fft.fft({a}))
jnp.abs(lax.complex(2.0 + 0.5 * jnp.tanh({a}), {b})) * 0.5
0.25 * jnp.imag(lax.complex({a}, {b}) * jnp.conj(lax.complex({b}, {a})))
jax.scipy.special.expit({a}) * 0.5 + 0.25 * {b}
0.1 * jax.scipy.linalg.expm(0.1 * jnp.outer({a}, {b}))[0]
0.5 * jax.pure_callback(np.sin, jax.ShapeDtypeStruct((4,), {a}.dtype), lax.stop_gradient({a}), vmap_method="sequential") + 0.5 * {b}
0.5 * {a} * jax.scipy.special.gammaln(2.0 + 0.5 * jnp.tanh({b}))
"""

OPS = tuple(Op("{out} = " + line, dtypes) for text, dtypes in ((_ANY, ()), (_FULL_PRECISION, FULL)) for line in text.strip().splitlines())

# Values that are not finite and do no harm, in the gradient neither.
LURES = tuple(
    map(
        Op,
        (
            "{out} = jax.nn.softmax(jnp.where(jnp.arange(4) < 3, {a}, -jnp.inf))",
            "{out} = jnp.where({a} > 5.0, jnp.log({a} - 5.0), {a})",
            "guess{n} = lax.stop_gradient(jnp.sqrt({a} - 5.0))\n{out} = jnp.where(jnp.isfinite(guess{n}), guess{n}, {a})",
            "{out} = 0.5 * {a} + 0.1 * lax.fori_loop(0, 3, lambda i, best: jnp.minimum(best, {a}[i]), jnp.asarray(jnp.inf, {a}.dtype))",
            "{out} = 0.1 * jnp.max({a}, initial=-jnp.inf, where=MASK) + 0.5 * {b}",
            "{out} = jnp.nan_to_num(lax.stop_gradient({a} / jnp.zeros_like({a})), posinf=0.5, neginf=-0.5)",
            "{out} = 0.5 * jnp.tanh(lax.stop_gradient(jnp.exp(2000.0 + {a})))",
            "{out} = 0.25 * jax.scipy.special.logsumexp(jnp.where(MASK, {a}, -jnp.inf)) + 0.5 * {b}",
            "masked{n} = jnp.where(MASK, jnp.tanh({a}), -jnp.inf)\n{out} = {b}[jnp.argmax(masked{n})] + 0.5 * jnp.exp(masked{n})",
            "scores{n} = jnp.where(MASK[:, None] & MASK, jnp.outer({a}, {b}), -jnp.inf)\n"
            "{out} = 0.5 * jnp.where(MASK[:, None], jax.nn.softmax(jnp.where(MASK[:, None], scores{n}, 0.0), axis=1), 0.0).sum(axis=0)",
            "{out} = 0.5 * jnp.where({a} > 3.0, {a} / jnp.where({a} > 3.0, {a} - 3.0, 1.0), {b})",
            "odd{n} = lax.stop_gradient(jnp.log(jnp.array([1.0, -1.0], {a}.dtype)))\n{out} = 0.5 * {a} + odd{n}[0]",
        ),
    )
)
