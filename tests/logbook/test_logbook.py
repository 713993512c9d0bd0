"""The record of a run: what was written is read again, whatever happens to the process, the disk, or a reader."""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Literal

import jax.numpy as jnp
import numpy as np
import pytest
from logbooks import LEAVES, piece, python

import nandetect as nd
from nandetect.errors import UsageError
from nandetect.findings import non_finite
from nandetect.history import History
from nandetect.logbook import Logbook, default_directory, entries, find, prune, read, thin
from nandetect.records import Finding

SPIKE = Finding(rule="gradient-spike", code="ND303", severity="warning", message="it jumped", layer="dense.kernel", step=7, measured=3.5)


def recorded(where: Path, *pieces: History, about=None, findings=(), state: Literal["finished", "interrupted"] = "finished") -> Path:
    """The file of a run that was closed."""
    book = Logbook(where, LEAVES, about)
    for one in pieces:
        book.append(one)
    book.note(findings)
    book.close(state)
    assert book.path is not None
    return book.path


def test_what_was_put_down_comes_back(tmp_path):
    path = recorded(tmp_path / "run.sqlite", piece(0, 40), piece(40, 41, accuracy=0.5), about={"model": "mlp", "lr": 0.004})
    run = read(path)
    assert (run.state, run.about, run.entry.steps) == ("finished", {"model": "mlp", "lr": 0.004}, 41)
    assert run.history.leaves == LEAVES
    wanted = piece(0, 41)
    np.testing.assert_array_equal(run.history.steps, wanted.steps)
    np.testing.assert_array_equal(run.history.series["loss"], wanted.series["loss"])
    np.testing.assert_array_equal(run.history.layers["gradient"], wanted.layers["gradient"])
    np.testing.assert_array_equal(run.history.series["accuracy"], [np.nan] * 40 + [0.5])
    assert run.entry.size == path.stat().st_size
    assert [file.name for file in tmp_path.iterdir()] == ["run.sqlite"]


def test_a_finding_comes_back_as_the_record_that_it_was(tmp_path):
    report = nd.locate(lambda x: jnp.log(x) * x, jnp.zeros(3))
    assert report is not None
    told = [non_finite(report), SPIKE, Finding(rule="x64", code="ND503", severity="note", message="on", expected=[float("inf"), 1j])]
    run = read(recorded(tmp_path, findings=told))
    # Reports are compared as JSON, since they hold NaN, which does not equal itself.
    assert [finding.report and finding.report.to_json() for finding in run.findings] == [report.to_json(), None, None]
    assert str(run.findings[0].report) == str(report)
    assert run.findings[0].report is not None
    assert run.findings[0].report.origin.source == report.origin.source
    assert run.findings[1:] == tuple(told[1:])
    assert run.entry.errors == 1


def test_a_finding_that_comes_again_takes_the_place_of_the_first(tmp_path):
    worse = replace(SPIKE, measured=9.0)
    other = Finding(rule="divergence", code="ND304", severity="error", message="it grew", step=9)
    assert read(recorded(tmp_path, findings=[SPIKE, other, worse])).findings == (worse, other)


def test_a_rule_that_fires_at_every_step_does_not_fill_the_disk(tmp_path):
    error = Finding(rule="divergence", code="ND304", severity="error", message="it grew", step=0)
    spikes = [replace(SPIKE, step=step) for step in range(1200)]
    kept = read(recorded(tmp_path, findings=[error, *spikes])).findings
    assert kept == (error, *spikes[-999:])


def test_a_run_is_read_while_it_is_written(tmp_path):
    with Logbook(tmp_path, LEAVES) as book:
        book.append(piece(0, 5))
        book.flush()
        run = read(find(str(tmp_path)))
        assert (run.state, run.entry.steps, run.entry.ended) == ("running", 5, None)
    assert book.path is not None
    assert read(book.path).state == "finished"


