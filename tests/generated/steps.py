"""The steps of generated programs: what is differentiated, and what the loop carries on."""

from __future__ import annotations

import random

from generated.faults import FORWARD, GRADIENT
from generated.programs import FOOTER, HEADER, MESH, Program, Surroundings, Writer, function

SIMULATION = """
def start():
    return jnp.array([0.3, -0.7, 1.1, 0.2], DTYPE)


def initial():
    return {{"y": start(), "count": 0}}


{jit}
def step(state, t):
    y = {f}(state["y"], t)
    return {{"y": y, "count": state["count"] + 1}}, jnp.sum(y)
"""
TRAINING = """
def start():
    return jnp.array([0.3, -0.7, 1.1, 0.2], DTYPE)


def initial():
    return {{"params": {{"w": start(), "b": (0.1 * start(), jnp.zeros(4, DTYPE))}}, "best": jnp.asarray(jnp.inf, DTYPE)}}


def loss(params, t):
    first, second = params["b"]
    out = {f}(params["w"] + first, t)
    return jnp.mean(out) + 0.1 * jnp.sum(second * second)


{jit}
def step(state, t):
    value, grads = jax.value_and_grad(loss)(state["params"], t)
    params = jax.tree.map(lambda p, g: 0.9 * p - 0.1 * g / (1.0 + jnp.sum(jnp.abs(g))), state["params"], grads)
    return {{"params": params, "best": jnp.minimum(state["best"], value)}}, value
"""
_WITH_VELOCITY = """
def start():
    return jnp.array([0.3, -0.7, 1.1, 0.2], DTYPE)


def initial():
    return start(), jnp.zeros(4, DTYPE)


{jit}
def step(state, t):
    w, velocity = state
"""
GRADIENT_ONLY = (
    _WITH_VELOCITY
    + """\
    g = jax.grad(lambda w: jnp.mean({f}(w, t)))(w)
    velocity = 0.5 * velocity + g / (1.0 + jnp.sum(jnp.abs(g)))
    return (0.9 * w - 0.1 * velocity, velocity), jnp.sum(jnp.abs(g))
"""
)
UPDATE = (
    _WITH_VELOCITY
    + """\
    value, g = jax.value_and_grad(lambda w: jnp.mean(jnp.tanh(w) ** 2))(w)
    velocity = 0.5 * velocity + {f}(g, t)
    return (0.9 * w - 0.1 * velocity, velocity), value
"""
)
ADAM = """
class State(NamedTuple):
    w: jax.Array
    mean: jax.Array
    square: jax.Array


def start():
    return jnp.array([0.3, -0.7, 1.1, 0.2], DTYPE)


def initial():
    return State(start(), jnp.zeros(4, DTYPE), jnp.zeros(4, DTYPE))


{jit}
def step(state, t):
    value, (g,) = jax.value_and_grad(lambda p: jnp.mean({f}(p[0], t)))((state.w,))
    g = g / (1.0 + jnp.sum(jnp.abs(g)))
    mean = 0.9 * state.mean + 0.1 * g
    square = 0.9 * state.square + 0.1 * g * g
    w = 0.9 * state.w - 0.1 * mean / (jnp.sqrt(square) + 0.1)
    return State(w, mean, square), value
"""
TANGENT = """
def start():
    return jnp.array([0.3, -0.7, 1.1, 0.2], DTYPE)


def initial():
    return [start(), 0.5 * start()]


{jit}
def step(state, t):
    y, dy = jax.jvp(lambda y: {f}(y, t), (state[0],), (state[1],))
    dy = dy / (1.0 + jnp.sum(jnp.abs(dy)))
    return [y, dy], jnp.sum(y) + jnp.sum(dy)
"""
JACOBIAN = """
def start():
    return jnp.array([0.3, -0.7, 1.1, 0.2], DTYPE)


def initial():
    return start()


{jit}
def step(y, t):
    j = jax.{how}(lambda y: {f}(y, t))(y)
    return 0.5 * y + 0.5 * jnp.mean(j, axis=0) / (1.0 + jnp.sum(jnp.abs(j))), jnp.sum(j)
"""

