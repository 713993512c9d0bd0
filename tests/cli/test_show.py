"""`nandetect show`: a recorded run printed again, listed, and exported; a wrong name is answered with the right ones."""

from __future__ import annotations

import json
import time
from importlib import resources
from pathlib import Path

import jax.numpy as jnp
import jsonschema
import numpy as np
import pytest
from logbooks import LEAVES, floats

import nandetect as nd
from nandetect import cli
from nandetect.cli import show_view
from nandetect.findings import non_finite
from nandetect.history import History
from nandetect.logbook import Logbook, default_directory, read
from nandetect.records import Finding

SCHEMA = json.loads(resources.files("nandetect.render").joinpath("schema.json").read_text())
SPIKE = Finding(rule="gradient-spike", code="ND303", severity="warning", message="it jumped", step=64, help="clip it")
ABOUT = {"model": "mlp", "settings": {"model": "mlp", "hidden": [128, 40], "lr": 0.004, "loss": None, "jit": True, "x64": False}}


@pytest.fixture(autouse=True)
def kept(tmp_path, monkeypatch) -> Path:
    """An empty place for runs."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return default_directory()


def history(steps: int) -> History:
    """A loss that halves every 16 steps, and a layer that does not learn."""
    at = np.arange(steps)
    loss = 4.0 * 0.5 ** (at / 16)
    series = floats({"loss": loss, "accuracy": 1 - loss / 4, "gradient": 2 * loss})
    return History(leaves=LEAVES, steps=at, series=series, layers=floats({"gradient": np.stack([2 * loss, 0 * loss], axis=1)}))


def run(name: str = "a-run", findings=(SPIKE,), about=ABOUT, **end) -> Path:
    book = Logbook(default_directory() / f"{name}.sqlite", about=about)
    book.append(history(128))
    book.note(findings)
    book.close(**end)
    assert book.path is not None
    return book.path


def show(monkeypatch, *arguments: object) -> int:
    """The exit code of the command."""
    monkeypatch.setattr("sys.argv", ["nandetect", "show", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    code = left.value.code or 0
    assert isinstance(code, int)
    return code


SHOWN = """\
a-run: finished after 0 s, 128 steps, begun DAY
model mlp, hidden 128x40, lr 0.004, jit yes
trained for 128 steps
accuracy 99.6%

loss 0.0163 (log scale)                            accuracy 99.6%
       4 │⠑⠲⠤⣀                                         100% │                ⣀⣀⡠⠤⠤⠤⠒⠒⠒⠒⠒⠒⠒⠒⠉⠉⠉⠉⠉⠉⠉⠉⠉
         │   ⠈⠉⠒⠤⣄⡀                                         │          ⢀⣠⠤⠒⠊⠉⠁
         │        ⠈⠓⠢⢤⡀                                     │       ⢀⡠⠖⠉
         │            ⠈⠉⠲⠤⣀⡀                                │     ⢀⡔⠋
         │                 ⠉⠒⠢⢄⡀                            │    ⡰⠃
         │                     ⠈⠙⠒⢤⣀                        │   ⡜
         │                          ⠉⠒⠦⢄⡀                   │ ⢀⠎
         │                              ⠉⠑⠲⢤⣀               │⢀⠎
  0.0163 │                                   ⠙⠒⠤⣄        0% │⡜

gradient 0.0326 (log scale)
       8 │⠉⠒⠒⠤⠤⣀⡀
         │      ⠈⠉⠑⠒⠤⠤⣀⣀
         │              ⠉⠑⠒⠢⠤⢄⣀
         │                     ⠉⠉⠒⠢⠤⢄⣀⡀
         │                            ⠈⠉⠒⠒⠤⠤⣀⡀
         │                                   ⠈⠉⠑⠒⠢⠤⣀⣀
         │                                           ⠉⠑⠒⠢⠤⢄⣀
         │                                                  ⠉⠉⠒⠒⠤⢄⣀⡀
  0.0326 │                                                         ⠈⠉⠒⠒⠤⠤⣀

gradient by layer  0.0326 ░▒▓█ 8
          dense.kernel █████████████████▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒░░░░░░░░░░░░░░░░░    0.0326
            dense.bias 0000000000000000000000000000000000000000000000000000000000000000000         0
                       step 0                                                          127

