"""`pytest --nandetect`: what fails, what it says, what stays as it is. Each run is a process of its own, with JAX or without."""

from __future__ import annotations

import subprocess
import sys

import jax
import pytest

from nandetect.integrations.pytest_watch import Watching

HEAD = """
    import jax
    import jax.numpy as jnp
    import pytest

    @jax.jit
    def loss(p):
        return -jnp.log(p).sum()
"""
LOADED = "import sys\ndef pytest_unconfigure():\n    print('jax was imported:', 'jax' in sys.modules)"


@pytest.fixture
def run(pytester):
    """The result of running pytest with these options over a test file, in a process of its own and without other plugins' doing."""

    def result(source: str, *options: str, head: str = HEAD) -> pytest.RunResult:
        lines = [*head.splitlines(), *source.splitlines()]
        pytester.makepyfile(test_it="\n".join(line.removeprefix("    ") for line in lines))
        return pytester.runpytest_subprocess("-p", "no:cacheprovider", *options)

    return result


def test_what_a_compiled_call_returns_fails_the_test_at_the_call(run):
    result = run(
        """
    def test_loss():
        p = jnp.array([0.5, 0.0])
        loss(p)
        raise SystemError("not reached")

    def test_sound():
        assert loss(jnp.ones(2)) == 0
        """,
        "--nandetect",
    )
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(
        [
            ">       loss(p)",
            "E       nandetect.NonFiniteResult: `log` made -inf in the forward pass, at test_it.py:7",
            "test_it.py:11: NonFiniteResult",
            "* nandetect report *",
            "error: `log` made -inf in the forward pass        loss()",
            " --> test_it.py:7:13, in loss",
            "7 |     return -jnp.log(p).sum()",
            "  |             ^^^^^^^^^^ log of zero",
            "nandetect: 1 test made non-finite values, 2 calls watched",
        ]
    )
    result.stdout.no_fnmatch_line("*nandetect/guarding/*")


def test_a_test_that_passes_by_itself_fails_for_the_value_that_it_made(run):
    result = run(
        """
    def test_swallowed():
        try:
            loss(jnp.zeros(2))
        except FloatingPointError:
            pass

    def test_not_jitted():
        x = jnp.zeros(3)
        y = x / x
        assert y.shape == (3,)
        """,
        "--nandetect",
    )
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(
        [
            "*_ test_swallowed _*",
            "`log` made -inf in the forward pass, at test_it.py:7",
            "* nandetect report *",
            "*_ test_not_jitted _*",
            "`div` made nan in the forward pass, at test_it.py:17",
            "* nandetect report *",
            "error: `div` made nan in the forward pass        code that is not jitted",
            "17 |     y = x / x",
            "   |         ^^^^^ zero divided by zero",
        ]
    )


def test_a_failure_of_the_tests_own_has_the_report_beside_it(run):
    result = run(
        """
    def test_mean():
        x = jnp.zeros(3)
        mean = (x / x).mean()
        assert mean == 0
        """,
        "--nandetect",
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            ">       assert mean == 0",
            "E       assert Array(nan, dtype=float32) == 0",
            "* nandetect report *",
            "error: `div` made nan in the forward pass        code that is not jitted",
        ]
    )


def test_a_fixtures_work_is_the_tests_and_the_work_of_an_import_is_nobodys(run):
    result = run(
        """
    loss(jnp.zeros(2))
    x = jnp.zeros(2)
    x = x / x

    @pytest.fixture
    def start():
        return loss(jnp.zeros(2))

    def test_start(start):
        pass

    def test_after_an_import():
        pass
        """,
        "--nandetect",
    )
    result.assert_outcomes(errors=1, passed=1)
    result.stdout.fnmatch_lines(
        [
            ">       return loss(jnp.zeros(2))",
            "E       nandetect.NonFiniteResult: `log` made -inf in the forward pass, at test_it.py:7",
            "test_it.py:15: NonFiniteResult",
            "* nandetect report *",
        ]
    )


def test_the_mark_switches_one_test_off(run):
    result = run(
        """
    @pytest.mark.nandetect(False)
    def test_wants_nan():
        x = jnp.zeros(2)
        y = x / x
        assert not jnp.isfinite(loss(x))

    def test_after_it():
        assert jnp.isfinite(loss(jnp.ones(2)))

    def test_the_same_function_is_told_of_once_more():
        loss(jnp.zeros(2))
        """,
        "--nandetect",
        "--strict-markers",
    )
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["FAILED test_it.py::test_the_same_function_is_told_of_once_more - *"])


def test_the_mark_alone_watches_one_test_and_what_its_module_names(run):
    result = run(
        """
    bare = loss

    @pytest.mark.nandetect
    def test_marked():
        loss(jnp.zeros(2))

    def test_not_marked():
        loss(jnp.zeros(2))
        assert loss is bare and hasattr(loss, "clear_cache") and "nandetect" not in repr(loss)
        """,
        "--strict-markers",
    )
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(
        [
            ">       loss(jnp.zeros(2))",
            "E       nandetect.NonFiniteResult: `log` made -inf in the forward pass, at test_it.py:7",
            "* nandetect report *",
        ]
    )
    result.stdout.no_fnmatch_line("nandetect: *")


