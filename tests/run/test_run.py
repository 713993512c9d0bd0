"""`nandetect run`: a program behaves as under `python`, and what it makes non-finite is located on its own line."""

from __future__ import annotations

import json
import textwrap
from importlib import resources

import jsonschema
import pytest

MARK = "# <-- origin"
SCHEMA = json.loads(resources.files("nandetect.render").joinpath("schema.json").read_text())


def line_of(text: str) -> int:
    (line,) = [number for number, line in enumerate(textwrap.dedent(text).splitlines(), 1) if line.rstrip().endswith(MARK)]
    return line


CLEAN = """
    import sys
    import jax, jax.numpy as jnp

    @jax.jit
    def step(w, x):
        return w - 0.1 * jax.grad(lambda w: jnp.mean((x @ w) ** 2))(w)

    w = jnp.ones(3)
    for _ in range(20):
        w = step(w, jnp.eye(3))
    print(__name__, __file__, sys.argv, sys.path[0], float(jnp.linalg.norm(w)))
    sys.exit(3)
"""


def test_a_sound_program_is_as_under_python_and_one_line_says_what_was_watched(program):
    program.write(clean=CLEAN)
    plain, watched = program.run("clean.py", "--epochs", "3", plain=True), program.run("clean.py", "--epochs", "3")
    assert (watched.stdout, watched.returncode) == (plain.stdout, plain.returncode) == (plain.stdout, 3)
    (line,) = watched.stderr.splitlines()
    assert line.startswith("nandetect: nothing non-finite; watched 20 calls of 1 compiled function and ")


JITTED = """
    from functools import partial
    import jax.numpy as jnp
    from jax import grad, jit
    from helper import trained

    @partial(jit, donate_argnums=0, static_argnames="rate")
    def step(w, x, rate):
        return w - rate * grad(lambda w: jnp.sqrt(jnp.sum((x * w) ** 2)))(w)  # <-- origin

    print("final", trained(step)[0])
"""
HELPER = """
    import jax.numpy as jnp

    def trained(step):
        w = jnp.ones(3)
        for number in range(400):
            w = step(w, jnp.zeros(3) if number == 123 else jnp.ones(3), rate=0.001)
        return w
"""


def test_a_fault_in_a_jitted_step_is_told_with_the_call(program):
    program.write(train=JITTED, helper=HELPER)
    result = program.run("train.py", "--json", "of-the-program")
    assert result.returncode == 1
    assert result.stderr.startswith("error: `div` made inf in the backward pass of step 123")
    assert f"--> train.py:{line_of(JITTED)}:" in result.stderr
    assert "= the step was called at helper.py:7, in trained: w = step(w, jnp.zeros(3) if number == 123" in result.stderr


def test_of_two_functions_the_one_that_failed_first_is_named(program):
    text = """
        import jax, jax.numpy as jnp

        @jax.jit
        def update(w, x):
            return w - 0.001 * jax.grad(lambda w: jnp.sqrt(jnp.sum((x * w) ** 2)))(w)  # <-- origin

        @jax.jit
        def bound(w):
            return jnp.log(jnp.sum(w ** 2))

        w = jnp.ones(3)
        for number in range(200):
            w = update(w, jnp.zeros(3) if number == 90 else jnp.ones(3))
            for _ in range(5):
                bound(w)
        """
    program.write(two=text)
    result = program.run("two.py")
    assert result.stderr.startswith("error: `div` made inf in the backward pass of step 90")
    assert f"two.py:{line_of(text)}:" in result.stderr


def test_keep_going_lets_the_program_end_by_itself(program):
    program.write(train=JITTED, helper=HELPER)
    result = program.run("--keep-going", "train.py")
    assert (result.returncode, result.stdout) == (1, "final nan\n")
    assert result.stderr.count("error: ") == 1


EAGER = """
    import jax, jax.numpy as jnp

    def loss(w, x):
        if float(x[0]) > 100:  # no trace could follow this
            return jnp.sum(w)
        return jnp.sum(jax.nn.relu(x @ w)) + jnp.sqrt(jnp.sum(w * x[0]))  # <-- origin

    w = jnp.ones(3)
    for number in range(30):
        x = jnp.ones(3) * (0.0 if number == 17 else 1.0)
        w = w - 0.001 * jax.grad(loss)(w, x)
    print("final", w)
"""


def test_a_fault_in_code_that_is_not_jitted_as_json(program):
    program.write(train=EAGER)
    result = program.run("--json", "out.json", "train.py")
    assert result.returncode == 1
    document = json.loads((program.folder / "out.json").read_text())
    jsonschema.validate(document, SCHEMA)
    event = document["findings"][0]["event"]
    assert (event["primitive"], event["phase"], event["source"]["line"]) == ("div", "backward", line_of(EAGER))
    assert document["run"]["program"] == ["train.py"]


def test_with_json_on_standard_output_nothing_else_is_there(program):
    program.write(clean=CLEAN)
    result = program.run("--json", "-", "clean.py")
    jsonschema.validate(json.loads(result.stdout), SCHEMA)
    assert json.loads(result.stdout)["run"]["exit_code"] == result.returncode == 3
    assert f"__main__ {program.folder}/clean.py" in result.stderr


def test_masks_and_infinities_on_the_way_are_no_faults(program):
    program.write(
        masks="""
        import jax, jax.numpy as jnp
        best = jnp.inf
        scores = jnp.where(jnp.tril(jnp.ones((4, 4), bool)), 0.0, -jnp.inf)
        attend = jax.jit(lambda x: jax.nn.softmax(x + scores))
        log_prior = jnp.log(jnp.array([0.5, 0.5, 0.0]))
        for _ in range(5):
            x = attend(jnp.ones((4, 4)))
            best = jnp.minimum(best, x.sum())
        print(jnp.where(jnp.arange(3) < 2, log_prior, 0.0).sum(), best, jnp.nanmean(jnp.array([1.0, jnp.nan])))
        """
    )
    result = program.run("masks.py")
    assert result.returncode == 0
    assert result.stderr.startswith("nandetect: nothing non-finite")


