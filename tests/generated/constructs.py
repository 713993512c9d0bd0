"""How one function of a generated program calls another: plainly, in a loop, a branch, under a transformation.

`{f}` takes a vector and the trigger; `{outer}` goes to the module, `{text}` into the calling function. `{t}` is what the function is
given for the trigger; `{pick}` the iteration, lane or shard at which it is on.
"""

from __future__ import annotations

from typing import NamedTuple


class Construct(NamedTuple):
    """One way to call. `reverse` and `forward` say which differentiation it stands around it, `inner` which one it does itself, and
    `value` whether it hands on the value beside the derivative.

    `mapped`: it may stand under vmap or shard_map; `shallow`: what it calls calls nothing more; `hides`: what it calls is not
    differentiated; `batched` and `sharded`: it is a vmap, a shard_map. Those that take long to compile are drawn with a smaller `weight`.
    """

    name: str
    text: str
    outer: str = ""
    reverse: bool = True
    forward: bool = True
    inner: str = ""
    value: bool = False
    mapped: bool = True
    shallow: bool = False
    hides: bool = False
    batched: bool = False
    sharded: bool = False
    weight: float = 1.0


CONSTRUCTS = (
    Construct("call", "{out} = {f}({a}, t)"),
    Construct("called twice", "{out} = 0.5 * {f}({a}, t) + 0.5 * {f}({b}, 0 * t)"),
    Construct("jit", "{out} = compiled{n}({a}, t)", "compiled{n} = jax.jit({f})"),
    Construct(
        "jit with constants",
        "{out}, one{n}, (none{n}, two{n}) = pair{n}({a}, t)\n{out} = one{n} * {out} * (two{n} - 1)",
        "@jax.jit\ndef pair{n}(y, t):\n    return {f}(y, t), 1.0, (None, 2)",
    ),
    Construct("jit keeping inf", "{out}, worst{n} = best{n}({a}, t)", "@jax.jit\ndef best{n}(y, t):\n    return {f}(y, t), -jnp.inf"),
    Construct(
        "scan",
        "def body{n}(carry, i):\n    u = {f}(carry, t * (i == {pick}))\n    return 0.5 * carry + 0.5 * u, jnp.sum(u)\n"
        "{out}, sums{n} = lax.scan(body{n}, {a}, jnp.arange(3))",
    ),
    Construct(
        "scan over rows",
        "def body{n}(carry, row):\n    x, i = row\n    u = {f}(0.5 * carry + 0.5 * x, t * (i == {pick}))\n    return carry, 0.5 * u\n"
        "last{n}, rows{n} = lax.scan(body{n}, {a}, (jnp.stack([{a}, {b}, {a}]), jnp.arange(3)))\n{out} = rows{n}.sum(axis=0) / 2",
    ),
    Construct(
        "scan in reverse",
        "def body{n}(carry, i):\n    c, count = carry\n    u = {f}(c, t * (i == {pick}))\n    return (u, count + 1), u[0]\n"
        "({out}, count{n}), firsts{n} = lax.scan(body{n}, ({a}, 0), jnp.arange(3), reverse=True)",
    ),
    Construct("fori", "{out} = lax.fori_loop(0, 3, lambda i, c: 0.5 * c + 0.5 * {f}(c, t * (i == {pick})), {a})"),
    Construct(
        "while",
        "def once{n}(carry):\n    i, c = carry\n    return i + 1, 0.5 * c + 0.5 * {f}(c, t * (i == {pick}))\n"
        "{out} = lax.while_loop(lambda carry: carry[0] < 3, once{n}, (0, {a}))[1]",
        reverse=False,
    ),
    Construct(
        "while until small",
        "def once{n}(carry):\n    i, c = carry\n    return i + 1, 0.5 * c + 0.5 * {f}(c, t * (i == {pick}))\n"
        "{out} = lax.while_loop(lambda carry: (carry[0] < 4) & (jnp.max(jnp.abs(carry[1])) > 1e-3), once{n}, (0, {a}))[1]",
        reverse=False,
    ),
    Construct(
        "scan of a length",
        "def body{n}(carry, _):\n    i, c = carry\n    return (i + 1, 0.5 * c + 0.5 * {f}(c, t * (i == {pick}))), None\n"
        "(_, {out}), _ = lax.scan(body{n}, (0, {a}), None, length=3, unroll=2)",
    ),
    Construct("map", "{out} = lax.map(lambda v: {f}(v, t), jnp.stack([{a}, {b}])).mean(axis=0)"),
    Construct("cond", "{out} = lax.cond(jnp.sum({b}) > -100.0, lambda v: {f}(v, t), lambda v: 0.5 * v, {a})"),
    Construct("cond beside a deadly branch", "{out} = lax.cond(t > -1.0, lambda v: {f}(v, t), lambda v: jnp.log(v - 50.0), {a})"),
    Construct(
        "cond closing over",
        "other{n} = 0.5 * {b}\n{out} = lax.cond(t < -1.0, lambda: (other{n}, jnp.nan), lambda: ({f}(other{n}, t), 0.5))[0]",
    ),
    Construct("switch", "{out} = lax.switch((t > -1.0).astype(jnp.int32), [jnp.negative, lambda v: {f}(v, t), jnp.sqrt], {a})"),
    Construct("vmap", "{out} = jax.vmap({f}, in_axes=(0, None))(jnp.stack([{a}, {b}]), t).mean(axis=0)", batched=True),
    Construct(
        "vmap with one lane at fault",
        "{out} = jax.vmap({f}, in_axes=(1, 0), out_axes=1)(jnp.stack([{a}, {b}], axis=1), t * ROW).mean(axis=1)",
        batched=True,
    ),
    Construct(
        "vmap of vmap",
        "grid{n} = jnp.stack([jnp.stack([{a}, {b}]), jnp.stack([{b}, {a}])])\n"
        "{out} = jax.vmap(jax.vmap({f}, (0, None)), (0, None))(grid{n}, t).mean(axis=(0, 1))",
        batched=True,
    ),
    Construct("remat", "{out} = jax.checkpoint({f})({a}, t)"),
    Construct("remat with a policy", "{out} = jax.checkpoint({f}, policy=jax.checkpoint_policies.dots_saveable)({a}, t)"),
    Construct(
        "jit with a static argument",
        "{out} = scaled{n}({a}, t, scale=2)",
        "@partial(jax.jit, static_argnames='scale')\ndef scaled{n}(y, t, scale):\n    return {f}(y, t) / scale",
    ),
    Construct("partial", "{out} = partial({f}, t=t)({a})"),
    Construct(
        "method",
        "{out} = Layer{n}(0.5 * {b})(t, {a})",
        "class Layer{n}:\n    def __init__(self, bias):\n        self.bias = bias\n\n    def __call__(self, t, y):\n"
        "        return 0.5 * self.bias + 0.5 * {f}(y, t)",
    ),
    Construct("named scope", "with jax.named_scope('block{n}'):\n    {out} = {f}({a}, t)"),
    Construct(
        "grad",
        "g{n} = jax.grad(lambda v: jnp.sum({f}(v, t)))({a})\n{out} = g{n} / (1.0 + jnp.sum(jnp.abs(g{n})))",
        inner="reverse",
    ),
    Construct(
        "value and grad",
        "value{n}, g{n} = jax.value_and_grad(lambda v: 0.25 * jnp.sum({f}(v, t)))({a})\n"
        "{out} = 0.5 * value{n} + 0.5 * g{n} / (1.0 + jnp.sum(jnp.abs(g{n})))",
        value=True,
        inner="reverse",
    ),
    Construct(
        "jvp",
        "u{n}, du{n} = jax.jvp(lambda v: {f}(v, t), ({a},), (jnp.ones_like({a}),))\n"
        "{out} = 0.5 * u{n} + 0.5 * du{n} / (1.0 + jnp.abs(du{n}))",
        value=True,
        inner="forward",
    ),
    Construct(
        "linearize",
        "u{n}, push{n} = jax.linearize(lambda v: {f}(v, t), {a})\ndu{n} = push{n}(jnp.ones_like({a}))\n"
        "{out} = 0.5 * u{n} + 0.5 * du{n} / (1.0 + jnp.abs(du{n}))",
        value=True,
        inner="forward",
    ),
    Construct(
        "vjp",
        "u{n}, pull{n} = jax.vjp(lambda v: {f}(v, t), {a})\n(g{n},) = pull{n}(jnp.ones_like(u{n}))\n"
        "{out} = 0.5 * u{n} + 0.5 * g{n} / (1.0 + jnp.abs(g{n}))",
        value=True,
        inner="reverse",
    ),
    Construct(
        "jacfwd",
        "j{n} = jax.jacfwd({f})({a}, t)\n{out} = jnp.sum(j{n}, axis=0) / (1.0 + jnp.sum(jnp.abs(j{n})))",
        inner="forward",
        shallow=True,
    ),
    Construct(
        "jacrev",
        "j{n} = jax.jacrev({f})({a}, t)\n{out} = jnp.sum(j{n}, axis=1) / (1.0 + jnp.sum(jnp.abs(j{n})))",
        inner="reverse",
        shallow=True,
    ),
    Construct(
        "hessian",
        "h{n} = jax.hessian(lambda v: jnp.sum({f}(v, t)))({a})\n{out} = jnp.sum(h{n}, axis=1) / (1.0 + jnp.sum(jnp.abs(h{n})))",
        inner="both",
        shallow=True,
        weight=0.5,
    ),
    Construct(
        "custom_jvp",
        "{out} = ruled{n}({a}, t)",
        "@jax.custom_jvp\ndef ruled{n}(y, t):\n    return {f}(y, t)\n\n\n"
        "@ruled{n}.defjvp\ndef ruled{n}_jvp(primals, tangents):\n    y, t = primals\n    return {f}(y, t), 0.5 * tangents[0] * jnp.cos(y)",
        hides=True,
    ),
    Construct(
        "custom_vjp",
        "{out} = ruled{n}({a}, t)",
        "@jax.custom_vjp\ndef ruled{n}(y, t):\n    return {f}(y, t)\n\n\n"
        "def ruled{n}_fwd(y, t):\n    return {f}(y, t), (y, t)\n\n\n"
        "def ruled{n}_bwd(kept, g):\n    y, t = kept\n    return 0.5 * g * jnp.cos(y), jnp.zeros_like(t)\n\n\n"
        "ruled{n}.defvjp(ruled{n}_fwd, ruled{n}_bwd)",
        forward=False,
        hides=True,
    ),
    Construct(
        "shard_map",
        "{out} = shards{n}(jnp.stack([{a}, {b}]), t).mean(axis=0)",
        "def shard{n}(rows, t):\n    u = {f}(rows[0], t * (lax.axis_index('d') == {pick} % 2))\n"
        "    return (0.5 * u + 0.25 * lax.psum(u, 'd'))[None]\n\n\n"
        "shards{n} = jax.shard_map(shard{n}, mesh=MESH, in_specs=(P('d'), P()), out_specs=P('d'), check_vma=False)",
        mapped=False,
        sharded=True,
        weight=0.3,
    ),
)