WRITER = """
book = Logbook(sys.argv[1], LEAVES, {"model": "mlp"})
print(book.path, time.time(), flush=True)
for at in range(0, 10**6, 2):
    book.append(piece(at, at + 2))
    print(at + 1, time.time(), flush=True)
    time.sleep(0.002)
"""


@pytest.mark.parametrize("seconds", [0.0, 0.35, 0.8])
def test_a_killed_run_lacks_at_most_its_last_second(tmp_path, seconds):
    writer = python(WRITER, tmp_path)
    assert writer.stdout is not None
    path = Path(writer.stdout.readline().split()[0])
    time.sleep(seconds)
    killed = time.time()
    writer.send_signal(signal.SIGKILL)
    said, _ = writer.communicate()
    run = read(path)
    assert run.state == "interrupted"
    np.testing.assert_array_equal(run.history.steps, np.arange(run.entry.steps))
    lost = [float(when) for step, when in map(str.split, said.splitlines()[:-1]) if int(step) >= run.entry.steps]
    assert killed - min(lost, default=killed) < 1.0


def test_two_read_while_one_writes(tmp_path):
    reader = """
    seen = set()
    while len(seen) < 20:
        run = read(Path(sys.argv[1]))
        assert run.state == "running"
        assert list(run.history.steps) == list(range(run.entry.steps))
        seen.add(run.entry.steps)
    """
    with Logbook(tmp_path / "run.sqlite", LEAVES) as book:
        reading = [python(reader, book.path) for _ in range(2)]
        at = 0
        while any(one.poll() is None for one in reading):
            book.append(piece(at, at := at + 10))
            book.flush()
            time.sleep(0.005)
    assert [one.communicate() for one in reading] == [("", ""), ("", "")]
    assert read(tmp_path / "run.sqlite").entry.steps == at


def test_a_long_run_stays_small_and_keeps_its_extremes(tmp_path):
    steps, budget = 30_000, 200_000
    random = np.random.default_rng(0)
    loss, gradient = random.lognormal(size=(2, steps)).astype(np.float32)
    layer = random.lognormal(size=(steps, 2)).astype(np.float32)
    loss[[9_000, 15_000, 21_000]] = 1e6, np.nan, 1e-6
    gradient[12_345] = 1e7
    layer[[17_777, 4_321], [0, 1]] = 1e8, 1e9
    book = Logbook(tmp_path / "run.sqlite", LEAVES, budget=budget)
    for at in range(0, steps, 50):
        rows = slice(at, at + 50)
        series, layers = {"loss": loss[rows], "gradient": gradient[rows]}, {"gradient": layer[rows]}
        book.append(History(leaves=LEAVES, steps=np.arange(at, at + 50), series=series, layers=layers))
        book.flush()
    book.close()
    assert book.path is not None
    run = read(book.path)
    history, at = run.history, run.history.steps
    assert run.entry.size < 2 * budget
    assert {9_000, 12_345, 15_000, 17_777, 4_321, 21_000} <= set(at)
    # Points that are left have the numbers measured at their steps.
    np.testing.assert_array_equal(history.series["loss"], loss[at])
    np.testing.assert_array_equal(history.layers["gradient"], layer[at])
    # Steps at the beginning and the end are all there; between them the distance grows with the age.
    assert list(at[:50]) == list(range(50)) and list(at[-50:]) == list(range(steps - 50, steps))
    apart = np.diff(at[1000::500])
    assert apart[0] > 3 * apart[-1]


def test_what_a_disk_that_is_full_could_not_take_is_written_when_it_can(tmp_path):
    code = """
    import resource
    from nandetect.logbook import writer
    writer._SECONDS_AFTER_FAILURE = 0.1
    said = []
    book = Logbook(sys.argv[1], LEAVES, warn=said.append)
    book.append(piece(0, 10)); book.flush()
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, resource.RLIM_INFINITY))
    for at in range(10, 20_010, 100):
        book.append(piece(at, at + 100)); book.flush()
    full = read(book.path)
    assert 10 <= full.entry.steps < 20_010, full.entry.steps
    assert full.state == "running"
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    book.close()
    assert book.path is not None
    run = read(book.path)
    assert list(run.history.steps) == list(range(20_010))
    print(said)
    """
    said, error = python(code, tmp_path / "run.sqlite").communicate()
    assert error == ""
    reason = f"['the run\\'s record is behind: {tmp_path}/run.sqlite could not be written ("
    assert said.startswith(reason.replace("\\'", "'").replace("['", '["')) and said.count("could not") == 1


