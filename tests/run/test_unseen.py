"""Nothing non-finite is said only where everything was looked at: else the line says what was not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nandetect.run.everywhere import watching


def left_out(program):
    with watching(lambda report: None) as everywhere:
        program()
        everywhere.flush()
        return everywhere.left_out()


def forks():
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)


def script_that_names(program):
    def start(path):
        path.write_text(f"#!{program}\n")
        path.chmod(0o755)
        subprocess.run([str(path)], check=False)

    return start


@pytest.mark.filterwarnings("ignore:.*fork:")
def test_children_that_may_run_jax_are_counted_each_once(tmp_path):
    def starts():
        import multiprocessing

        subprocess.run([sys.executable, "-c", ""], check=True)
        subprocess.check_output("true && false || true", shell=True)
        subprocess.run(["true"], check=True)
        script_that_names(sys.executable)(tmp_path / "tool")
        script_that_names("/bin/sh")(tmp_path / "other")
        forks()
        process = multiprocessing.get_context("fork").Process(target=int)
        process.start()
        process.join()

    assert left_out(starts) == ["4 child processes"]
    assert subprocess.run([sys.executable, "-c", ""], check=True).returncode == 0
    assert "nandetect" not in (subprocess.Popen.__init__.__module__, os.fork.__module__)


def test_the_line_and_the_document_say_what_was_not_looked_at(program):
    program.write(
        starts="""
        import subprocess, sys
        import jax, jax.numpy as jnp
        subprocess.run([sys.executable, "-c", "import jax.numpy as jnp; jnp.log(-jnp.ones(3))"])
        print(jax.jit(lambda x: x + 1)(1.0))
        """
    )
    result = program.run("--json", "out.json", "starts.py")
    assert (result.returncode, result.stdout) == (0, "2.0\n")
    assert result.stderr.startswith("nandetect: nothing found, but not looked at: 1 child process; watched 1 call of 1 compiled function")
    assert json.loads((program.folder / "out.json").read_text())["run"]["not_looked_at"] == ["1 child process"]


@pytest.mark.parametrize("is_static", [False, True])
@pytest.mark.parametrize("stages", [lambda f, *args: f.lower(*args), lambda f, *args: f.trace(*args).lower()])
def test_what_is_compiled_ahead_of_time_is_located(stages, is_static):
    told = []
    with watching(told.append) as everywhere:
        if is_static:
            compiled = stages(jax.jit(lambda n, x: n * jnp.log(x), static_argnums=0), 2, jnp.ones(3)).compile()  # <-- origin
        else:
            compiled = stages(jax.jit(lambda x: 2 * jnp.log(x)), jnp.ones(3)).compile()  # <-- origin
        result = compiled(jnp.arange(3.0) - 1.0) + 1.0
        everywhere.flush()
        del result
    assert (told[0].origin.primitive, told[0].origin.source.code.endswith("# <-- origin")) == ("log", True)
    assert everywhere.left_out() == []
    assert "nandetect" not in jax.stages.Compiled.__call__.__module__


def test_what_takes_its_arguments_and_was_compiled_ahead_of_time_is_said():
    def program():
        step = jax.jit(lambda w: w * 0.5, donate_argnums=0).lower(jnp.ones(3)).compile()
        w = jnp.ones(3)
        for _ in range(3):
            w = step(w)
        assert w.tolist() == [0.125] * 3

    assert left_out(program) == ["3 calls of a function compiled ahead of time that takes its arguments"]


def test_a_nan_that_only_a_callback_sees_is_said():
    def program():
        seen = []

        @jax.jit
        def step(x):
            log = jnp.log(x)
            jax.debug.callback(lambda y: seen.append(float(np.asarray(y))), log)
            return jnp.nan_to_num(log)

        step(jnp.float32(-1.0))
        jax.effects_barrier()
        assert np.isnan(seen[0])

    assert left_out(program) == ["1 nan in what a computation handed to a callback"]


def test_calls_of_a_thread_that_still_runs_are_said():
    called, over = threading.Event(), threading.Event()

    def program():
        step = jax.jit(lambda x: x + 1.0)

        def work():
            for _ in range(3):
                step(jnp.ones(3))
            called.set()
            over.wait()

        thread = threading.Thread(target=work)
        thread.start()
        called.wait()
        return step, thread

    with watching(lambda report: None) as everywhere:
        step, thread = program()
        everywhere.flush()
        assert everywhere.left_out() == ["the last calls of 1 thread that still ran"]
        over.set()
        thread.join()
        everywhere.flush()
        assert everywhere.left_out() == []
        del step


CHECKED = """
    import sys
    import jax, jax.numpy as jnp

    def check(x):
        raise ArithmeticError("not what it should be")

    step = jax.jit(lambda x: jax.lax.cond(x > 1, lambda: jax.pure_callback(check, x, x), lambda: x))

    def call(x):
        try:
            return float(step(x))
        except Exception:
            if sys.argv[1] == "handled":
                return 0.0
            raise

    print(call(1.0), call(2.0))
"""


def test_a_call_that_raised_is_said_unless_the_program_ended_of_it_and_it_was_looked_into(program):
    program.write(checked=CHECKED)
    handled = program.run("checked.py", "handled")
    assert (handled.returncode, handled.stdout) == (0, "1.0 0.0\n")
    assert handled.stderr.splitlines()[-1].startswith("nandetect: nothing found, but not looked at: 1 call that raised ")
    assert program.run("checked.py", "").stderr.splitlines()[-1].startswith("nandetect: nothing non-finite; watched ")