# How each kind of step differentiates, the phases of a fault of its function, and how often it is drawn.
FORWARD_PHASE = ("forward",)
# Nobody sees a value that jax.grad alone throws away: both are right.
UNSEEN_VALUE = ("forward", "backward")
# And nobody sees a gradient that is differentiated in turn, whose own derivative breaks by itself: of `1 / x` that is `integer_pow`.
OF_UNSEEN_GRADIENT = "integer_pow pow mul rsqrt"
KINDS = {
    "simulation": (SIMULATION, Surroundings(), FORWARD_PHASE, 5),
    "training": (TRAINING, Surroundings(reverse=True), FORWARD_PHASE, 6),
    "adam": (ADAM, Surroundings(reverse=True), FORWARD_PHASE, 3),
    "gradient": (GRADIENT_ONLY, Surroundings(reverse=True), UNSEEN_VALUE, 2),
    "update": (UPDATE, Surroundings(), ("update",), 2),
    "tangent": (TANGENT, Surroundings(forward=True), FORWARD_PHASE, 1),
    "jacfwd": (JACOBIAN.replace("{how}", "jacfwd"), Surroundings(forward=True, depth=1), UNSEEN_VALUE, 1),
    "jacrev": (JACOBIAN.replace("{how}", "jacrev"), Surroundings(reverse=True, depth=1), UNSEEN_VALUE, 1),
}
DTYPES = {"float32": 8, "float16": 1, "bfloat16": 1}


def generate(seed: int, x64: bool = False) -> Program:
    """The program of a seed; in double precision where `x64` is on."""
    rng = random.Random(seed)
    kind = rng.choices([*KINDS], [weight for *_, weight in KINDS.values()])[0]
    template, around, phases, _ = KINDS[kind]
    dtype = "float64" if x64 else rng.choices([*DTYPES], [*DTYPES.values()])[0]
    gradient = (around.reverse or around.forward) and rng.random() < 0.5
    table = [fault for fault in (GRADIENT if gradient else FORWARD) if fault.suits(dtype) and (fault.forward or not around.forward)]
    fault = rng.choice(table)
    writer = Writer(rng, dtype, fault)
    name = function(writer, around, True)
    donated = rng.random() < 0.2
    # A step that is not jitted takes five times as long: each of its operations is compiled by itself.
    jit = rng.choices(["@partial(jax.jit, donate_argnums=0)" if donated else "@jax.jit", ""], [11, 1])[0]
    head = HEADER.format(seed=seed, kind=kind, dtype=dtype, fault=fault.name, path=" > ".join(writer.path) or "the function itself")
    body = "\n\n\n".join(writer.functions)
    footer = FOOTER.replace("{reading}", str(rng.choice([1, 1, 3]) if jit else 1))
    step = template.format(f=name, jit=jit).replace("\n\n\n\n", "\n\n\n")
    source = head + (MESH if writer.shards else "") + f"\n\n{body}\n\n{step}{footer}"
    source = source.replace("PHASES", " ".join(_phases(writer, kind, phases)))
    source = source.replace("SECOND", OF_UNSEEN_GRADIENT if phases == UNSEEN_VALUE else "")
    return Program(seed, source, fault.name, kind, dtype, writer.path, donated and bool(jit))


def _phases(writer: Writer, kind: str, phases: tuple[str, ...]) -> list[str]:
    assert writer.fault is not None
    found = set(phases)
    if writer.fault.gradient:
        # What a derivative taken inside the loss makes, the loss descends from; in a simulation nothing but a derivative is taken.
        found = {"backward", "forward"} if writer.place.inner and kind != "simulation" else {"backward"}
        # A derivative inside the optimizer depends on gradients, too.
        if kind == "update":
            found.add("update")
    elif writer.gives_value and not writer.beside:
        # Loss and state are made of the value, and of its derivative that breaks by itself. An optimizer may evaluate a loss of its own.
        found |= {"forward", "derived"} if kind == "update" else {"derived"}
    elif writer.differentiates:
        # A derivative taken somewhere in the function: a value before it may feed gradients only, one after it depends on them, and
        # one beside it feeds neither.
        found |= {"backward"} if writer.place.inner else set()
        found |= {"forward", "update"}
    if "scan in reverse" in writer.path and not writer.fault.gradient:
        # Its next iteration may make something finite of an inf (a tanh): what is broken then is the gradient alone.
        found |= {"backward"}
    return sorted(found)
