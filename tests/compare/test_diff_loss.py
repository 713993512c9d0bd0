"""diff-loss: pairs from the field are judged right, thresholds and the smallest inputs are what the functions do, the text is whole."""

from __future__ import annotations

import functools
import json
import math
import re
from importlib import resources

import jax
import jax.numpy as jnp
import jsonschema
import numpy as np
import pytest
from commands import nandetect_command, refused
from pairs import (
    BOTH_SOUND,
    FACTOR,
    NAIVE_AND_STABLE,
    cross_entropy_naive,
    cross_entropy_stable,
)

from nandetect.compare import CompareSettings
from nandetect.compare.compare import between
from nandetect.compare.pair import Side
from nandetect.errors import UsageError


def judged(first, second, **options):
    """A comparison in one dtype, untimed, on small arrays."""
    options = {"shape": (2, 4), "timed": False, "surveyed": False, **options}
    return between((Side("one", first), Side("two", second)), CompareSettings(first="one", second="two", **options))


@functools.cache
def of_pair(name):
    """The comparison of a naive and a stable form."""
    return judged(*NAIVE_AND_STABLE[name])


def of_fixed_width(form):
    """A loss of a model that refuses any width but its own."""

    def loss(x):
        if x.shape != (2, 4):
            raise ValueError(f"the model takes [2, 4], not {list(x.shape)}")
        return -form(x)[:, 0].mean()

    return loss


def test_a_model_of_fixed_width_is_judged_in_the_shape_that_it_takes():
    found = judged(of_fixed_width(lambda x: jnp.log(jax.nn.softmax(x))), of_fixed_width(jax.nn.log_softmax))
    assert sound(found) == [False, True]


def sound(found):
    return [one.sound for one in found.judged]


@pytest.fixture(scope="module")
def surveyed():
    """The comparison of softmax-then-log without a shift with the library's form, in all three types."""
    return judged(cross_entropy_naive, cross_entropy_stable, surveyed=True)


@pytest.mark.parametrize("name", NAIVE_AND_STABLE)
def test_the_naive_one_is_at_fault_and_the_stable_one_is_sound(name):
    found = of_pair(name)
    assert sound(found) == [False, True]
    assert found.sameness.relation == "same"
    assert {finding.severity for finding in found.findings} == {"error"}
    assert all("`one`" in finding.message for finding in found.findings)


@pytest.mark.parametrize("name", NAIVE_AND_STABLE)
def test_the_input_that_is_printed_shows_the_fault_when_it_is_pasted(name):
    naive, stable = NAIVE_AND_STABLE[name]
    (one, _) = of_pair(name).judged
    survey = one.surveys[0]
    shown = [(broken.what, broken.input, broken.truth) for broken in one.breakages]
    shown = shown or [
        (worst.what, worst.input, worst.truth) for worst in (survey.worst_value, survey.worst_gradient) if worst and worst.ulps > 16
    ]
    assert shown
    for what, given, truth in shown:
        pasted: dict = {}
        exec("\n".join(given.code), {"jnp": jnp}, pasted)
        value, gradient = (np.asarray(out, np.float64) for out in jax.jit(jax.value_and_grad(naive))(*pasted.values()))
        kept = np.asarray((stable if what == "value" else jax.grad(stable))(*pasted.values()), np.float64)
        broken = value if what == "value" else gradient
        assert not np.isfinite(broken).all() or abs(broken - truth) > 16 * 2**-23
        assert np.isfinite(kept).all()
        # The sound form may be off by what the inputs' own rounding does: no fault, and far less than the naive form loses.
        lost = np.abs(broken - truth).max()
        assert np.abs(kept - truth).min() <= max(1e-4 * max(abs(truth), 1), lost / 20 if np.isfinite(lost) else 0)


@pytest.mark.parametrize("name", BOTH_SOUND)
def test_another_order_of_a_sound_computation_is_no_fault(name):
    found = judged(*BOTH_SOUND[name])
    assert sound(found) == [True, True]
    assert found.sameness.relation == "same"
    assert found.findings == ()


def test_ten_times_the_other_is_another_function_and_no_fault():
    found = judged(*FACTOR)
    assert (found.sameness.relation, found.sameness.amount) == ("factor", 10)
    assert "they are different functions: `two` is 10 times `one`" in found.verdict
    assert [(finding.rule, finding.severity) for finding in found.findings] == [("different-function", "note")]


def test_an_offset_is_told():
    found = judged(cross_entropy_stable, lambda logits, labels: cross_entropy_stable(logits, labels) + 0.5)
    assert (found.sameness.relation, found.sameness.amount) == ("offset", 0.5)


def first_broken(function, args, low, high):
    """The first of many sizes at which the compiled function is not finite."""
    compiled = jax.jit(function)
    for size in np.geomspace(low, high, 400):
        if not math.isfinite(compiled(*args(size))):
            return float(size)
    return None


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_thresholds_are_those_of_the_compiled_function_to_one_percent(surveyed, dtype):
    (survey,) = [one for one in surveyed.judged[0].surveys if one.dtype == dtype]
    (threshold,) = [one for one in survey.thresholds if (one.family, one.what) == ("all equal", "value")]
    measured = first_broken(cross_entropy_naive, lambda size: (jnp.full((2, 4), size, dtype), jnp.eye(4, dtype=dtype)[:2]), 5, 150)
    assert threshold.broken_from == pytest.approx(measured, rel=0.01)