def test_a_mark_that_means_nothing_is_refused(run):
    result = run("""\n    @pytest.mark.nandetect("off")\n    def test_it():\n        pass""", head="    import pytest")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["ERROR: test_it.py::test_it: the mark is `nandetect` or `nandetect(False)`, and nothing else is said in it"]
    )


def test_without_the_option_nothing_happens(run):
    result = run(
        """
    def test_loss():
        before = jax.jit
        assert not jnp.isfinite(loss(jnp.zeros(2)))
        assert "nandetect" not in jax.jit.__code__.co_filename
        assert not [finder for finder in __import__("sys").meta_path if "nandetect" in type(finder).__module__]
        """
    )
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("nandetect: *")


def test_jax_is_not_imported_where_no_test_does(run, pytester):
    pytester.makeconftest(LOADED)
    result = run("    def test_it():\n        pass", "--nandetect", head="")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["nandetect: JAX was not imported", "jax was imported: False"])


def test_the_plugin_does_not_import_jax():
    code = "import sys, nandetect.integrations.pytest_plugin; print({'jax', 'jaxlib', 'numpy', 'rich'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_jax_may_be_set_up_after_its_import_and_what_a_conftest_jits_is_watched(run, pytester):
    pytester.makeconftest(
        """
        import jax, importlib.resources
        jax.config.update("jax_num_cpu_devices", 3)

        @jax.jit
        def root(x):
            return x**0.5

        assert importlib.resources.files("jax").joinpath("version.py").is_file()
        """
    )
    result = run(
        """
    from conftest import root

    def test_root():
        assert jax.device_count() == 3
        root(-1.0)
        """,
        "--nandetect",
        "-Werror",
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E       nandetect.NonFiniteResult: `*` made nan in the forward pass, at conftest.py:6"])


def test_everything_is_undone_at_the_end():
    before = jax.jit, jax.numpy.where, jax.Array.__add__
    watching = Watching()
    watching.open()
    assert jax.jit is not before[0]
    watching.close()
    assert (jax.jit, jax.numpy.where, jax.Array.__add__) == before


def test_where_jax_is_never_imported_the_finder_leaves(monkeypatch):
    monkeypatch.delitem(sys.modules, "jax")
    before, watching = list(sys.meta_path), Watching()
    watching.open()
    assert len(sys.meta_path) == len(before) + 1
    watching.close()
    assert sys.meta_path == before


def test_assert_finite_needs_no_option(run):
    result = run(
        """
    def test_tree(assert_finite):
        assert_finite({"w": jnp.ones(2), "b": jnp.array([0.0, jnp.inf, jnp.nan]), "n": 3})

    def test_function(assert_finite):
        assert_finite(loss, jnp.zeros(2))

    def test_what_comes_back(assert_finite):
        assert assert_finite(loss, jnp.ones(2)) == 0
        assert assert_finite(lambda: 1.0) == 1.0

    def test_inf_passes_through(assert_finite):
        assert_finite(lambda best: {"best": best}, jnp.inf)

    def test_numpy(assert_finite):
        import numpy as np
        assert_finite(lambda x: float(np.sqrt(np.asarray(x))) * np.nan, 1.0)
        """
    )
    result.assert_outcomes(failed=4, passed=1)
    result.stdout.fnmatch_lines(
        [
            '>       assert_finite({"w": jnp.ones(2), "b": jnp.array(*',
            "E       AssertionError: the pytree is not finite",
            "E         [[]'b'[]]: 1 nan, 1 inf of 3, first at [[]1[]]",
            ">       assert_finite(loss, jnp.zeros(2))",
            "E       AssertionError: error: `log` made -inf in the forward pass        loss()",
            "E        --> test_it.py:7:13, in loss",
            "E       7 |     return -jnp.log(p).sum()",
            "E         |             ^^^^^^^^^^ log of zero",
            "E       AssertionError: what it returned is not finite",
            "E         [[]'best'[]]: 1 inf of 1",
            "E       AssertionError: what it returned is not finite",
            "E         it: 1 nan of 1",
        ]
    )


def test_assert_finite_grads_with_the_option_tells_once(run):
    result = run(
        """
    def norm(params, at):
        return jnp.sqrt((params["w"] ** 2).sum()) + params["n"] * at

    def test_zero(assert_finite_grads):
        assert_finite_grads(norm, {"w": jnp.zeros(2), "n": 1}, 2)

    def test_one(assert_finite_grads):
        gradient = assert_finite_grads(norm, {"w": jnp.array([3.0, 4.0]), "n": 1}, 2)
        assert jnp.allclose(gradient["w"], jnp.array([0.6, 0.8]))

    def test_nothing_to_differentiate(assert_finite_grads):
        with pytest.raises(ValueError, match="wants an argument that holds floating numbers"):
            assert_finite_grads(norm, {"w": 1, "n": 1}, 2)
        """,
        "--nandetect",
    )
    result.assert_outcomes(failed=1, passed=2)
    result.stdout.fnmatch_lines(
        [
            '>       assert_finite_grads(norm, {"w": jnp.zeros(2), "n": 1}, 2)',
            "E       AssertionError: error: `div` made inf in the backward pass        norm()",
            'E       10 |     return jnp.sqrt((params[[]"w"[]] *',
            "nandetect: 1 test made non-finite values, 0 calls watched",
        ]
    )
    result.stdout.no_fnmatch_line("* nandetect report *")