warning: it jumped [ND303]
help: clip it
"""


def test_a_run_is_printed_whole(monkeypatch, capsys):
    monkeypatch.setattr(time, "time", lambda: 1_800_000_000.0)
    run(summary=["trained for 128 steps", "accuracy 99.6%"])
    assert show(monkeypatch, "last") == 0
    day = time.strftime("%Y-%m-%d %H:%M", time.localtime(1_800_000_000))
    assert capsys.readouterr() == (SHOWN.replace("DAY", day), "")


def test_a_run_that_goes_on_is_printed_as_far_as_it_is(monkeypatch, capsys, kept):
    with Logbook(kept / "a-run.sqlite", about={"model": "mlp"}) as book:
        assert show(monkeypatch, "a-run") == 0
        assert capsys.readouterr().out == "a-run: running, step 0\nmodel mlp\nno point of it has been written yet\n"
        book.append(history(12_346))
        book.flush()
        assert show(monkeypatch, "a-run") == 0
    assert capsys.readouterr().out.startswith(
        "a-run: running, step 12,345\nmodel mlp\nstep 12,345: loss 0, accuracy 1, gradient 0\n\nloss 0 "
    )


def test_a_report_is_printed_as_it_was_and_the_exit_code_is_that_of_the_run(monkeypatch, capsys):
    report = nd.locate(lambda x: jnp.log(x) * x, jnp.zeros(3))
    assert report is not None
    run(findings=[non_finite(report), SPIKE])
    assert show(monkeypatch, "a-run") == 1
    out = capsys.readouterr().out
    assert out.endswith(f"\n\n{report}\n\nwarning: it jumped [ND303]\nhelp: clip it\n")


def test_a_run_with_an_error_that_is_exported_is_no_failure(monkeypatch, tmp_path, capsys):
    run(findings=[Finding(rule="divergence", code="ND304", severity="error", message="it grew")])
    assert show(monkeypatch, "last", "--csv", tmp_path / "a.csv") == 0
    assert (tmp_path / "a.csv").read_text().startswith("step,") and "it grew" in capsys.readouterr().out
    assert show(monkeypatch, "last") == 1


@pytest.mark.parametrize("seed", range(8))
def test_a_record_whose_bytes_have_changed_is_read_or_refused_in_one_line(monkeypatch, tmp_path, capsys, seed):
    path, draw = run("sound"), np.random.default_rng(seed)
    content = bytearray(path.read_bytes())
    for _ in range(30):
        content[draw.integers(len(content))] = draw.integers(256)
    damaged = path.with_name("damaged.sqlite")
    damaged.write_bytes(content)
    code, err = show(monkeypatch, damaged), capsys.readouterr().err
    assert (code, err) == (0, "") or (code == 2 and len(err.splitlines()) == 1 and f"{damaged} " in err)
    # Whatever one of them holds, all others are listed.
    assert show(monkeypatch) == 0 and "sound " in capsys.readouterr().out


def test_without_a_name_the_kept_runs_are_listed(monkeypatch, capsys, kept):
    assert show(monkeypatch) == 0
    assert capsys.readouterr().out == f"no run is kept in {kept} yet; `nandetect train` keeps one\n"
    run("one")
    error = Finding(rule="divergence", code="ND304", severity="error", message="it grew")
    run("the-second", findings=[error], state="interrupted")
    assert show(monkeypatch) == 0
    lines = capsys.readouterr().out.splitlines()
    size = [f"{read(kept / f'{name}.sqlite').entry.size / 1e3:.0f} kB" for name in ("the-second", "one")]
    assert lines == [
        "run         state        steps   size  errors",
        f"the-second  interrupted    128  {size[0]}  1",
        f"one         finished       128  {size[1]}",
        "",
        f"kept in {kept}; `nandetect show RUN` prints one, `last` is the newest",
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["two"], "there is no run two: there is only a-run; `nandetect show` lists them"),
        (["nowhere/run.sqlite"], "there is no run nowhere/run.sqlite: there is only a-run; `nandetect show` lists them"),
        (["--csv", "out.csv"], "--tensorboard, --csv and --parquet write one run: name it, or say `last`"),
        (["last", "--csv", "no/out.csv"], "--csv no/out.csv: there is no directory no; create it or give another path"),
        (["last", "--tensorboard", "file"], "--tensorboard file cannot be made a directory: File exists"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_shown_is_refused_in_one_line(arguments, said, monkeypatch, tmp_path, capsys):
    run()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    assert show(monkeypatch, *arguments) == 2
    assert capsys.readouterr() == ("", f"nandetect: {said}\n")


def test_the_document_has_the_run_and_its_series(monkeypatch, capsys):
    report = nd.locate(lambda x: jnp.log(x) * x, jnp.zeros(3))
    assert report is not None
    path = run(findings=[non_finite(report)])
    assert show(monkeypatch, "last", "--json", "-") == 1
    document = json.loads(capsys.readouterr().out)
    jsonschema.validate(document, SCHEMA)
    shown = document["show"]
    assert (shown["name"], shown["path"], shown["state"], shown["steps"], shown["errors"]) == ("a-run", str(path), "finished", 128, 1)
    assert shown["about"] == ABOUT
    assert shown["leaves"] == [{"path": leaf.path, "shape": list(leaf.shape), "dtype": leaf.dtype} for leaf in LEAVES]
    assert shown["series"]["step"] == list(range(128))
    np.testing.assert_array_equal(np.array(shown["series"]["loss"], np.float32), history(128).series["loss"])
    assert document["findings"][0]["report"] == report.to_dict()


def test_the_list_as_a_document(monkeypatch, capsys):
    run()
    assert show(monkeypatch, "--json", "-") == 0
    document = json.loads(capsys.readouterr().out)
    jsonschema.validate(document, SCHEMA)
    assert [(one["name"], one["steps"]) for one in document["show"]["runs"]] == [("a-run", 128)]


def test_exports_are_whole_files_and_nothing_beside(monkeypatch, tmp_path):
    run()
    out = tmp_path / "out"
    out.mkdir()
    wanted = ["--csv", out / "a.csv", "--parquet", out / "a.parquet", "--tensorboard", out / "board"]
    for _ in range(2):
        assert show(monkeypatch, "last", *wanted) == 0
    files = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    began = int(read(default_directory() / "a-run.sqlite").entry.began)
    assert files == ["a.csv", "a.parquet", f"board/a-run/events.out.tfevents.{began}.a-run"]
    assert len((out / "a.csv").read_text().splitlines()) == 129


def test_where_pyarrow_is_missing_the_extra_is_named(monkeypatch, tmp_path, capsys):
    run()
    monkeypatch.setattr("nandetect.logbook.tables.find_spec", lambda name: None)
    assert show(monkeypatch, "last", "--parquet", tmp_path / "a.parquet") == 2
    assert capsys.readouterr().err == "nandetect: --parquet needs pyarrow: pip install 'nandetect[parquet]'\n"


@pytest.mark.parametrize("command", [["show", "last"], ["train"]], ids=" ".join)
def test_where_tensorboardx_is_missing_the_extra_is_named(monkeypatch, tmp_path, capsys, command):
    run()
    monkeypatch.setattr("nandetect.logbook.events.find_spec", lambda name: None)
    monkeypatch.setattr("sys.argv", ["nandetect", *command, "--tensorboard", str(tmp_path / "board")])
    with pytest.raises(SystemExit) as exited:
        cli.main()
    assert exited.value.code == 2
    assert capsys.readouterr().err == "nandetect: --tensorboard needs tensorboardX: pip install 'nandetect[tensorboard]'\n"
    assert not (tmp_path / "board").exists()


def test_in_a_narrow_encoding_the_picture_is_ascii():
    text = "\n".join(line.plain for line in show_view.lines(read(run()), braille=False))
    assert text.isascii() and "*" in text and "|" in text


def test_train_keeps_its_run_and_show_prints_its_summary(monkeypatch, capsys, kept, tmp_path):
    sound = ["--samples", "40", "--steps", "50", "--inputs", "standard", "--init", "he"]
    monkeypatch.setattr("sys.argv", ["nandetect", "train", *sound, "--tensorboard", str(tmp_path / "board")])
    with pytest.raises(SystemExit):
        cli.main()
    *summary, hint = capsys.readouterr().out.splitlines()
    (path,) = kept.iterdir()
    assert hint == f"`nandetect show {path.stem}` prints this again, with the curves"
    assert show(monkeypatch, "last") == 0
    assert "\n".join(summary) in capsys.readouterr().out
    about = read(path).about
    assert (about["settings"]["steps"], about["result"]["steps"], about["result"]["stopped"]) == (50, 50, "finished")
    assert [file.parent.name for file in (tmp_path / "board").rglob("events*")] == [path.stem]


@pytest.mark.parametrize(("options", "runs"), [(["--no-record"], 0), (["--record", "here"], 1), (["--lr", "-1"], 0), (["--data", "no"], 0)])
def test_a_run_is_kept_where_it_is_wanted_and_nowhere_else(monkeypatch, tmp_path, kept, options, runs):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["nandetect", "train", "--samples", "40", "--hidden", "", "--steps", "5", *options])
    with pytest.raises(SystemExit):
        cli.main()
    assert not kept.exists() or list(kept.iterdir()) == []
    assert len(list(tmp_path.glob("here/*.sqlite"))) == runs


def test_a_record_that_cannot_be_written_costs_one_line(monkeypatch, tmp_path, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setattr(
        "sys.argv", ["nandetect", "train", "--samples", "40", "--hidden", "", "--steps", "5", "--record", str(tmp_path / "file")]
    )
    with pytest.raises(SystemExit) as left:
        cli.main()
    out, err = capsys.readouterr()
    assert left.value.code in (0, None)
    assert "\ntrained for 5 steps" in out
    (warning,) = [line for line in err.splitlines() if not line.startswith("step ")]
    assert warning == f"nandetect: the run is not recorded: {tmp_path}/file cannot be written (File exists)"
