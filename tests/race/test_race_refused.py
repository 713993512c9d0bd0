"""What `nandetect race` cannot race is refused in one line, before anything is raced."""

from __future__ import annotations

import jax
import pytest
from commands import exit_code

from nandetect.errors import UsageError
from nandetect.race import RaceSettings


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["mlp"], "a race needs two entrants or more: nandetect race mlp:init=he mlp:init=he-wrong"),
        (["mlp", "nowhere.py"], "there is no file nowhere.py"),
        (["mlp", "nothing:init=he"], "there is no model nothing"),
        (["mlp", "mlp:init=no-such"], "mlp.py has no init no-such; it has he, he-wrong, glorot, lecun, unit"),
        (["mlp", "mlp:he"], "mlp:he: 'he' is no setting; write key=value, and widths as hidden=128x40"),
        (["mlp", "mlp:"], "'mlp:' is no entrant: write FILE.py, mlp, or mlp:key=value,key=value"),
        (["mlp", "mlp:speed=9"], "mlp:speed=9: there is no setting speed; there are init, loss, lr, optimizer, hidden, dtype"),
        (["mlp", "mlp:lr=fast"], "mlp:lr=fast: lr=fast cannot be read; give a number"),
        (["mlp", "mlp:lr=-1"], "mlp:lr=-1: lr -1: give a learning rate above 0"),
        (["mlp", "mlp:jit=maybe"], "mlp:jit=maybe: jit=maybe cannot be read; give yes or no"),
        (["mlp", "mlp:hidden=128,40"], "mlp:hidden=128,40: '40' is no setting; write key=value, and widths as hidden=128x40"),
        (["mlp", "mlp:lr=1,lr=2"], "mlp:lr=1,lr=2: lr is given twice"),
        (["mlp", "mlp:dtype=float64"], "mlp:dtype=float64: a race is run in 32 bits; give float32, bfloat16 or float16"),
        (["mlp", "mlp", "--data", "nowhere"], "there is no data nowhere"),
        (["mlp", "mlp", "--samples", "2000"], "--samples 2000: digits has 1438 training samples"),
        (["mlp", "mlp", "--inputs", "no-such"], "--inputs no-such is not known; give raw, unit or standard"),
        (["mlp", "mlp", "--seeds", "0"], "--seeds 0: give 1 to 32"),
        (["mlp", "mlp", "--target", "110%"], "--target 110%: give an accuracy above 0% and up to 100%"),
        (["mlp", "mlp", "--target", "all"], "--target all is not a share: write 95% or 0.95"),
        (["mlp", "mlp", "--time-limit", "0s"], "--time-limit 0s: give a time above 0"),
        (["mlp", "mlp", "--time-limit", "soon"], "--time-limit soon is not a time: write 30s, 5m or 1h"),
        (["mlp", "mlp", "--png", "nowhere/out.png"], "--png nowhere/out.png: there is no directory nowhere"),
        (["mlp", "mlp", "--html", "."], "--html . is a directory"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_raced_is_refused_in_one_line(arguments, told, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    assert exit_code(monkeypatch, "race", *arguments) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert told in err
    assert list(tmp_path.iterdir()) == []
    assert not jax.config.read("jax_enable_x64")


def test_without_matplotlib_a_plot_is_refused_before_the_race(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("nandetect.cli.race_plot.find_spec", lambda name: None)
    assert exit_code(monkeypatch, "race", "mlp", "mlp", "--png", tmp_path / "out.png") == 2
    assert capsys.readouterr().err == "nandetect: --html and --png need matplotlib: pip install 'nandetect[plot]'\n"


def test_bad_settings_are_refused_from_python_too():
    with pytest.raises(UsageError, match="--target 0"):
        RaceSettings(entrants=("mlp", "mlp"), target=0.0)
