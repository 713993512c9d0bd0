"""The findings of the rules on histories written by hand, of which the truth is known."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import numpy as np
import pytest
from histories import BIASES, KERNELS, LEAVES, history

from nandetect.findings import CODES
from nandetect.history import History, Leaf
from nandetect.monitor.rules import judge
from nandetect.monitor.rules.layers import cell_of, classes, kernels
from nandetect.monitor.rules.spikes import spike_points


def column(name, place, values, **kw) -> dict[str, Any]:
    """The healthy column with some leaves' values replaced."""
    healthy = history(**kw).layers[name].copy()
    healthy[:, place] = values
    return {name: healthy}


def only(findings):
    """The one finding above a note."""
    loud = [finding for finding in findings if finding.severity != "note"]
    assert len(loud) == 1, [(finding.rule, finding.message) for finding in loud]
    return loud[0]


def test_a_healthy_run_has_no_finding():
    assert judge(history()) == []


def test_a_run_of_no_steps_has_no_finding():
    assert judge(History()) == []


def test_a_finding_says_rule_code_severity_cause_layer_step_and_what_was_measured():
    finding = only(judge(history(**column("update", KERNELS[1], 0.0))))
    assert dataclasses.asdict(finding) == {
        "rule": "frozen-parameters",
        "code": CODES["frozen-parameters"],
        "severity": "warning",
        "message": "the optimizer never moves layers[1].w in 300 steps",
        "cause": "its gradient arrives and its update is exactly 0",
        "layer": "layers[1].w",
        "step": 0,
        "measured": 0.0,
        "expected": "> 0",
        "help": "look for a mask or a label of the optimizer (`optax.masked`, `multi_transform`, `set_to_zero`) or a learning rate of 0; "
        "if it is meant, do not give its gradient",
        "report": None,
    }


def test_leaves_without_gradients_are_frozen_on_purpose():
    given = history()
    for name in (
        "gradient",
        "gradient_max",
        "gradient_zero",
        "gradient_tiny",
        "gradient_idle",
        "gradient_nonfinite",
        "update",
        "update_zero",
    ):
        given.layers[name][:, [0, 1]] = np.nan
    assert judge(given) == []


def test_a_gradient_that_is_always_zero_is_detached():
    zero = history()
    for name, value in (("gradient", 0.0), ("gradient_zero", 1.0), ("gradient_idle", 1.0)):
        zero.layers[name][:, [0, 1, 2, 3]] = value
    finding = only(judge(zero))
    assert (finding.rule, finding.layer) == ("frozen-parameters", "layers[0].w")
    assert finding.cause == "its gradient is exactly 0: detached from the loss"


def test_a_dead_layer_is_not_taken_for_a_detached_one():
    """The layer after a dead one is given zeros: its kernel has no gradient and its bias has one."""
    dead = history(loss=np.full(300, math.log(10)))
    for name, value in (("gradient", 0.0), ("gradient_zero", 1.0), ("gradient_idle", 1.0)):
        dead.layers[name][:, [0, 1, 2, 3, 5]] = value
    finding = only(judge(dead))
    assert (finding.rule, finding.severity, finding.layer) == ("dead-units", "error", "layers[0].w")
    assert finding.message == ("32 of 32 units of `layers[0].w` get no gradient from any sample of any recent batch (so are layers[1].w)")


def test_units_that_a_small_batch_leaves_out_are_not_dead():
    """With one sample in a batch half the ReLUs are off, others in each step."""
    share = 0.6 + 0.08 * np.random.default_rng(1).normal(size=300)
    assert judge(history(**column("gradient_zero", BIASES[0], share))) == []


def test_rows_of_an_embedding_that_a_batch_does_not_use_are_not_dead():
    leaves = (Leaf(path="embed", shape=(1000, 32), dtype="float32"), *LEAVES)
    given = history(leaves=leaves)
    given.layers["gradient_zero"][:, 0] = 0.97
    given.layers["gradient_idle"][:, 0] = 0.0
    assert judge(given) == []


def test_a_loss_that_is_not_finite_is_named_with_its_first_step_and_leaves():
    bad = history()
    bad.series["loss"][120:] = np.nan
    bad.layers["gradient_nonfinite"][119:, [4, 5]] = 7
    bad.layers["weight_nonfinite"][120:] = 7
    finding = only(judge(bad))
    assert (finding.rule, finding.severity, finding.step, finding.layer) == ("non-finite", "error", 119, "layers[2].b")
    assert finding.message == "the gradient of layers[2].b and layers[2].w is not finite from step 119 on"


