"""`nandetect run` finds a program, runs it and ends as `python` does: its exit code, signals, tracebacks, threads and forks."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest


def test_a_program_without_jax(program):
    program.write(plain="print('hello')")
    result = program.run("plain.py")
    assert (result.returncode, result.stdout) == (0, "hello\n")
    assert result.stderr == "nandetect: the program did not import JAX: nothing was watched\n"


def test_a_module_is_run_as_python_runs_it(program):
    (program.folder / "package").mkdir()
    program.write(
        **{"package/__init__": "", "package/__main__": "from .other import answer\nimport sys\nprint(answer, __package__, sys.argv[1:])"}
    )
    program.write(**{"package/other": "answer = 42"})
    plain, watched = program.run("-m", "package", "-v", plain=True), program.run("-m", "package", "-v")
    assert (watched.stdout, watched.returncode) == (plain.stdout, 0)


@pytest.mark.parametrize("asked", ["-1", "256", "True", "'a message'", ""])
def test_the_exit_code_is_what_the_operating_system_makes_of_it(program, asked):
    program.write(leaves=f"import jax, sys\nsys.exit({asked})\n")
    assert program.run("leaves.py").returncode == program.run("leaves.py", plain=True).returncode


@pytest.mark.parametrize("fails", ["import missing_thing", "1 / 0", "import jax\nraise SystemExit(7)"])
def test_a_module_whose_package_fails_fails_as_under_python(program, fails):
    (program.folder / "package").mkdir()
    program.write(**{"package/__init__": fails, "package/train": "print('never')"})
    plain, watched = program.run("-m", "package.train", plain=True), program.run("-m", "package.train")
    assert (watched.returncode, watched.stdout) == (plain.returncode, plain.stdout)
    assert watched.stderr.splitlines()[:-1] == plain.stderr.splitlines()


def test_a_package_is_imported_under_the_watch(program):
    (program.folder / "package").mkdir()
    program.write(
        **{"package/__init__": "import jax\nhalf = jax.jit(lambda x: x / 2)", "package/train": "import package\npackage.half(1.0)"}
    )
    assert "watched 1 call of 1 compiled function" in program.run("-m", "package.train").stderr


def test_the_program_s_own_print_of_a_traceback_has_its_own_frames(program):
    program.write(
        prints="""
        import traceback
        import jax, jax.numpy as jnp

        @jax.jit
        def step(x):
            return jnp.reshape(x, (5, 7))

        for bad in (lambda: jnp.ones(3) @ jnp.ones(4), lambda: jnp.linalg.inv(jnp.ones(3)), lambda: float(jnp.ones(3)), lambda: step(1.0)):
            try:
                bad()
            except Exception:
                traceback.print_exc()
        """
    )
    plain, watched = program.run("prints.py", plain=True), program.run("prints.py")
    assert "nandetect/" not in watched.stderr
    assert watched.stderr.splitlines()[:-1] == plain.stderr.splitlines()


def test_an_exception_is_printed_as_python_prints_it(program):
    program.write(broken="import jax.numpy as jnp\ndef f(x):\n    raise ValueError(f'no {x}')\nf(jnp.ones(2)[0])\n")
    plain, watched = program.run("broken.py", plain=True), program.run("broken.py")
    assert (watched.returncode, plain.returncode) == (1, 1)
    *traceback, line = watched.stderr.splitlines()
    assert traceback == plain.stderr.splitlines()
    assert line.startswith("nandetect: nothing non-finite")


WAITS = """
    import sys, time
    import jax, jax.numpy as jnp
    f = jax.jit(lambda x: jnp.log(x))
    for _ in range(2 if sys.argv[1:] else 0):
        try:
            f(jnp.zeros(3) - 1)
        except FloatingPointError:
            pass
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL, signal.SIGTERM], ids=lambda sent: sent.name)
def test_signals_end_the_program_as_they_end_python(program, sent):
    program.write(waits=WAITS)
    # Where the tests themselves run in the background, Ctrl-C is ignored, and a process that they start would inherit that.
    ignored = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = program.start("waits.py", "broken")
    signal.signal(signal.SIGINT, ignored)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(sent)
    _, err = process.communicate(timeout=60)
    assert process.returncode == -sent
    assert "error: `log` made nan" in err
    assert ("KeyboardInterrupt" in err) == (sent is signal.SIGINT)


