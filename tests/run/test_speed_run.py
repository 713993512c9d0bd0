"""`nandetect run` and `nandetect train` say what a program loses by the way it is written, and a sound program is left in peace."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from importlib import resources
from pathlib import Path

import jax
import jax.numpy as jnp
import jsonschema
import numpy as np
import pytest

import nandetect
from nandetect import cli
from nandetect.records import Finding
from nandetect.run import everywhere, unjitted
from nandetect.run.unjitted import Repeating, repeating
from nandetect.speed import clock
from nandetect.train.loop import run
from nandetect.train.settings import TrainSettings

MODEL = """
    import jax, jax.numpy as jnp

    def loss(params, x, y):
        for w, b in params[:-1]:
            x = jax.nn.relu(x @ w + b)
        w, b = params[-1]
        return -jnp.mean(jnp.sum(y * jax.nn.log_softmax(x @ w + b), -1))

    def step(params, x, y):
        value, grads = jax.value_and_grad(loss)(params, x, y)
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads), value

    params = [(jnp.ones((16, 8)) / 16, jnp.zeros(8)), (jnp.ones((8, 4)) / 8, jnp.zeros(4))]
    x, y = jnp.ones((10, 16)), jnp.ones((10, 4)) / 4
"""
UNJITTED = """
    for _ in range(30):
        params, value = step(params, x, y)  # <-- here
    print("done")
