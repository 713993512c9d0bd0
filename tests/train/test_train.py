"""`nandetect train`: what it learns, what it finds, and what it refuses."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nandetect import cli
from nandetect.data import Part
from nandetect.errors import UsageError
from nandetect.history import History
from nandetect.records import Report
from nandetect.targets import model_file
from nandetect.train import ledger
from nandetect.train.loop import run
from nandetect.train.observers import Observer
from nandetect.train.optimizers import OPTIMIZERS
from nandetect.train.prepare import batches, prepare
from nandetect.train.settings import TrainSettings
from nandetect.train.step import accuracy, global_norm

# Settings that compile in no time, for tests that do not depend on the model.
SMALL = {"samples": 40, "hidden": (), "inputs": "unit"}
MLP = model_file.load("mlp").file
MODEL = """
import jax
import jax.numpy as jnp

def init(key, sizes):
    return jax.random.normal(key, (sizes[0], sizes[-1])) * 1e-3

def apply(params, inputs):
    return inputs @ params
"""


def line_of(text: str) -> int:
    """The line of the bundled model in which `text` stands."""
    return next(number for number, line in enumerate(MLP.read_text().splitlines(), start=1) if text in line)


def faults(result):
    """The non-finite findings of a run, without those on how the weights were drawn and the inputs scaled."""
    return tuple(finding for finding in result.findings if finding.rule == "non-finite")


def found(**settings):
    """The one fault that a run found."""
    (finding,) = faults(run(TrainSettings(**settings, audit=False)))
    return finding


def reported(finding) -> Report:
    """The report of a fault that has one."""
    assert finding.report is not None
    return finding.report


def test_the_naive_loss_fails_forward_at_its_logarithm():
    origin = reported(found(loss="naive", debug_nans=True)).origin
    assert (origin.primitive, origin.value, origin.phase) == ("log", "-inf", "forward")
    assert origin.source is not None
    assert (Path(origin.source.file), origin.source.line) == (MLP.resolve(), line_of("jnp.log(probs)"))


def test_the_xlogy_loss_fails_in_its_derivative():
    finding = found(loss="xlogy", debug_nans=True)
    report = reported(finding)
    origin = report.origin
    assert (origin.primitive, origin.phase) == ("div", "backward")
    assert origin.source is not None
    assert (Path(origin.source.file), origin.source.line) == (MLP.resolve(), line_of("jnp.sum(xlogy(labels, probs)"))
    assert (finding.step, report.label) == (report.step, "loss xlogy · float32")


def test_a_run_that_was_stopped_counts_its_sound_steps():
    result = run(TrainSettings(loss="naive", debug_nans=True))
    assert (result.stopped, result.steps) == ("non-finite", faults(result)[0].step)
    assert result.loss is not None and np.isfinite(result.loss)
    assert (result.accuracy, result.held_out_accuracy) == (None, None)


def test_the_stable_loss_learns_all_the_digits_under_the_same_defaults():
    result = run(TrainSettings(debug_nans=True))
    assert (result.loss_name, faults(result), result.stopped) == ("stable", (), "finished")
    assert result.held_out_accuracy is not None and result.held_out_accuracy > 0.95


def test_forty_samples_are_learned_by_heart():
    result = run(TrainSettings(samples=40, steps=200, debug_nans=True))
    assert (result.train_samples, result.accuracy, faults(result)) == (40, 1.0, ())
    assert result.overfit is not None
    assert result.overfit.epoch == result.overfit.steps <= 200


def test_without_the_guard_a_broken_loss_is_still_told():
    finding = found(loss="naive", steps=700)
    guarded = found(loss="naive", debug_nans=True)
    assert (finding.step, finding.report) == (guarded.step, None)
    assert (finding.message, finding.help) == (
        f"the loss was not finite at step {guarded.step}",
        "run it again with --debug-nans to see which operation made it",
    )


@pytest.mark.parametrize("flag", ["jax_debug_nans", "jax_debug_infs"])
def test_where_jaxs_own_check_is_on_the_report_takes_its_place(flag):
    jax.config.update(flag, True)
    try:
        assert reported(found(loss="naive")).origin.primitive == "log"
        assert getattr(jax.config, flag)
    finally:
        jax.config.update(flag, False)


def test_an_interrupted_run_tells_what_was_done():
    class Impatient(Observer):
        def notice(self, snapshot):
            if snapshot.step > 0:
                raise KeyboardInterrupt

    result = run(TrainSettings(hidden=(), time_limit=60.0), Impatient())
    assert (result.stopped, faults(result)) == ("interrupted", ())
    assert result.steps > 1
    assert result.held_out_accuracy is not None and 0 < result.held_out_accuracy < 1


@pytest.mark.parametrize(("nonfinite", "told"), [(0.0, "0.0"), (1.0, "nan")])
def test_a_gradient_too_small_to_be_measured_is_0_and_one_that_is_not_finite_is_not(nonfinite, told):
    layers = {"gradient_nonfinite": np.array([[0.0, nonfinite]], np.float32)}
    part = History(steps=np.arange(1), series={"gradient": np.array([np.nan], np.float32)}, layers=layers)
    assert str(ledger._norm(part, 0)) == told


def test_a_time_limit_ends_a_run():
    result = run(TrainSettings(**SMALL, time_limit=0.01))
    assert (result.stopped, result.steps) == ("finished", 1)


def test_an_epoch_shows_every_sample_in_batches_of_one_size():
    ready = prepare(TrainSettings(samples=50, batch_size=20, hidden=()))
    epoch = [inputs for inputs, _ in itertools.islice(batches(ready, seed=0), 3)]
    assert [len(batch) for batch in epoch] == [20, 20, 20]
    assert len(np.unique(np.concatenate(epoch), axis=0)) == 50
    assert run(TrainSettings(samples=50, batch_size=20, hidden=(), epochs=2)).steps == 6


def test_a_seed_repeats_a_run():
    one, two, other = (run(TrainSettings(**SMALL, steps=20, seed=seed)).loss for seed in (3, 3, 4))
    assert one == two != other


def test_op_by_op_is_the_same_training():
    jitted, eager = (run(TrainSettings(**SMALL, steps=5, jit=jit)).loss for jit in (True, False))
    assert eager == pytest.approx(jitted, rel=1e-4)


@pytest.mark.parametrize(("dtype", "x64"), [("float32", True), ("float64", True), ("bfloat16", False), (None, True), (None, False)])
def test_a_dtype_is_trained_in(dtype, x64):
    result = run(TrainSettings(**SMALL, steps=30, dtype=dtype, x64=x64))
    assert result.dtype == (dtype or ("float64" if x64 else "float32"))
    assert faults(result) == ()
    assert not jax.config.read("jax_enable_x64")


def test_adam_in_float16_fails_in_its_update():
    origin = reported(found(**SMALL, dtype="float16", debug_nans=True)).origin
    assert (origin.primitive, origin.phase) == ("div", "update")


@pytest.mark.parametrize("name", ["sgd", "momentum", "adam"])
def test_an_optimizer_does_what_optax_does(name):
    optax = pytest.importorskip("optax")
    theirs = {"sgd": optax.sgd(0.1), "momentum": optax.sgd(0.1, momentum=0.9), "adam": optax.adam(0.1)}[name]
    ours = OPTIMIZERS[name](0.1)
    here = there = {"w": jnp.array([1.0, -2.0]), "b": jnp.array(0.5)}
    state, state_there = ours.init(here), theirs.init(there)
    for seed in range(10):
        grads = jax.tree.map(lambda leaf, seed=seed: jax.random.normal(jax.random.key(seed), leaf.shape), here)
        here, state = ours.update(here, state, grads)
        updates, state_there = theirs.update(grads, state_there)
        there = optax.apply_updates(there, updates)
    jax.tree.map(lambda one, two: np.testing.assert_allclose(one, two, rtol=1e-5), here, there)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_gradients_length_is_measured_in_float32_at_least(dtype):
    grads = {"w": jnp.array([[300.0, 0.0], [0.0, 400.0]], dtype), "b": jnp.array([1200.0], dtype)}
    np.testing.assert_allclose(global_norm(grads), 1300.0)


def test_measuring_a_finite_gradient_makes_no_fault_and_hides_none():
    assert np.isfinite(global_norm([jnp.array([1e30])]))
    assert np.isnan(global_norm([jnp.array([jnp.nan])]))


def test_a_row_of_nans_is_not_counted_as_right():
    logits = Part(np.array([[np.nan, 0.0], [2.0, 1.0]], np.float32), np.array([0, 0]))
    assert accuracy(lambda params, inputs: inputs, None, logits, np.dtype("float32")) == 0.5


def test_a_model_of_ones_own_is_trained_with_the_bundled_losses(tmp_path):
    (tmp_path / "mine.py").write_text(MODEL)
    result = run(TrainSettings(model=str(tmp_path / "mine.py"), samples=40, steps=50))
    assert (result.parameters, result.init, result.loss_name) == (640, None, "stable")


def test_a_nan_in_a_copied_model_is_found_in_the_copy(tmp_path):
    copy = tmp_path / "copy.py"
    copy.write_text(MLP.read_text().replace("x = inputs\n", "x = jnp.sqrt(inputs - 1.0)\n"))
    origin = reported(found(model=str(copy), debug_nans=True)).origin
    assert origin.source is not None
    assert (origin.primitive, origin.source.code.strip()) == ("sqrt", "x = jnp.sqrt(inputs - 1.0)")
    assert Path(origin.source.file) == copy


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("def init", "def initialise"), "has no `init`: a model file defines `init(key, sizes, scheme)`"),
        (("def apply", "def forward"), "has no `apply`: a model file defines `apply(params, inputs)`"),
        (("def apply(params, inputs):", "def apply(params):"), "failed: TypeError: "),
        (("inputs @ params", "inputs @ params.T"), "failed, at line 9: TypeError: "),
        (("inputs @ params", "params"), "should return logits [40, 10]; it returns float32[64, 10]"),
        (("return jax.random.normal(key, (sizes[0], sizes[-1])) * 1e-3", "return 'params'"), "should return a pytree of floating arrays"),
        (("import jax\n", "import no_such_module\n"), "could not be imported: ModuleNotFoundError"),
        (("def init(key, sizes):", "def init(key, sizes:"), "could not be imported: SyntaxError"),
        (("import jax\n", "LOSSES = {}\nimport jax\n"), "`LOSSES` in "),
        (
            ("import jax\n", "LOSSES = {'stable': lambda logits, labels: logits}\nimport jax\n"),
            "should return one floating number; it returns",
        ),
    ],
)
def test_a_model_file_that_does_not_fit_is_told_in_one_line(tmp_path, change, said):
    assert change[0] in MODEL
    (tmp_path / "mine.py").write_text(MODEL.replace(change[0], change[1], 1))
    with pytest.raises(UsageError, match=re.escape(said)) as told:
        run(TrainSettings(model=str(tmp_path / "mine.py"), steps=1))
    assert "\n" not in str(told.value)


def command(monkeypatch, *arguments: object) -> int:
    """The exit code of the command line."""
    monkeypatch.setattr("sys.argv", ["nandetect", "train", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    code = left.value.code or 0
    assert isinstance(code, int)
    return code


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--data", "nowhere"], "there is no data nowhere"),
        (["--model", "nowhere.py"], "there is no file nowhere.py"),
        (["--model", "nothing"], "there is no model nothing"),
        (["--loss", "no-such"], "mlp.py has no loss no-such; it has naive, xlogy, stable"),
        (["--init", "no-such"], "mlp.py has no init no-such; it has he, he-wrong, glorot, lecun, unit"),
        (["--optimizer", "no-such"], "--optimizer no-such is not known; give sgd, momentum or adam"),
        (["--inputs", "no-such"], "--inputs no-such is not known; give raw, unit or standard"),
        (["--dtype", "int8"], "--dtype int8 is not known; give float32, bfloat16, float16 or float64"),
        (["--dtype", "float64"], "--dtype float64 needs --x64"),
        (["--lr", "-1"], "--lr -1: give a learning rate above 0"),
        (["--lr", "nan"], "--lr nan: give a learning rate above 0"),
        (["--batch-size", "0"], "--batch-size 0: give 1 or more"),
        (["--samples", "0"], "--samples 0: give 1 or more"),
        (["--samples", "2000"], "--samples 2000: digits has 1438 training samples; give that many or fewer"),
        (["--hidden", "wide"], "--hidden wide: give whole numbers"),
        (["--seed", "-1"], "--seed -1: give 0 to 4294967295"),
        (["--time-limit", "soon"], "--time-limit soon is not a time: write 30s, 5m or 1h"),
        (["--time-limit", "0s"], "--time-limit 0s: give a time above 0"),
        (["--steps", "5", "--epochs", "5"], "--epochs, --steps and --time-limit each say when to stop: give one of them"),
        (["--json", "nowhere/out.json"], "--json nowhere/out.json: there is no directory nowhere"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_done_is_refused_in_one_line(arguments, said, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    assert command(monkeypatch, *arguments) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert said in err
    assert list(tmp_path.iterdir()) == []


def test_the_document_holds_what_was_asked_and_what_came_of_it(monkeypatch, tmp_path, capsys):
    assert command(monkeypatch, "--samples", 40, "--epochs", 30, "--json", tmp_path / "out.json") == 0
    document = json.loads((tmp_path / "out.json").read_text())
    assert (document["schema"], document["command"]) == (1, "train")
    assert {finding["severity"] for finding in document["findings"]} <= {"warning", "note"}
    assert document["train"]["settings"]["samples"] == 40
    assert (document["train"]["steps"], document["train"]["epochs"], document["train"]["train_samples"]) == (30, 30.0, 40)
    assert "accuracy 100.0% on 40 training samples" in capsys.readouterr().out


def test_with_json_on_standard_output_nothing_else_is_written_there(monkeypatch, capsys):
    assert command(monkeypatch, "--loss", "naive", "--debug-nans", "--json", "-") == 1
    out, err = capsys.readouterr()
    *before, finding = json.loads(out)["findings"]
    assert {one["severity"] for one in before} <= {"warning", "note"}
    assert (finding["rule"], finding["severity"], finding["event"]["primitive"]) == ("non-finite", "error", "log")
    assert "`log` made -inf in the forward pass" in err


def test_it_trains_outside_the_checkout_with_the_model_inside_the_package(monkeypatch, tmp_path):
    """The package as a wheel carries it: alone, with the models in nandetect/_models."""
    package = Path(cli.__file__).parents[1]
    shutil.copytree(package, tmp_path / "nandetect", ignore=shutil.ignore_patterns("__pycache__", "_models"))
    shutil.copytree(MLP.parent, tmp_path / "nandetect" / "_models", ignore=shutil.ignore_patterns("__pycache__"))
    code = "from nandetect.cli import main; main()"
    arguments = ["train", "--loss", "xlogy", "--debug-nans", "--no-audit", "--json", "-"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=tmp_path, timeout=300)
    (finding,) = [one for one in json.loads(done.stdout)["findings"] if one["rule"] == "non-finite"]
    source = finding["event"]["source"]
    assert (source["file"], source["line"]) == (str(tmp_path / "nandetect/_models/mlp.py"), line_of("jnp.sum(xlogy(labels, probs)"))