def test_threads_and_forks(program):
    program.write(
        both="""
        import os, threading
        import jax, jax.numpy as jnp

        f = jax.jit(lambda x: jnp.sum(x * 2))

        def work():
            for _ in range(50):
                f(jnp.ones(3))

        pid = os.fork()
        if pid == 0:
            print("child")
            raise SystemExit(0)
        os.waitpid(pid, 0)
        threading.Thread(target=work).start()
        print("parent")
        """
    )
    result = program.run("both.py")
    assert (result.returncode, sorted(result.stdout.split())) == (0, ["child", "parent"])
    assert result.stderr.count("nandetect: ") == 1
    assert "watched 50 calls of 1 compiled function" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing.py"], "there is no script nothing.py"),
        (["."], ". is a directory without a __main__.py; name the script in it"),
        (
            ["-m", "no.such.module"],
            "there is no module no.such.module: is it installed, or did you mean the file no.such.module.py without -m?",
        ),
        (["text.py"], "text.py is not a Python program: invalid syntax (text.py, line 1)"),
        (
            ["--json", "nowhere/out.json", "text.py"],
            "--json nowhere/out.json: there is no directory nowhere; create it or give another path",
        ),
    ],
)
def test_what_cannot_be_run_is_said_in_one_line(program, arguments, said):
    program.write(text="this is no program")
    result = program.run(*arguments)
    assert (result.returncode, result.stderr, result.stdout) == (2, f"nandetect: {said}\n", "")


def test_a_module_beside_the_program_is_found_by_the_command_itself(program):
    (program.folder / "package").mkdir()
    program.write(**{"package/__init__": "", "package/train": "print('ran')"})
    command = Path(sys.executable).with_name("nandetect")
    done = subprocess.run([command, "run", "-m", "package.train"], cwd=program.folder, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "ran\n")


def test_the_traceback_is_the_programs_own_also_where_it_was_jitted(program):
    program.write(broken="import jax, jax.numpy as jnp\n@jax.jit\ndef f(x):\n    return x.reshape(5, 7)\nf(jnp.ones(3))\n")
    plain, watched = program.run("broken.py", plain=True), program.run("broken.py")
    assert watched.stderr.splitlines()[:-1] == plain.stderr.splitlines()


def test_the_backend_is_started_by_the_program_alone(program):
    program.write(
        sets="""
        import atexit, functools, gc, os
        import jax, jax.numpy as jnp
        from jax._src import xla_bridge

        def started():
            print(xla_bridge.backends_are_initialized())

        atexit.register(started)
        jax.jit(lambda x: x)
        functools.partial(jax.jit, static_argnums=0)(lambda n, x: x)
        kept = jax.jit(lambda x: jnp.log(x))
        mapped = jax.pmap(lambda x: x)
        half = jax.custom_jvp(lambda x: x / 2)
        gc.collect()
        started()
        """
    )
    assert program.run("--json", "out.json", "sets.py").stdout == "False\nFalse\n"


def test_what_is_set_after_a_library_that_jits_was_imported_counts(program):
    program.write(
        library="import jax\njax.jit(lambda x: x)\nstep = jax.jit(lambda x: x + 1)\n",
        sets="""
        import os
        import library
        os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=3"
        import jax
        print(jax.device_count())
        """,
    )
    assert program.run("sets.py").stdout == "3\n"


CHECKED = """
    import sys
    import jax, jax.numpy as jnp

    def fail(x):
        raise ArithmeticError("not finite")

    @jax.jit
    def step(x):
        y = jnp.log(x).sum()
        return jax.lax.cond(jnp.isnan(y), lambda: jax.pure_callback(fail, y, y), lambda: y)

    def guarded(x):
        try:
            return float(step(x))
        except Exception:
            if sys.argv[1] == "handled":
                return 0.0
            raise

    print(guarded(jnp.array([1.0])), guarded(jnp.array([-1.0])))
"""


def test_a_program_that_dies_of_its_nan_is_located(program):
    program.write(checked=CHECKED)
    plain, ran = program.run("checked.py", "", plain=True), program.run("checked.py", "")
    assert (ran.returncode, ran.stdout, plain.returncode) == (1, plain.stdout, 1)
    assert "`log` made nan in the forward pass of step 1" in ran.stderr and "checked.py:10:" in ran.stderr
    assert "not finite" in ran.stderr and "nothing non-finite" not in ran.stderr


def test_a_program_that_handles_what_its_nan_raised_is_as_under_python(program):
    program.write(checked=CHECKED)
    ran = program.run("checked.py", "handled")
    assert (ran.returncode, ran.stdout) == (0, "0.0 0.0\n")


REFUSING = """
import sys
import jax.numpy as jnp, numpy as np


def validated(p):
    if not np.all((p >= 0) & (p <= 1)):
        raise ValueError("no probabilities")
    return p


def clipped(p):
    return p if (p >= 0).all() else jnp.nan_to_num(p)


p = jnp.sqrt(jnp.array([0.2, 0.8]) - 0.5)  # <-- origin
if sys.argv[1:]:
    clipped(p)
    {}["missing"]
validated(p)
"""


def test_a_program_that_refuses_a_nan_which_it_compared_is_located(program):
    program.write(refuses=REFUSING)
    result = program.run("refuses.py")
    assert result.returncode == 1
    assert "ValueError: no probabilities" in result.stderr
    assert "error: `sqrt` made nan" in result.stderr and "# <-- origin" in result.stderr


def test_a_program_that_handled_the_nan_which_it_compared_and_ends_of_something_else_is_as_under_python(program):
    program.write(refuses=REFUSING)
    result = program.run("refuses.py", "handled")
    assert result.returncode == 1
    assert "KeyError: 'missing'" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("nandetect: nothing non-finite")
