"""Where only an accelerator is set up (`JAX_PLATFORMS=cuda`), there is no CPU backend: nothing of nandetect asks for one."""

import sys

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax._src import xla_bridge

import nandetect as nd
from nandetect.run import everywhere


@pytest.fixture
def no_cpu(monkeypatch):
    """JAX as it is without a CPU backend; the default one, whatever it is, is there."""
    asked = []

    def without(original, place):
        def refusing(*args, **kwargs):
            if "cpu" in (*args, *kwargs.values()):
                asked.append(place)
                raise RuntimeError("Unknown backend cpu")
            return original(*args, **kwargs)

        return refusing

    originals = {id(getattr(jax, name)): getattr(jax, name) for name in ("devices", "local_devices")}
    originals[id(xla_bridge.get_backend)] = xla_bridge.get_backend
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] in ("jax", "nandetect"):
            for attribute, value in list(vars(module).items()):
                if id(value) in originals:
                    monkeypatch.setattr(module, attribute, without(value, f"{name}.{attribute}"))
    with pytest.raises(RuntimeError, match="Unknown backend cpu"):
        jax.devices("cpu")
    asked.clear()
    yield
    assert asked == []


def looped(x):
    return lax.scan(lambda carry, _: (jnp.log(carry - 0.4), carry), x, None, 4)[0].sum()


def searched(x):
    return lax.while_loop(lambda state: state[1] < 5, lambda state: (jnp.log(state[0] - 0.4), state[1] + 1), (x, 0))[0]


@pytest.mark.parametrize(
    ("step", "primitive"),
    [
        (looped, "log"),
        (jax.jit(looped), "log"),
        (jax.jit(searched), "log"),
        (jax.jit(jax.grad(lambda x: jnp.sqrt(x - x).sum())), "div"),
        (jax.jit(lambda x: jnp.linalg.cholesky(-jnp.diag(x))), "cholesky"),
        (jax.jit(lambda x: jnp.log(-jax.random.gamma(jax.random.key(0), x))), "log"),
    ],
)
def test_a_fault_is_located(no_cpu, step, primitive):
    report = nd.locate(step, jnp.ones(3))
    assert report is not None and report.origin.primitive == primitive


def test_a_guarded_step_is_located(no_cpu):
    reports = []
    step = nd.guard(jax.jit(lambda w, x: (w - 0.1, jnp.log(x).sum())), check_every=4, on_find=reports.append)
    w = jnp.ones(3)
    for number in range(4):
        w, _ = step(w, jnp.full(3, 3.0 - number))
    step.flush()
    assert [(report.origin.primitive, report.step) for report in reports] == [("log", 3)]


def test_a_watched_program_is_located(no_cpu):
    reports = []
    with everywhere.watching(reports.append) as watched:
        float(jnp.log(-jnp.ones(3)).sum())
        jax.jit(lambda x: jnp.sqrt(-x))(jnp.ones(3))
        watched.flush()
    assert [report.origin.primitive for report in reports] == ["log", "sqrt"]