def test_a_loss_that_is_given_now_and_then_is_not_missing():
    given = history()
    given.series["loss"][np.arange(300) % 10 != 0] = np.nan
    assert judge(given) == []


def test_steps_that_were_skipped_are_counted_and_not_taken_for_broken_ones():
    skipped = history()
    at = np.arange(20, 300, 20)
    skipped.layers["gradient_nonfinite"][at] = 64
    skipped.layers["update"][at] = 0
    skipped.layers["update_zero"][at] = 1
    finding = only(judge(skipped))
    assert (finding.rule, finding.severity, finding.step) == ("skipped-steps", "warning", 20)
    assert finding.message == "14 of 300 steps changed nothing, the first at step 20: their gradient was not finite"


@pytest.mark.parametrize("at", [[0, 1, 2, 3, 4, 5], [100], [50, 200]])
def test_a_loss_scale_that_comes_down_and_a_skipped_step_now_and_then_are_no_fault(at):
    skipped = history()
    skipped.layers["gradient_nonfinite"][at] = 64
    skipped.layers["update_zero"][at] = 1
    assert judge(skipped) == []


def test_updates_of_the_parameters_size_and_a_loss_that_jumps_are_one_finding():
    loss = np.concatenate([[2.4, 30, 900, 400], np.full(296, 2.5)])
    update = np.where(np.arange(300)[:, None] < 8, 0.5, 1e-3) * history().layers["weight"]
    weight = history().layers["weight"] * np.where(np.arange(300)[:, None] < 1, 1, 4)
    finding = only(judge(history(loss=loss, update=update, weight=weight)))
    assert (finding.rule, finding.severity, finding.cause) == ("learning-rate-high", "error", "a learning rate too high")
    assert finding.message == (
        "updates are 0.5 times the size of the parameters (about 0.001 is usual) at step 0; the loss went from 2.4 to 900 and stands at 2.5"
    )


def test_updates_that_get_nowhere_are_a_rate_too_low():
    update = 3e-6 * history().layers["weight"]
    loss = 2.6 + 0.05 * np.random.default_rng(0).normal(size=300)
    kept = {"along": np.full(300, -1e-6), "along_before": np.full(300, -0.9e-6)}
    finding = only(judge(history(loss=loss, update=update, **kept, **column("gradient", KERNELS, 1.0))))
    assert (finding.rule, finding.severity) == ("learning-rate-low", "warning")
    assert finding.help == "raise the learning rate, ten times at first: a step keeps 90% of the slope it began with"


def test_small_updates_of_a_run_that_is_done_are_not_too_low():
    update = 3e-6 * history().layers["weight"]
    assert judge(history(update=update, loss=np.full(300, 1e-5))) == []


def test_a_loss_at_chance_whose_slope_dies_with_the_batch_has_labels_without_meaning():
    loss = math.log(10) * (1 + 0.01 * np.random.default_rng(0).normal(size=300))
    finding = only(judge(history(loss=loss, along_before=np.zeros(300))))
    assert (finding.rule, finding.expected) == ("loss-at-chance", pytest.approx(math.log(10)))
    assert finding.cause == "labels that have nothing to do with the inputs, or inputs that carry nothing"
    assert finding.message == "after 300 steps the loss is 2.29, what a guess among 10 classes costs (ln 10 = 2.3)"


def test_inputs_are_measured_by_the_gradients_of_the_first_layer():
    """A kernel's gradient over its bias's is the norm of what the layer is given: 120 * sqrt(64) here."""
    gradient = history().layers["gradient"].copy()
    gradient[:, KERNELS[0]] = 120 * 8 * gradient[:, BIASES[0]]
    finding = only(judge(history(gradient=gradient)))
    assert (finding.rule, finding.layer, finding.severity) == ("inputs-unscaled", "layers[0].w", "warning")
    assert finding.measured == pytest.approx(120, rel=1e-3)


def test_a_gradient_that_falls_with_every_layer_vanishes():
    sizes = (64, *[32] * 6, 10)
    leaves = tuple(
        Leaf(path=f"layers[{i}].{name}", shape=shape, dtype="float32")
        for i, (m, n) in enumerate(itertools.pairwise(sizes))
        for name, shape in (("b", (n,)), ("w", (m, n)))
    )
    gradient = history(leaves=leaves).layers["gradient"] * np.repeat(5.0 ** np.arange(-6, 1), 2)
    loss = np.full(300, 2.4)
    finding = only(judge(history(leaves=leaves, gradient=gradient, loss=loss)))
    assert (finding.rule, finding.severity, finding.layer) == ("vanishing-gradient", "error", "layers[0].w")