def test_what_is_measured_now_and_then_takes_little_room_and_outlives_the_thinning(tmp_path):
    steps = np.arange(20_000)
    now_and_then = np.where(steps[:, None] % 100 == 99, steps[:, None] + np.zeros(2), np.nan).astype(np.float32)
    often = np.ones((len(steps), 2), np.float32)
    sizes = {}
    for name, weight in (("rare", now_and_then), ("dense", np.ones_like(often))):
        history = History(leaves=LEAVES, steps=steps, layers={"gradient": often, "weight": weight, "update": weight, "weight_max": weight})
        path = recorded(tmp_path / f"{name}.sqlite", history)
        sizes[name] = path.stat().st_size
        if name == "rare":
            np.testing.assert_array_equal(read(path).history.layers["weight"], weight)
    assert sizes["rare"] < sizes["dense"] / 2
    thinned = thin(replace(history, layers={"gradient": often, "weight": now_and_then}), 400)
    assert (~np.isnan(thinned.layers["weight"][:, 0])).sum() >= 80


def test_points_of_which_most_was_measured_outlive_the_thinning():
    steps = np.arange(1000)
    # A bias has no `weight` here; a point with its other measures counts as fully measured all the same.
    gradient = np.where(steps[:, None] % 10 == 7, [1.0, 1.0], np.nan)
    weight = np.where(steps[:, None] % 250 == 77, [1.0, np.nan], np.nan)
    history = History(leaves=LEAVES, steps=steps, series={"loss": np.ones(1000)}, layers={"weight": weight, "gradient": gradient})
    thinned = thin(history, 100)
    assert len(thinned) <= 100
    assert {77, 327, 577, 827} <= set(thinned.steps.tolist())


def test_where_nothing_can_be_written_there_is_one_warning_and_the_run_goes_on(tmp_path):
    (tmp_path / "file").touch()
    said: list[str] = []
    book = Logbook(tmp_path / "file" / "runs", LEAVES, warn=said.append)
    book.append(piece(0, 10))
    book.note([SPIKE])
    book.flush()
    book.close()
    assert book.path is None
    assert said == [f"the run is not recorded: {tmp_path}/file/runs cannot be written (Not a directory)"]
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_runs_that_start_in_one_second_have_a_name_each(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1_800_000_000.0)
    paths = [recorded(tmp_path, piece(0, at), about={"model": "my dir/my model.py"}) for at in (1, 2, 3)]
    day = time.strftime("%Y%m%d-%H%M%S", time.localtime(1_800_000_000))
    assert [path.name for path in paths] == [f"{day}-my_model{end}.sqlite" for end in ("", "-2", "-3")]
    assert [read(path).entry.steps for path in paths] == [1, 2, 3]


@pytest.mark.parametrize(
    ("end", "state"),
    [
        ("", "finished"),
        ("raise ValueError", "interrupted"),
        ("os._exit(1)", "interrupted"),
        # A forked child that ends must not close its parent's record.
        ("os.fork() or sys.exit(); os.wait(); assert read(book.path).state == 'running'", "finished"),
    ],
)
def test_a_run_that_nobody_closed_is_closed_with_the_program(tmp_path, end, state):
    program = python(f"book = Logbook(sys.argv[1], LEAVES)\nbook.append(piece(0, 10)); book.flush()\n{end}", tmp_path / "run.sqlite")
    program.communicate()
    run = read(tmp_path / "run.sqlite")
    assert (run.state, run.entry.steps) == (state, 10)


