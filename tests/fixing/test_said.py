"""What is said of a fix: in the user's own names, proven or not, alone or together with another, and what is next."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

import nandetect as nd
from nandetect import fixing
from nandetect.fixing import locate
from nandetect.render import terminal

X = jnp.array([0.0, 200.0, 1.0])


def report_of(step, *args, **options):
    report = nd.locate(step, *args, **options)
    assert report is not None
    return report


def first(step, *args, **options):
    return report_of(step, *args, **options).fixes[0]


def test_the_change_is_shown_in_the_users_own_expression():
    def step(n, c):
        return jnp.where(n > 0, c / n, 0.0).sum()

    fix = first(jax.grad(step), jnp.array([0.0, 2.0]), jnp.ones(2))
    assert (fix.before, fix.after) == ("c / n", "c / jnp.where(n > 0, n, 1.0)")


def test_an_operand_is_called_what_it_was_assigned_to_or_what_is_written_there():
    def step(x, w):
        logits = x @ w
        probs = jax.nn.softmax(logits)
        return -jnp.log(probs).mean()

    fix = first(step, X[None], 2 * jnp.eye(3))
    assert (fix.before, fix.after) == ("jnp.log(probs)", "jax.nn.log_softmax(logits)")


def test_where_the_operands_are_a_librarys_own_the_general_form_is_shown():
    fix = first(jax.grad(lambda x: jnp.linalg.norm(x)), 0 * X)
    assert (fix.code, fix.before, fix.proven) == ("ND222", "jnp.linalg.norm(x)", True)


def test_proven_says_what_was_measured():
    fix = first(lambda x: jnp.log(jax.nn.softmax(x)), X)
    assert fix.proven
    assert fix.proof is not None
    assert fix.proof.startswith("with it the result of this step is finite; where the old form is sound, values and slopes agree (to ")


def test_where_a_choice_of_ours_shows_it_is_advice():
    fix = first(lambda x: jnp.log(jax.nn.relu(x)).mean(), jnp.array([-1.0, 2.0]))
    assert not fix.proven
    assert fix.proof is not None and "what was chosen for the edge shows in the results: the choice is yours" in fix.proof


def test_where_two_faults_hide_one_another_both_are_mended():
    def step(x, z):
        return jnp.arctan2(x, z), jnp.arccos(z + 1 - z * z)

    report = report_of(jax.grad(lambda z: sum(part * 0 for part in step(0 * z, z))), jnp.float32(0))
    assert {fix.code for fix in report.fixes} == {"ND235", "ND236"}
    assert all(fix.proven for fix in report.fixes)
    assert "with both changes the result of this step is finite" in (report.fixes[0].proof or "")
    assert "help: and `jnp." in terminal.text(report)


def test_where_the_next_fault_has_no_cure_it_is_named():
    def step(x):
        return jnp.log(jax.nn.softmax(x)), x * 1e30 * 1e30

    fix = first(step, X)
    assert (fix.code, fix.proven) == ("ND201", False)
    assert fix.proof is not None and fix.proof.startswith("with it this fault is gone, and the next one is `mul` at line ")


def test_without_a_proof_the_fix_is_advice_and_nothing_is_run():
    fix = first(lambda x: jnp.log(jax.nn.softmax(x)), X, prove=False)
    assert (fix.code, fix.proven, fix.proof) == ("ND201", False, None)


def test_a_command_may_leave_the_proof_out(monkeypatch):
    monkeypatch.setattr(fixing, "PROVES", False)
    fix = first(lambda x: jnp.log(jax.nn.softmax(x)), X)
    assert (fix.code, fix.proven, fix.proof) == ("ND201", False, None)


def test_under_guard_a_fault_that_comes_again_is_proven_once(monkeypatch):
    counted = []
    prescribe = locate.prescribed

    def counting(*args):
        counted.append(args)
        return prescribe(*args)

    monkeypatch.setattr(locate, "prescribed", counting)
    jitted = jax.jit(lambda x: jnp.log(jax.nn.softmax(x)))
    for _ in range(2):
        step = nd.guard(jitted, check_every=1)
        with pytest.raises(nd.NonFiniteError) as error:
            step(X)
            step.flush()
        assert error.value.report.fixes[0].proven
    assert len(counted) == 1


@pytest.mark.parametrize("error", [RuntimeError("no luck"), KeyError("ND000")])
def test_a_fix_that_cannot_be_found_costs_no_report(monkeypatch, error):
    def fails(*args):
        raise error

    monkeypatch.setattr(locate, "_fixes", fails)
    report = report_of(lambda x: jnp.log(jax.nn.softmax(x)), X)
    assert (report.origin.primitive, report.fixes) == ("log", ())


def test_a_name_that_means_something_else_where_the_form_stands_is_said_to():
    def step(x, w):
        w = x @ w
        w = jnp.exp(w - jax.lax.stop_gradient(w.max()))
        w = w / w.sum()
        return -jnp.log(w).mean()

    first_line = step.__code__.co_firstlineno
    fix = first(step, X, jnp.eye(3))
    assert (fix.before, fix.after) == ("jnp.log(w)", f"jax.nn.log_softmax(w)  # names as at line {first_line + 2}")


def surprisal(p):
    return -jnp.log(p).mean()


def test_a_name_of_another_function_is_said_to_be_one():
    def step(x):
        scores = 2 * x
        return surprisal(jax.nn.softmax(scores))

    fix = first(step, X)
    assert (fix.before, fix.after) == ("jnp.log(p)", f"jax.nn.log_softmax(scores)  # names as at line {step.__code__.co_firstlineno + 2}")


def test_a_name_of_a_function_around_it_needs_no_word():
    def step(x):
        scores = 2 * x

        def inner():
            return -jnp.log(jax.nn.softmax(scores)).mean()

        return inner()

    assert first(step, X).after == "jax.nn.log_softmax(scores)"


def test_an_infinity_that_a_form_makes_and_that_is_lost_on_the_way_is_no_cure():
    def step(x):
        variance = jnp.mean(x * x) - jnp.mean(x) ** 2
        return ((x - x.mean()) / jnp.sqrt(variance + 1e-5)).sum()

    # Its variance is 1e42: in float32 inf, and x / inf is 0.
    assert not any(fix.proven for fix in report_of(step, jnp.array([0.0, 3e21, 1e21])).fixes)


def test_where_two_operations_of_a_branch_break_what_both_read_is_guarded():
    def step(angle):
        square = angle * angle
        small = square < 1e-8
        return jnp.where(small, 1 - square / 6, jnp.sin(jnp.sqrt(square)) / jnp.sqrt(square))

    fix = first(jax.grad(lambda angles: step(angles).sum()), jnp.array([0.0, 2.0]))
    assert (fix.code, fix.proven, fix.before) == ("ND221", True, "jnp.sin(jnp.sqrt(square)) / jnp.sqrt(square)")
    assert fix.after == "jnp.sin(jnp.sqrt(jnp.where(small, 1.0, square))) / jnp.sqrt(jnp.where(small, 1.0, square))"