def test_a_gradient_far_beyond_what_the_loss_asks_for_explodes():
    gradient = history().layers["gradient"] * 1e5
    gradient[:, BIASES[2]] = 0.3
    finding = only(judge(history(gradient=gradient, along=np.nan, along_before=np.nan, loss=np.full(300, 2.5))))
    assert (finding.rule, finding.step) == ("exploding-gradient", 0)


@pytest.mark.parametrize(
    "shapes, asked, cell",
    [
        ({"cell.wx": (2, 48), "cell.wh": (48, 48), "readout.w": (48, 10)}, "cell.wx", "cell.wh"),
        ({"cell.wx": (2, 48), "cell.wh": (48, 48), "readout.w": (48, 10)}, "readout.w", None),
        ({"gru.w_in": (8, 96), "gru.w_rec": (32, 96)}, "gru.w_in", "gru.w_rec"),
        ({"blocks.0.qkv": (16, 48), "blocks.0.out": (16, 16), "blocks.0.up": (16, 64)}, "blocks.0.out", None),
        ({"attn.query": (16, 16), "attn.key": (16, 16)}, "attn.key", None),
        ({"layer.wq": (16, 16), "layer.wo": (16, 16)}, "layer.wo", None),
    ],
)
def test_which_kernel_of_a_layer_is_recurrent(shapes, asked, cell):
    leaves = [Leaf(path=path, shape=shape, dtype="float32") for path, shape in shapes.items()]
    found = cell_of(leaves, list(shapes).index(asked))
    assert (None if found is None else leaves[found].path) == cell


def test_a_large_initial_scale_with_a_loud_loss_is_the_root_of_what_follows():
    weight = history().layers["weight"].copy()
    weight[:, KERNELS] *= 8
    loss = 200 * np.exp(-np.arange(300) / 100)
    finding = only(judge(history(weight=weight, loss=loss)))
    assert (finding.rule, finding.cause) == ("init-scale", "initial weights too large")
    assert finding.measured == pytest.approx(8 * finding.expected, rel=1e-3)


def test_kernels_that_start_and_stay_at_zero_are_named():
    still = history(loss=np.full(300, math.log(10)))
    still.layers["weight"][:, KERNELS] = 0
    still.layers["gradient"][:, [0, 1, 2, 3, 5]] = 0
    finding = only(judge(still))
    assert (finding.rule, finding.cause) == ("init-symmetry", "weights that all start at zero")


def test_float16_near_its_largest_and_below_its_smallest():
    half = tuple(dataclasses.replace(leaf, dtype="float16") for leaf in LEAVES)
    high = only(judge(history(leaves=half, **column("gradient_max", KERNELS[1], 40000.0))))
    assert (high.rule, high.layer, high.severity) == ("overflow-headroom", "layers[1].w", "warning")
    assert high.measured == pytest.approx(math.log2(65504 / 40000))
    low = only(judge(history(leaves=half, **column("gradient_tiny", KERNELS[0], 0.7))))
    assert (low.rule, low.layer, low.measured) == ("underflow", "layers[0].w", pytest.approx(0.72))


def test_updates_that_bfloat16_rounds_away_are_absorbed():
    half = tuple(dataclasses.replace(leaf, dtype="bfloat16") for leaf in LEAVES)
    weight = history().layers["weight"][:1]
    finding = only(judge(history(leaves=half, weight=weight, update=1e-4 * weight, loss=np.full(300, 2.5))))
    assert (finding.rule, finding.cause) == ("gradient-absorption", "updates smaller than what bfloat16 can add")


def test_a_loss_that_was_learned_and_lost_diverges():
    loss = np.concatenate([np.geomspace(2.5, 0.1, 200), np.geomspace(0.1, 50, 100)])
    gradient = history().layers["gradient"] * np.concatenate([np.ones(200), np.geomspace(1, 300, 100)])[:, None]
    finding = only(judge(history(loss=loss, gradient=gradient)))
    assert (finding.rule, finding.severity) == ("divergence", "error")
    assert finding.step is not None and 200 < finding.step < 260