@pytest.mark.parametrize(("dtype", "size"), [("float32", 88.72), ("bfloat16", 88.72), ("float16", 11.09)])
def test_the_exponential_inside_overflows_where_its_type_ends(surveyed, dtype, size):
    (survey,) = [one for one in surveyed.judged[0].surveys if one.dtype == dtype]
    limit = min((one for one in survey.limits if one.primitive == "exp"), key=lambda one: one.at)
    assert limit.at == pytest.approx(size, rel=0.01)
    assert limit.source is not None and "jnp.exp(logits)" in limit.source.code


def test_a_log_of_a_softmax_meets_zero_where_this_machine_underflows():
    def naive(logits, labels):
        return -jnp.mean(jnp.sum(labels * jnp.log(jax.nn.softmax(logits)), -1))

    found = judged(naive, cross_entropy_stable)
    flushed = float(jax.jit(lambda x: x * 0.5)(jnp.float32(np.finfo(np.float32).tiny))) == 0
    told = re.search(r"non-finite for logit gaps over ([\d.]+) in float32", found.verdict)
    assert told and float(told[1]) == pytest.approx(87.34 if flushed else 103.3, rel=0.01)
    (broken, *_) = found.judged[0].breakages
    assert broken.report is not None and (broken.report.origin.primitive, broken.report.origin.reason) == ("log", "log of zero")


def test_an_inaccurate_function_is_told_with_the_subtraction_that_cancels():
    (one, _) = of_pair("variance").judged
    assert one.parting is not None
    assert one.parting.event.primitive == "sub"
    assert one.parting.event.source is not None and "jnp.mean(x**2) - jnp.mean(x) ** 2" in one.parting.event.source.code


def test_nobody_is_blamed_where_there_is_no_truth():
    found = judged(lambda x: jnp.mean(jnp.log(x)), lambda x: jnp.mean(jnp.log(2 * x)) - jnp.log(2.0))
    assert sound(found) == [True, True]


def test_classes_as_labels_are_found_by_trying():
    def classes(logits, labels):
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], -1))

    found = judged(classes, classes)
    assert (found.labels, found.shapes) == ("classes", ((2, 4), (2,)))


def test_a_function_of_one_example_is_swept_over_one():
    def cosine(a, b):
        return 1 - a @ b / jnp.sqrt((a @ a) * (b @ b))

    assert judged(cosine, cosine, shape=None).shapes == ((10,), (10,))


def test_without_an_exact_rule_float64_stands_in_and_is_told():
    def logdet(x):
        return jnp.linalg.slogdet(jnp.eye(4) + x @ x.T / 1e12)[1]

    found = judged(logdet, logdet, shape=(4, 1))
    assert not found.judged[0].exact
    assert "float64 stands in for its truth" in found.notes[0]


@pytest.mark.parametrize(
    ("first", "options", "said"),
    [
        (lambda x, labels: x, {}, "one returns float32[2,4] for `x` of shape [2, 4], and a loss returns one floating number"),
        (lambda x, y, z: jnp.sum(x), {}, "the two losses take different numbers of arguments: one 3 (x, y, z) and two 2 (logits, labels)"),
        (cross_entropy_stable, {"labels": "twohot"}, "--labels twohot is not known"),
        (cross_entropy_stable, {"shape": (64, 64)}, "`logits` of shape [64, 64] has 4,096 numbers: give 1,024 or fewer"),
        (lambda logits, labels: jnp.sum(logits @ labels), {}, "one could not be traced on (float32[2,4], float32[2,4])"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(first, options, said):
    with pytest.raises(UsageError) as error:
        judged(first, cross_entropy_stable, **options)
    assert str(error.value).startswith(said)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("naive", "stabel"), "there is no loss stabel: did you mean stable?"),
        (("naive", "stable", "--shape", "4,x"), "--shape 4,x: give whole numbers"),
    ],
)
def test_the_command_refuses_in_one_line(arguments, said):
    assert refused("diff-loss", *arguments).startswith(f"nandetect: {said}")


def test_the_command_says_the_verdict_first_and_writes_a_document_that_follows_the_schema(tmp_path):
    out = tmp_path / "out.json"
    done = nandetect_command("diff-loss", "naive", "stable", "--json", out)
    assert done.returncode == 1, done.stderr
    told = " ".join(done.stdout.split("\n\n")[0].split())
    assert re.match(
        r"`naive` is non-finite for logit gaps over [\d.]+ in float32 and its gradient is \S+ there; `stable` is finite throughout", told
    )
    document = json.loads(out.read_text())
    jsonschema.validate(document, json.loads(resources.files("nandetect.render").joinpath("schema.json").read_text()))
    assert document["diff_loss"]["verdict"] == told
    assert [one["sound"] for one in document["diff_loss"]["judged"]] == [False, True]
    assert {finding["rule"] for finding in document["findings"] if finding["severity"] == "error"} == {"non-finite"}