"""


def started(folder: Path, program: str, *options: str) -> subprocess.CompletedProcess[str]:
    """A program of this text, run under nandetect."""
    (folder / "train.py").write_text(program)
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(Path(nandetect.__file__).parents[1])}
    command = [sys.executable, "-m", "nandetect", "run", *options, "train.py"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


def test_a_program_that_is_not_jitted_is_told_what_jit_would_give(tmp_path):
    text = textwrap.dedent(MODEL) + textwrap.dedent(UNJITTED)
    # What is measured is measured again where a busy machine did not tell the two apart.
    tries = (started(tmp_path, text, "--json", "out.json") for _ in range(3))
    done = next(done for done in tries if done.returncode or "warning" in done.stderr)
    assert (done.returncode, done.stdout) == (0, "done\n")
    line = next(number for number, line in enumerate(text.splitlines(), 1) if line.endswith("# <-- here"))
    first, help, last = done.stderr.splitlines()
    assert first.startswith(f"warning: `step` at train.py:{line} is not jitted: it takes ")
    assert help == "  help: step = jax.jit(step)"
    assert last.startswith("nandetect: nothing non-finite; ")
    document = json.loads((tmp_path / "out.json").read_text())
    jsonschema.validate(document, json.loads(resources.files("nandetect.render").joinpath("schema.json").read_text()))
    (finding,) = document["findings"]
    assert (finding["rule"], finding["severity"], document["run"]["exit_code"]) == ("not-jitted", "warning", 0)
    assert finding["measured"] > 1.2 * finding["expected"]


def told(program, seconds: float = 3600.0) -> list[Finding]:
    """What is found in a program that runs here, while everything is watched, and took so long."""
    with everywhere.watching(lambda report: None) as watched:
        kept = program()
        watched.flush()
        found = [*watched.functions.findings(), *watched.slow(seconds)]
        del kept
    return found


def sgd(w, x):
    return w - 1e-3 * jax.grad(lambda w: jnp.mean((x @ w) ** 2))(w)


def jitted_with_the_loss_read_now_and_then():
    step, w = jax.jit(sgd), jnp.ones(8)
    for number in range(200):
        w = step(w, np.ones((10 if number % 20 else 7, 8), np.float32))
        if number % 100 == 0:
            print(float(w[0]))
    return w


def jitted_with_a_rate_that_changes():
    step, w = jax.jit(lambda w, x, rate: w - rate * jnp.mean(x)), jnp.ones(8)
    for number in range(50):
        w = step(w, jnp.ones(8), 0.1 / (number + 1))
    return w


def jitted_with_some_bookkeeping():
    step, w, total = jax.jit(sgd), jnp.ones(8), jnp.zeros(())
    for _ in range(50):
        w = step(w, jnp.ones((10, 8)))
        total = 0.9 * total + 0.1 * w[0]
    return w, total


def evaluated_on_sets_of_several_sizes():
    step, score, w = jax.jit(sgd), jax.jit(lambda w, x: jnp.mean(x @ w)), jnp.ones(8)
    for _ in range(20):
        w = step(w, jnp.ones((10, 8)))
        for size in (100, 50, 25):
            score(w, jnp.ones((size, 8)))
    return w


def a_few_numbers_by_hand():
    return jnp.linalg.norm(jnp.sin(jnp.arange(10.0)) @ jnp.ones((10, 3)))


@pytest.mark.parametrize(
    "program",
    [
        jitted_with_the_loss_read_now_and_then,
        jitted_with_a_rate_that_changes,
        jitted_with_some_bookkeeping,
        evaluated_on_sets_of_several_sizes,
        a_few_numbers_by_hand,
    ],
)
def test_a_sound_program_is_told_nothing(program):
    assert told(program) == []


@pytest.mark.parametrize(("seconds", "found"), [(3600.0, ["not-donated"]), (10.0, [])])
def test_a_state_that_could_be_donated_is_told_where_asking_takes_little_of_the_time(seconds, found):
    def program():
        step, w = jax.jit(lambda w, x: w - 1e-3 * x.mean() * w), jnp.ones((1000, 1000))
        for _ in range(30):
            w = step(w, jnp.ones(8))
        return w

    assert [finding.rule for finding in told(program, seconds)] == found


def test_an_update_that_is_not_jitted_beside_a_gradient_that_is():
    def program():
        slope = jax.jit(jax.grad(lambda params, x: sum(jnp.mean((x @ w) ** 2) for w in params.values())))
        params = {name: jnp.ones((8, 3)) for name in "abcde"}
        momentum = jax.tree.map(jnp.zeros_like, params)
        x = jnp.ones((10, 8))
        for _ in range(40):
            grads = slope(params, x)
            momentum = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, momentum, grads)
            params = jax.tree.map(lambda p, m: p - 1e-3 * m, params, momentum)
        return params

    (finding,) = told(program)
    assert (finding.rule, finding.severity) == ("not-jitted", "note")
    assert finding.message.startswith("what the loop does beside its compiled functions at ")


def test_a_callback_and_a_wide_computation_are_seen_in_the_compiled_program(x64):
    def step(w, x):
        jax.debug.callback(lambda value: None, w[0, 0])
        return w - 1e-6 * jnp.mean(jnp.tanh(x @ w) @ w)

    def program():
        jitted, w = jax.jit(step), jnp.ones((300, 300), jnp.float64)
        for _ in range(30):
            w = jitted(w, jnp.ones((200, 300), jnp.float32))
        return w

    # What is measured is measured again where a busy machine did not tell the two apart.
    tries = ({finding.rule: finding for finding in told(program)} for _ in range(3))
    found = next(found for found in tries if "x64" in found)
    assert found["x64"].layer == "x"
    assert set(found) <= {"x64", "host-transfer"}


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ([1, 2, 3] * 5, Repeating(15, 3, 5)),
        ([9, 8, 7] + [1, 2, 3] * 5 + [6, 5], Repeating(18, 3, 5)),
        # The same two operations for each of three leaves, in each of four steps.
        ([5, *([1, 2] * 3), 7] * 4, Repeating(32, 8, 4)),
        ([1, 2, 3, 4, 5, 6], None),
        ([1, 2, 1, 2], None),
        ([], None),
    ],
)
def test_the_step_of_a_loop_is_the_shortest_stretch_that_comes_again(keys, expected):
    assert repeating(keys) == expected


def test_train_without_jit_says_what_jit_would_give():
    result = run(TrainSettings(samples=40, hidden=(), inputs="unit", steps=5, jit=False, audit=False))
    (finding,) = result.findings
    assert (finding.rule, finding.help, result.failed) == ("not-jitted", "leave --no-jit out", False)
    assert finding.message.startswith("`step` is not jitted: it takes ")
    assert finding.measured > 2 * finding.expected


@pytest.fixture
def plainly_slower(monkeypatch) -> None:
    """The two things that are timed are run, and then the first is said to take ten times as long: which line is named is the claim."""
    measured = clock.in_turns

    def in_turns(calls, *settings, **more):
        measured(calls, *settings, **more)
        return [1e-3, 1e-4]

    monkeypatch.setattr(clock, "in_turns", in_turns)


def test_train_says_what_float64_costs(monkeypatch, capsys, plainly_slower):
    options = ["--x64", "--hidden", "500,300", "--batch-size", "200", "--steps", "5"]
    monkeypatch.setattr("sys.argv", ["nandetect", "train", *options])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert (left.value.code or 0) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert " warning: `step` computes in float64 though its data is float32: the data is widened. A step takes " in told
    assert " help: leave --x64 out " in told


def test_train_names_the_callback_of_a_model(tmp_path, plainly_slower):
    (tmp_path / "mine.py").write_text(
        textwrap.dedent(
            """
            import time
            import jax
            import jax.numpy as jnp

            def init(key, sizes):
                return jax.random.normal(key, (sizes[0], sizes[-1])) * 1e-3

            def apply(params, inputs):
                jax.debug.callback(lambda value: None, params[0, 0])
                return inputs @ params
            """
        )
    )
    result = run(TrainSettings(model=str(tmp_path / "mine.py"), samples=40, steps=20))
    (finding,) = [finding for finding in result.findings if finding.rule == "host-transfer"]
    assert "`jax.debug.callback(lambda value: None, params[0, 0])` at " in finding.message
    assert "mine.py:10 takes " in finding.message


def test_a_step_that_takes_long_is_not_run_again_to_price_it():
    with everywhere.watching(lambda report: None) as watched:
        w = jnp.ones(3)
        for _ in range(8):
            w = (((((w * 0.9 + 0.1) * 0.9 + 0.1) * 0.9 + 0.1) * 0.9) + 0.1) * 0.9 + 0.1
            time.sleep(0.02)
    log = watched.eager.log
    assert unjitted.price(log, calls=0, seconds=0.01, most=0.05) is None
    priced = unjitted.price(log, calls=0, seconds=0.01, most=10.0)
    assert priced is not None and priced.operations == 10