def test_two_players_that_trade_loss_do_not_diverge():
    loss = 0.7 + 0.5 * np.arange(300) / 300 + 0.1 * np.random.default_rng(0).normal(size=300)
    assert judge(history(loss=loss)) == []


@pytest.mark.parametrize("shape", ["falls", "rises", "flat", "plateau"])
def test_three_times_the_usual_norm_is_found_and_nothing_else(shape):
    rng = np.random.default_rng(3)
    t = np.arange(1000)
    trend = {"falls": np.exp(-t / 200), "rises": 1 + t / 200, "flat": 1.0 + 0 * t, "plateau": 1 / (1 + np.exp(-(t - 500) / 20)) + 0.05}[
        shape
    ]
    norm = trend * np.exp(0.12 * rng.normal(size=1000))
    assert spike_points(norm) == []
    at = [150, 333, 777]
    norm[at] *= 3
    assert [point for point, _ in spike_points(norm)] == at


def test_a_batch_with_a_large_loss_has_a_large_gradient_and_is_no_spike():
    rng = np.random.default_rng(4)
    loss = np.exp(0.5 * rng.normal(size=1000))
    norm = loss * np.exp(0.05 * rng.normal(size=1000))
    loss[600] *= 20
    norm[600] *= 20
    norm[700] *= 3
    # The spike at 600 is explained by its loss; the one at 700 is not.
    assert [point for point, _ in spike_points(norm)] == [600]
    assert [point for point, _ in spike_points(norm, loss)] == [700]


def test_a_gradient_that_grows_and_stays_is_no_spike():
    gradient = history().layers["gradient"].copy()
    gradient[150:] *= 4
    assert "gradient-spike" not in {finding.rule for finding in judge(history(gradient=gradient))}
    # A gradient that grows and is soon back is a spike.
    gradient[153:] /= 4
    (note,) = judge(history(gradient=gradient))
    assert (note.rule, note.step) == ("gradient-spike", 150)


def test_a_single_spike_is_a_note_and_many_are_warnings():
    gradient = history().layers["gradient"].copy()
    gradient[150] *= 4
    (note,) = judge(history(gradient=gradient))
    assert (note.rule, note.severity, note.step) == ("gradient-spike", "note", 150)
    gradient[[70, 110, 190, 230, 270]] *= 4
    assert [finding.severity for finding in judge(history(gradient=gradient))] == ["warning"] * 6


def test_most_columns_may_be_missing():
    given = history()
    sparse = dataclasses.replace(given, layers={"gradient": given.layers["gradient"]}, series={"loss": given.series["loss"]})
    assert judge(sparse) == []
    assert judge(dataclasses.replace(given, leaves=(), layers={}, series={"loss": given.series["loss"]})) == []


def test_what_is_measured_of_every_twentieth_step_is_enough():
    given = history(loss=np.full(300, math.log(10)))
    for name, value in (("gradient", 0.0), ("gradient_zero", 1.0), ("gradient_idle", 1.0)):
        given.layers[name][:, [0, 1, 2, 3, 5]] = value
    light = (np.arange(300) >= 20) & (np.arange(300) % 20 != 0)
    for name, values in given.layers.items():
        if name not in ("gradient", "gradient_nonfinite"):
            values[light] = np.nan
    assert only(judge(given)).rule == "dead-units"


@pytest.mark.parametrize(
    ("paths", "first", "last"),
    [
        (["layer10.w", "layer2.w", "layer1.w"], "layer1.w", "layer10.w"),
        (["blocks[0].up", "embed", "head"], "embed", "head"),
        (["Dense_0.kernel", "Dense_10.kernel", "Dense_9.kernel"], "Dense_0.kernel", "Dense_10.kernel"),
        (["cell.wh", "cell.wx", "readout.w"], "cell.wh", "readout.w"),
    ],
)
def test_layers_are_read_from_the_input_to_the_output(paths, first, last):
    order = [kernel.path for kernel in kernels([Leaf(path=path, shape=(8, 8), dtype="float32") for path in paths])]
    assert (order[0], order[-1]) == (first, last)


def test_the_classes_are_what_a_layer_gives_and_none_takes_also_with_the_outputs_first():
    assert classes(LEAVES) == (10,)
    flipped = [Leaf(path=leaf.path, shape=leaf.shape[::-1], dtype=leaf.dtype) for leaf in LEAVES]
    assert classes(flipped) == (10,)
