"""`nandetect audit-init`, and what `nandetect train` says before its first step and of what a wrong scale cost."""

from __future__ import annotations

import json
from importlib import resources

import jsonschema
import pytest

from nandetect import cli
from nandetect.cli import train_view
from nandetect.train.loop import run
from nandetect.train.settings import InitCost, TrainSettings

PROGRAM = """
import jax, jax.numpy as jnp

def kernel(key):
    return {"w": jax.random.normal(key, (64, 32)) * (2 / 64) ** 0.5}

def unscaled():
    return {"w": jax.random.normal(jax.random.key(0), (64, 32))}

def whole():
    return kernel(jax.random.key(0)), lambda params, x: jax.nn.relu(x @ params["w"]), jax.random.normal(jax.random.key(1), (64, 64))

def two(a, b):
    return a

def nothing():
    return 3
"""


@pytest.fixture
def program(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    return tmp_path / "program.py"


def command(monkeypatch, *arguments: object) -> int:
    """The exit code of the command line."""
    monkeypatch.setattr("sys.argv", ["nandetect", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    code = left.value.code or 0
    assert isinstance(code, int)
    return code


def test_a_function_of_a_key_is_audited_and_found_right(program, monkeypatch, capsys):
    assert command(monkeypatch, "audit-init", f"{program}:kernel") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{program}:kernel: 1 kernel, 2,048 parameters: nothing wrong"
    assert lines[2].split() == ["kernel", "shape", "fan-in", "std", "wants", "scheme"]
    assert lines[3].split()[:4] == ["w", "[64,", "32]", "64"] and lines[3].split()[5:] == ["0.177", "He"]


def test_a_warning_exits_1_and_says_what_to_write(program, monkeypatch, capsys):
    assert command(monkeypatch, "audit-init", f"{program}:unscaled") == 1
    text = " ".join(capsys.readouterr().out.split())
    assert "where He wants sqrt(2/64) = 0.1768, 5." in text
    assert "you probably wrote no scale where `sqrt(2/m)` was meant [ND101] help: write `jax.random.normal(key, (m, n))" in text


def test_parameters_apply_and_inputs_bring_the_signal(program, monkeypatch, capsys):
    assert command(monkeypatch, "audit-init", f"{program}:whole", "--json", "-") == 0
    document = json.loads(capsys.readouterr().out)
    jsonschema.validate(document, json.loads(resources.files("nandetect.render").joinpath("schema.json").read_text()))
    (layer,) = document["audit_init"]["layers"]
    assert (layer["path"], layer["fan_in"], layer["follows"], layer["scheme"]) == ("w", 64, "relu", "He")
    assert 1.5 < layer["forward"] < 2.5


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("two", "wants a, b: give a function without arguments, or of a key alone, that returns the parameters"),
        ("nothing", "returns int, without floating arrays: return the parameters, or (params, apply, inputs)"),
    ],
)
def test_what_cannot_be_audited_is_refused_in_one_line(program, monkeypatch, capsys, name, said):
    assert command(monkeypatch, "audit-init", f"{program}:{name}") == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert said in err


def test_the_bundled_model_is_audited_on_the_digits(monkeypatch, capsys):
    assert command(monkeypatch, "audit-init", "mlp", "--init", "he") == 0
    assert "mlp.py, init he on digits: 3 kernels, 13,890 parameters: nothing wrong" in capsys.readouterr().out


def test_train_names_the_wrong_formula_before_its_first_step(monkeypatch, capsys):
    assert command(monkeypatch, "train", "--init", "he-wrong", "--inputs", "standard", "--samples", 40, "--epochs", 60) == 0
    before, after = capsys.readouterr().out.split("trained for 60 steps")
    assert " ".join(before.split()).startswith(
        "warning: `w1` [64, 128] before ReLU: std is `2/sqrt(m*n)`: 0.0222 where He wants sqrt(2/64) = 0.1768, 8.0 times too small; "
        "you probably wrote `2/sqrt(m*n)` for `sqrt(2/m)` [ND101] the same in `w2`"
    )
    assert "init he-wrong cost " in after and " epochs against he: every training sample right in epoch " in after


def test_the_cost_of_a_scale_is_counted_to_the_same_goal():
    asked = TrainSettings(init="he-wrong", inputs="standard", samples=40, epochs=60)
    result = run(asked)
    right = run(TrainSettings(init="he", inputs="standard", samples=40, epochs=60))
    assert result.toll is not None and result.overfit is not None and right.overfit is not None
    assert (result.toll.epoch, result.toll.twin_epoch) == (result.overfit.epoch, right.overfit.epoch)
    assert right.toll is None and right.findings == ()


@pytest.mark.parametrize(
    ("toll", "unscaled", "said"),
    [
        (
            InitCost(scheme="he", epoch=31, loss=None, twin_epoch=19, twin_epochs=19.0, complete=True),
            False,
            "init he-wrong cost 12 epochs against he: every training sample right in epoch 31, with he in epoch 19",
        ),
        (
            InitCost(scheme="he", epoch=31, loss=0.25, twin_epoch=None, twin_epochs=31.0, complete=True),
            True,
            "init he-wrong cost no epochs against he: a training loss of 0.25 in epoch 31, with he not by then; "
            "on inputs that were never scaled, small weights make up for their size",
        ),
        (
            InitCost(scheme="he", epoch=31, loss=0.25, twin_epoch=None, twin_epochs=7.5, complete=False),
            False,
            "what init he-wrong cost is not known: a training loss of 0.25 in epoch 31; he was stopped in epoch 7.5, not there yet",
        ),
    ],
)
def test_what_a_scale_cost_is_said_as_it_was(toll, unscaled, said):
    assert train_view.cost(toll, "he-wrong", unscaled) == said