def test_whether_a_run_of_another_machine_goes_on_is_not_known(tmp_path, monkeypatch):
    monkeypatch.setattr("platform.node", lambda: "elsewhere")
    book = Logbook(tmp_path, LEAVES)
    monkeypatch.undo()
    assert book.path is not None
    assert read(book.path).state == "unknown"
    book.close()
    assert read(book.path).state == "finished"


def test_the_leaves_may_come_with_the_first_points_that_have_them(tmp_path):
    with Logbook(tmp_path) as book:
        without = History(steps=np.arange(1), series={"loss": np.ones(1, np.float32)}, layers={"gradient": np.zeros((1, 0), np.float32)})
        book.append(without)
        book.flush()
        book.append(piece(1, 3))
        book.append(replace(without, steps=np.array([3])))
    assert book.path is not None
    history = read(book.path).history
    assert (history.leaves, list(history.steps)) == (LEAVES, [0, 1, 2, 3])
    np.testing.assert_array_equal(history.layers["gradient"], [[np.nan] * 2, [1, 1.5], [2, 2.5], [np.nan] * 2])


def test_points_that_do_not_fit_the_leaves_are_refused(tmp_path):
    with Logbook(tmp_path, LEAVES[:1]) as book, pytest.raises(ValueError, match="the record has 1 leaves"):
        book.append(piece(0, 2))


def test_a_file_that_is_no_record_is_refused_in_one_line(tmp_path):
    text, empty, other, newer = (tmp_path / f"{name}.sqlite" for name in ("text", "empty", "other", "newer"))
    text.write_text("not a database" * 100)
    empty.touch()
    sqlite3.connect(other).execute("CREATE TABLE t (x)").connection.close()
    recorded(newer)
    sqlite3.connect(newer).execute("PRAGMA user_version = 99").connection.close()
    wrong = "is not the record of a run; `nandetect show` lists those that are kept"
    said = {text: "cannot be read as the record of a run: file is not a database", empty: wrong, other: wrong}
    for path, why in {**said, newer: "was written by a newer nandetect; install that to read it"}.items():
        with pytest.raises(UsageError) as refused:
            read(path)
        assert str(refused.value) == f"{path} {why}"
    assert entries(tmp_path) == []


def test_a_run_is_found_by_file_directory_name_and_last(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    kept = tmp_path / "nandetect" / "runs"
    with pytest.raises(UsageError, match="`nandetect train` keeps the next one there"):
        find("last")
    first, second = recorded(kept / "one-mlp.sqlite"), recorded(kept / "two-mlp.sqlite")
    assert find("last") == find(str(kept)) == second
    assert find(str(first)) == find("one-mlp") == find("one") == first
    with pytest.raises(UsageError) as refused:
        find("three")
    assert str(refused.value) == "there is no run three: the newest of 2 are two-mlp, one-mlp; `nandetect show` lists them"


@pytest.mark.skipif(sys.platform != "linux", reason="other platforms have a folder of their own")
@pytest.mark.parametrize("state", [None, "", "not/absolute"])
def test_without_an_absolute_folder_for_state_runs_are_kept_in_the_home(tmp_path, monkeypatch, state):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_STATE_HOME") if state is None else monkeypatch.setenv("XDG_STATE_HOME", state)
    assert default_directory() == tmp_path / ".local" / "state" / "nandetect" / "runs"


def test_old_runs_are_removed_but_not_one_that_is_written(tmp_path):
    going_on = Logbook(tmp_path / "a.sqlite", LEAVES)
    for name in "bcd":
        recorded(tmp_path / f"{name}.sqlite", piece(0, 10))
    prune(tmp_path, most=2)
    assert sorted(entry.name for entry in entries(tmp_path)) == ["a", "c", "d"]
    prune(tmp_path, most_bytes=0)
    assert [entry.name for entry in entries(tmp_path)] == ["a"]
    going_on.close()


def test_half_made_files_of_killed_processes_go_after_an_hour(tmp_path):
    old, new = tmp_path / ".x.part", tmp_path / ".y.part"
    old.touch()
    new.touch()
    os.utime(old, (0, 0))
    prune(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [".y.part"]