def test_what_the_program_sets_before_it_imports_jax_counts(program):
    program.write(
        sets="""
        import os
        os.environ["JAX_ENABLE_X64"] = "1"
        os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
        import jax, jax.numpy as jnp
        print(jnp.ones(1).dtype, jax.device_count())
        """
    )
    assert program.run("sets.py").stdout == "float64 2\n"


def test_garbage_of_the_program_is_collected_as_ever(program):
    program.write(
        cycles="""
        import gc, weakref
        import jax, jax.numpy as jnp

        class Node:
            pass

        node = Node()
        node.me, node.array = node, jnp.ones(3) * 2
        gone = weakref.ref(node)
        del node
        gc.collect()
        print(gone() is None)
        """
    )
    assert program.run("cycles.py").stdout == program.run("cycles.py", plain=True).stdout == "True\n"


@pytest.mark.parametrize(
    ("made", "left"),
    [
        ("node.file = open('left.txt', 'w'); node.file.write('written at the end')", "written at the end"),
        ("node.leaves = Leaving()", "collected"),
    ],
)
def test_what_the_program_made_before_it_imported_jax_is_collected_at_its_end(program, made, left):
    program.write(
        before=f"""
        import atexit, gc

        class Node:
            pass

        class Leaving:
            def __del__(self, open=open):
                with open('left.txt', 'w') as file:
                    file.write('collected')

        node = Node()
        node.me = node
        {made}
        import jax.numpy as jnp
        print(jnp.ones(3))
        atexit.register(lambda: print(gc.get_freeze_count()))
        """
    )
    for plain in (True, False):
        out = program.run("before.py", plain=plain).stdout
        # Python 3.12 freezes some objects of its own.
        assert plain or out == "[1. 1. 1.]\n0\n"
        assert (program.folder / "left.txt").read_text() == left
        (program.folder / "left.txt").unlink()


def test_what_was_found_is_said_though_the_program_swallows_it(program):
    program.write(
        swallows="""
        import jax, jax.numpy as jnp
        try:
            jax.jit(lambda x: jnp.log(x))(jnp.zeros(3) - 1)
            f = jax.jit(lambda x: jnp.log(x))
            for _ in range(3):
                f(jnp.zeros(3) - 1)
        except Exception:
            pass
        print("went on")
        """
    )
    result = program.run("swallows.py")
    assert (result.returncode, result.stdout) == (1, "went on\n")
    assert "error: `log` made nan" in result.stderr


def test_debug_nans_in_the_program_is_explained(program):
    program.write(debug="import jax\njax.config.update('jax_debug_nans', True)\n" + textwrap.dedent(JITTED), helper=HELPER)
    result = program.run("debug.py")
    assert result.returncode == 1
    assert "error: `div` made inf in the backward pass of step 123" in result.stderr


def test_a_nan_that_the_program_reads_is_told_at_once(program):
    program.write(
        reads="""
        import jax, jax.numpy as jnp

        @jax.jit
        def step(w, x):
            loss, slope = jax.value_and_grad(lambda w: jnp.mean(jnp.log(x @ w) ** 2))(w)
            return w - 0.01 * slope, loss

        w = jnp.ones(3)
        for number in range(300):
            w, loss = step(w, jnp.ones((4, 3)) * (number != 40))
            print(number, loss.item())
        """
    )
    result = program.run("reads.py")
    assert result.stderr.startswith("error: `log` made -inf in the forward pass of step 40")
    assert len(result.stdout.splitlines()) < 50


def test_functions_that_are_gone_are_counted(program):
    program.write(
        gone="""
        import jax, jax.numpy as jnp

        def main():
            step = jax.jit(lambda x: x * 0.5)
            for _ in range(10):
                step(jnp.ones(3))

        main()
        """
    )
    assert "watched 10 calls of 1 compiled function" in program.run("gone.py").stderr


BESIDE = """
    import sys
    import jax, jax.numpy as jnp

    @jax.jit
    def step(w, x):
        logs = jnp.log(x)  # <-- origin
        return w - 0.1, logs

    @jax.jit
    def total(logs):
        return logs.sum() * jnp.ones(2)

    w, use = jnp.ones(3), sys.argv[1]
    for i in range(40):
        w, logs = step(w, jnp.full(3, -1.0 if i == 20 else 1.0))
        if i == 20:
            kept = logs
            if use == "read": print(float(logs[1]))
            if use == "summed": print((2 * logs).sum())
            if use == "handed": total(logs)
    if use == "read late": print(logs.sum(), kept.sum())
    if use == "handed late": total(kept)
    print(w)
"""


@pytest.mark.parametrize("use", ["read", "summed", "handed", "read late", "handed late"])
def test_a_bad_result_beside_a_sound_state_is_a_fault_once_the_program_uses_it(program, use):
    program.write(beside=BESIDE)
    ran = program.run("beside.py", use)
    assert ran.returncode == 1
    assert f"beside.py:{line_of(BESIDE)}:" in ran.stderr.splitlines()[1] and "made nan in the forward pass of step 20" in ran.stderr


def test_a_bad_result_beside_a_sound_state_that_nobody_uses_is_no_fault(program):
    program.write(beside=BESIDE)
    ran = program.run("beside.py", "not at all")
    assert (ran.returncode, "error" in ran.stderr) == (0, False)
