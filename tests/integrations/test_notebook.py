"""`%load_ext nandetect`: cells run as IPython runs them, and what they show is compared as text."""

from __future__ import annotations

import jax
import pytest

import nandetect

pytest.importorskip("IPython", reason="IPython is not installed")

from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

STEP = """
import jax
import jax.numpy as jnp
from jax import jit
from jax.nn import relu

@jax.jit
def step(x):
    return jnp.log(x)
"""


@pytest.fixture
def shell():
    """A fresh namespace in IPython, with the extension loaded and a function jitted in the first cell."""
    shell = InteractiveShell.instance(colors="nocolor")
    shell.reset()
    shell.run_line_magic("load_ext", "nandetect")
    assert shell.run_cell(STEP, store_history=True).success
    yield shell
    shell.run_line_magic("unload_ext", "nandetect")
    shell.reset()


def run(shell, cell):
    """A cell's result, what it wrote, and what it displayed."""
    with capture_output() as captured:
        result = shell.run_cell(cell, store_history=True)
    return result, captured.stdout, [output.data for output in captured.outputs]


def test_a_function_jitted_in_an_earlier_cell_is_watched(shell):
    result, written, displayed = run(shell, "%%nandetect\nx = jnp.zeros(2)\nstep(x)")
    (shown,) = displayed
    assert written == "stopped: `log` made -inf in the forward pass of step 0\n"
    assert shown["text/plain"].splitlines()[:7] == [
        "error: `log` made -inf in the forward pass of step 0        step()",
        " --> Cell In[1]:8:12, in step",
        "  |",
        "8 |     return jnp.log(x)",
        "  |            ^^^^^^^^^^ log of zero",
        "  |",
        "  = the step was called at Cell In[2]:3: step(x)",
    ]
    assert shown["text/html"].startswith('<pre class="nandetect"')
    assert isinstance(result.error_in_exec, nandetect.NonFiniteError)
    assert result.error_in_exec.report.origin.primitive == "log"


def test_nothing_found_is_one_line_and_the_cells_own_value(shell):
    result, written, displayed = run(shell, "%%nandetect\ny = step(jnp.ones(2))\nfloat(y.sum())")
    assert written.splitlines()[0] == "nandetect: nothing non-finite in 1 call and 3 operations outside of them"
    assert (result.success, result.result, displayed) == (True, 0.0, [])


def test_names_are_bare_again_unless_the_cell_bound_them_anew(shell):
    before = shell.user_ns["step"], jax.jit, jax.nn.relu
    result, *_ = run(shell, "%%nandetect\nseen = step\n@jit\ndef root(x):\n    return jnp.sqrt(x)\nrelu = 'mine'\nroot(step(jnp.ones(2)))")
    names = shell.user_ns
    assert result.success
    assert names["step"] is names["seen"] is before[0]
    assert (names["jit"], jax.jit, jax.nn.relu) == (before[1], before[1], before[2])
    assert type(names["root"]) is type(before[0])
    assert names["relu"] == "mine"


def test_what_the_cell_jits_with_a_name_from_before_is_watched(shell):
    _, written, (shown,) = run(shell, "%%nandetect\n@jit\ndef root(x):\n    return jnp.sqrt(x)\nroot(jnp.float32(-1))")
    assert written == "stopped: `sqrt` made nan in the forward pass of step 0\n"
    assert " --> Cell In[2]:4:12, in root" in shown["text/plain"].splitlines()


def test_code_that_is_not_jitted_is_watched(shell):
    _, written, (shown,) = run(shell, "%%nandetect\nx = jnp.zeros(2)\ny = relu(x) / x")
    assert written == "stopped: `div` made nan in the forward pass\n"
    assert "3 | y = relu(x) / x" in shown["text/plain"].splitlines()


def test_a_cell_that_catches_it_shows_it_all_the_same(shell):
    _, written, displayed = run(shell, "%%nandetect\ntry:\n    step(jnp.zeros(2))\nexcept ArithmeticError:\n    done = True")
    assert (written, len(displayed)) == ("stopped: `log` made -inf in the forward pass of step 0\n", 1)
    assert shell.user_ns["done"]


def test_an_error_of_the_cells_own_stays_what_it_is(shell):
    result, written, displayed = run(shell, "%%nandetect\nx = jnp.zeros(2)\ny = x / x\nassert y.shape == (3,)")
    assert type(result.error_in_exec) is AssertionError
    assert "assert y.shape == (3,)" in written
    assert displayed[0]["text/plain"].startswith("error: `div` made nan in the forward pass")


def test_one_expression_on_a_line(shell):
    result, written, _ = run(shell, "%nandetect step(jnp.ones(2)).shape")
    assert (result.result, written.splitlines()[0]) == ((2,), "nandetect: nothing non-finite in 1 call and 2 operations outside of them")
    _, written, _ = run(shell, "%nandetect {'a': step(jnp.zeros(2))}")
    assert written == "stopped: `log` made -inf in the forward pass of step 0\n"


def test_a_function_that_outlives_its_cell_stops_nothing_later(shell):
    run(shell, "%%nandetect\nkept = [jit(lambda x: jnp.log(x))]")
    result, _, displayed = run(shell, "float(kept[0](0.0))")
    assert (result.result, displayed) == (float("-inf"), [])


def test_words_beside_the_magic_are_refused(shell):
    result, *_ = run(shell, "%%nandetect step\n1")
    assert str(result.error_in_exec) == "%%nandetect takes nothing on its own line; for one expression there is %nandetect"


def test_unloading_removes_the_magic(shell):
    shell.run_line_magic("unload_ext", "nandetect")
    assert shell.find_magic("nandetect", "cell") is shell.find_magic("nandetect") is None
    shell.run_line_magic("load_ext", "nandetect")
    assert shell.find_magic("nandetect", "cell") is not None
