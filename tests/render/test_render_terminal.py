"""Whole reports against whole expected texts; the records are made by hand."""

from __future__ import annotations

import io
import linecache
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from nandetect.records import Event, Fix, Frame, Operand, Report, Source
from nandetect.render import terminal

MLP = """\
def softmax(logits):
    shifted = logits - logits.max(axis=-1, keepdims=True)
    powers = jnp.exp(shifted)
    return powers / powers.sum(axis=-1, keepdims=True)


def xlogy_loss(logits, labels):
    probs = softmax(logits)
    return -jnp.mean(jnp.sum(xlogy(labels, probs), axis=-1))
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A working directory of the user's, with `models/mlp.py` in it."""
    monkeypatch.chdir(tmp_path)
    linecache.clearcache()
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mlp.py").write_text(MLP)
    return tmp_path


def written(file: Path | str, text: str, marked: str, function: str = "step", frames: tuple[Frame, ...] = ()) -> Source:
    """The source record of the part `marked` of a text, with columns as Python counts them: UTF-8 bytes from 0."""
    start = text.index(marked)
    before, through = text[:start], text[: start + len(marked)]
    line = before.count("\n") + 1
    return Source(
        file=str(file),
        line=line,
        column=len(before.rpartition("\n")[2].encode()),
        end_line=through.count("\n") + 1,
        end_column=len(through.rpartition("\n")[2].encode()),
        function=function,
        code=text.splitlines()[line - 1],
        frames=frames,
    )


def saved(folder: Path, text: str, marked: str, name: str = "step.py", **more) -> Source:
    (folder / name).write_text(text, encoding="utf-8")
    return written(folder / name, text, marked, **more)


def array(name: str, value: float | None = None, **more) -> Operand:
    return Operand(**{"name": name, "shape": (40, 10), "dtype": "float32", "min": 0.0, "max": 1.0, "value": value, **more})


def scalar(name: str, value: Any, dtype: str = "float32") -> Operand:
    return Operand(name=name, dtype=dtype, value=value, min=value, max=value)


def xlogy_report(home: Path) -> Report:
    """The report of a softmax that underflowed under `xlogy`."""
    file = home / "models" / "mlp.py"
    division = Event(
        primitive="div",
        reason="zero divided by zero",
        phase="backward",
        source=written(file, MLP, "xlogy(labels, probs)", "xlogy_loss"),
        index=(17, 4),
        count=31,
        size=400,
        shape=(40, 10),
        dtype="float32",
        operands=(array("labels", 0.0, zero=360), array("probs", 0.0, zero=31)),
        derivative_of="xlogy",
    )
    power = Event(
        primitive="exp",
        value="finite",
        reason="underflow to zero",
        source=written(file, MLP, "jnp.exp(shifted)", "softmax"),
        index=(17, 4),
        operands=(array("shifted", -104.25, min=-104.25, max=0.0),),
    )
    product = Event(primitive="mul", phase="backward", source=division.source)
    gradient = Event(
        primitive="dot_general", phase="backward", source=written(file, MLP, "softmax(logits)\n    return", "xlogy_loss"), count=3, size=400
    )
    return Report(
        origin=division,
        chain=(division, product, gradient),
        cause=(power,),
        symptoms=("grads['w3']",),
        fixes=(
            Fix(
                code="ND012",
                name="log-of-softmax",
                why="softmax underflows to 0 once logits differ by about 104 (float32); take the logarithm before it does",
                before="xlogy(labels, softmax(logits))",
                after="labels * jax.nn.log_softmax(logits)",
                proven=True,
                proof="the gradient is finite, at most 1.0",
            ),
        ),
        step=212,
        label="loss xlogy · float32",
    )


def test_a_backward_fault_reads_like_a_compilers_message(home):
    assert (
        terminal.text(xlogy_report(home))
        == """\
error: `div` made nan in the backward pass of step 212        loss xlogy · float32
 --> models/mlp.py:9:30, in xlogy_loss
  |
9 |     return -jnp.mean(jnp.sum(xlogy(labels, probs), axis=-1))
  |                              ^^^^^^^^^^^^^^^^^^^^ derivative of `xlogy`: labels / probs
  |
  = 0.0 / 0.0 at [17, 4], zero divided by zero, the first of 31 in f32[40,10]
  = labels f32[40,10] is 0.0 there (min 0, max 1, 360 zeros)
  = probs is 0.0 there (min 0, max 1, 31 zeros)
  = because of `jnp.exp(shifted)` (line 3, at [17, 4]), underflow to zero: exp(-104.2)
  = seen first as nan in grads['w3'] (3 of 400 elements)
  = on the way: div (9) -> mul (9) -> dot_general (8) -> grads['w3']
help: softmax underflows to 0 once logits differ by about 104 (float32); take the logarithm before
      it does [ND012]
  - xlogy(labels, softmax(logits))
  + labels * jax.nn.log_softmax(logits)
  = proven: the gradient is finite, at most 1.0"""
    )


HMM = """\
def cell(carry, x):
    alpha = carry * x
    return alpha, jnp.log(alpha)  # the forward algorithm
"""


def test_a_fault_in_a_loop_names_iteration_lane_scope_and_callers(home):
    cell = saved(home, HMM, "jnp.log(alpha)", "hmm.py", function="cell")
    callers = (("hmm.py", 12, "loss"), ("train.py", 80, "train_step"), ("train.py", 90, "<module>"))
    frames = (Frame(file=cell.file, line=3, function="cell"), *(Frame(file=str(home / f), line=n, function=g) for f, n, g in callers))
    cell = written(cell.file, HMM, "jnp.log(alpha)", function="cell", frames=frames)
    logarithm = Event(
        primitive="log",
        value="-inf",
        reason="log of zero",
        source=cell,
        scope="Net/Hmm_0",
        context=(("vmap", 8), ("scan", 37)),
        index=(3,),
        count=1,
        size=8,
        shape=(8,),
        dtype="float32",
        operands=(Operand(name="alpha", shape=(8,), dtype="float32", min=0.0, max=0.5, value=0.0, zero=1, subnormal=4),),
    )
    add = Event(primitive="add", value="-inf", source=cell)
    masked = Event(primitive="div", source=Source(file=str(home / "mask.py"), line=4))
    report = Report(
        origin=logarithm,
        chain=(logarithm, *[add] * 40),
        symptoms=("[0]",),
        step=3,
        benign=(logarithm, masked),
        unseen=("pallas_call at kernels.py:12",),
        notes=("the batch was donated; the replay used a copy",),
    )
    assert (
        terminal.text(report)
        == """\
error: `log` made -inf in the forward pass of step 3, scan iteration 37
 --> hmm.py:3:19, in cell
  |
3 |     return alpha, jnp.log(alpha)  # the forward algorithm
  |                   ^^^^^^^^^^^^^^ log of zero
  |
  = called from loss (12), train_step (train.py:80)
  = log(0.0) at [3]: alpha f32[8] is 0.0 there (min 0, max 0.5, 1 zero, 4 subnormals)
  = under vmap over 8, in scan iteration 37 (counted from 0), scope Net/Hmm_0
  = seen first as -inf in output[0]
  = on the way: log (3) -> add (3) x 40 -> output[0]
  = not at fault: 2 other non-finite values that no output descends from: `log` (line 3),
    `div` (mask.py:4)
  = not looked inside: pallas_call at kernels.py:12; checked at the outputs
  = note: the batch was donated; the replay used a copy"""
    )


def test_a_value_that_arrived_so_is_told_by_its_argument(home):
    arrived = Event(
        primitive="<input>",
        argument="batch['x']",
        index=(2, 7),
        count=3,
        size=400,
        shape=(40, 10),
        dtype="float32",
        operands=(array("batch['x']", float("nan"), nan=3),),
    )
    total = Event(primitive="reduce_sum", source=saved(home, HMM, "carry * x"), count=1, size=1)
    report = Report(
        origin=arrived, chain=(arrived, total), symptoms=("loss", "grads['w1']", "grads['b1']", "grads['w2']", "grads['b2']"), step=5
    )
    assert (
        terminal.text(report)
        == """\
error: nan was already in the input `batch['x']` of step 5
  |
  = nan in 3 of 400 elements, the first at [2, 7] of f32[40,10] (min 0, max 1, 3 nan)
  = seen first as nan in loss, and in grads['w1'], grads['b1'] and 2 more
  = on the way: batch['x'] -> reduce_sum (step.py:2) -> loss"""
    )


def test_the_library_line_comes_second_to_the_users(home):
    text = "def loss(logits, labels):\n    return optax.ctc_loss(logits, labels).mean()\n"
    library = Frame(
        file="/opt/lib/site-packages/optax/_ctc.py",
        line=88,
        column=8,
        end_line=88,
        end_column=18,
        function="ctc_loss",
        code="    x = jnp.log(p)",
    )
    own = saved(home, text, "optax.ctc_loss(logits, labels)", function="loss")
    source = written(own.file, text, "optax.ctc_loss(logits, labels)", function="loss", frames=(library, own))
    report = Report(
        origin=Event(primitive="log", value="-inf", reason="log of zero", source=source, operands=(scalar("", 0.0),)), symptoms=("",)
    )
    assert (
        terminal.text(report)
        == """\
error: `log` made -inf in the forward pass
 --> step.py:2:12, in loss
  |
2 |     return optax.ctc_loss(logits, labels).mean()
  |            ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ log of zero
  |
  = inside optax/_ctc.py:88, in ctc_loss: jnp.log(p)
  = log(0.0)
  = seen first as -inf in output"""
    )


def test_the_update_and_a_matrix_product_are_told_by_ranges(home):
    kernel = Operand(name="params['dense']['kernel']", shape=(8, 4), dtype="float16", min=0.0, max=300.0)
    report = Report(
        origin=Event(
            primitive="dot_general",
            value="inf",
            phase="update",
            reason="overflow in float16",
            source=saved(home, "state = a @ kernel\n", "a @ kernel", function="<module>"),
            index=(0, 3),
            shape=(4, 4),
            dtype="float16",
            count=2,
            size=16,
            operands=(Operand(name="a", shape=(4, 8), dtype="float16", min=-300.0, max=65504.0), kernel),
        )
    )
    assert (
        terminal.text(report)
        == """\
error: `dot_general` made inf in the update
 --> step.py:1:9
  |
1 | state = a @ kernel
  |         ^^^^^^^^^^ overflow in float16
  |
  = inf at [0, 3], the first of 2 in f16[4,4]
  = a f16[4,8] (min -300, max 65504)
  = params['dense']['kernel'] f16[8,4] (min 0, max 300)"""
    )


def test_iterations_of_nested_loops_are_told_with_the_lines_of_the_loops(home):
    source = saved(home, "y = sqrt(x)\n", "sqrt(x)")
    loops = (Frame(file=source.file, line=269), Frame(file="rollout.py", line=31))
    origin = Event(primitive="sqrt", reason="sqrt of a negative number", context=(("scan", 3), ("while", 17)), loops=loops, source=source)
    lines = terminal.text(Report(origin=origin)).splitlines()
    told = "error: `sqrt` made nan in the forward pass, iteration 3 of the scan at step.py:269, iteration 17 of the while at rollout.py:31"
    assert terminal.text(Report(origin=origin), 200).splitlines()[0] == told
    assert lines[-2:] == [
        "  = in iteration 3 of the scan at line 269 (counted from 0), in iteration 17 of the while at",
        "    rollout.py:31 (counted from 0)",
    ]


def test_nested_loops_branches_and_shards_are_all_named(home):
    context = (("shard", 5), ("scan", 2), ("cond", 1), ("while", 17))
    origin = Event(primitive="sqrt", reason="sqrt of a negative number", context=context, source=saved(home, "y = sqrt(x)\n", "sqrt(x)"))
    lines = terminal.text(Report(origin=origin)).splitlines()
    assert lines[0] == "error: `sqrt` made nan in the forward pass, scan iteration 2, while iteration 17"
    assert lines[-2:] == [
        "  = on shard 5, in scan iteration 2 (counted from 0), in branch 1 of a cond, in while iteration 17",
        "    (counted from 0)",
    ]


def test_what_could_not_be_proved_is_said_plainly(home):
    origin = Event(primitive="div", value="inf", reason="division by zero", source=saved(home, "y = x / z\n", "x / z"))
    doubtful = terminal.text(Report(origin=origin, reproduced=False)).splitlines()
    assert doubtful[0] == "error: `div` probably made inf in the forward pass"
    assert doubtful[-1] == "  = note: a replay did not reproduce what the compiled step returned; this is the likeliest place"
    compiled = terminal.text(Report(origin=origin, compiled_only=True)).splitlines()
    assert compiled[0] == "error: `div` made inf in the forward pass, only as compiled"
    assert compiled[-1] == "  = note: op by op the values stay finite; the compiled program is at fault"


def excerpt_of(source: Source, width: int = 100) -> str:
    """The excerpt of a report about nothing but its source, without the headline and the last gutter."""
    return "\n".join(terminal.text(Report(origin=Event(primitive="div", reason="division by zero", source=source)), width).splitlines()[1:])


def test_an_expression_over_several_lines_is_underlined_on_each(home):
    text = "def f(x, y):\n    return (x  # why\n            / y)\n"
    assert (
        excerpt_of(saved(home, text, "x  # why\n            / y"))
        == """\
 --> step.py:2:13, in step
  |
2 |     return (x  # why
  |             ^
3 |             / y)
  |             ^^^ division by zero
  |"""
    )


def test_of_a_long_expression_the_ends_are_shown(home):
    call = "jnp.where(\n        x > 0,\n        y / x,\n        0.0,\n    )"
    assert (
        excerpt_of(saved(home, f"def f(x, y):\n    z = {call}\n", call))
        == """\
 --> step.py:2:9, in step
  |
2 |     z = jnp.where(
  |         ^^^^^^^^^^
3 |         x > 0,
  |         ^^^^^^
...
6 |     )
  |     ^ division by zero
  |"""
    )


def test_carets_stand_under_the_expression_behind_tabs_and_wide_characters(home):
    assert (
        excerpt_of(saved(home, "\tif größe := '漢字', y / x: pass\n", "y / x"))
        == """\
 --> step.py:1:20, in step
  |
1 |     if größe := '漢字', y / x: pass
  |                         ^^^^^ division by zero
  |"""
    )


def test_carets_mark_what_python_itself_marks(home):
    text = "ä, y, x = 'ß漢字', 1, 0; z = (ä, y / x, ä)\n"
    (home / "step.py").write_text(text, encoding="utf-8")
    with pytest.raises(ZeroDivisionError) as raised:
        exec(compile(text, home / "step.py", "exec"), {})
    traceback = raised.tb.tb_next
    assert traceback is not None
    line, end_line, column, end_column = list(traceback.tb_frame.f_code.co_positions())[traceback.tb_lasti // 2]
    assert line is not None
    source = Source(file=str(home / "step.py"), line=line, column=column, end_line=end_line, end_column=end_column, code=text.rstrip("\n"))
    code, carets = excerpt_of(source).splitlines()[2:4]
    before = carets.index("^")
    assert cell_len(code[: code.index("y / x")]) == before
    assert carets.count("^") == len("y / x")


def test_of_a_very_long_line_the_part_around_the_expression_is_shown(home):
    before, after = ", ".join(f"f({n})" for n in range(40)), ", ".join(f"g({n})" for n in range(40))
    assert (
        excerpt_of(saved(home, f"z = [{before}] + y / x + [{after}]\n", "y / x"), 60)
        == """\
 --> step.py:1:278, in step
  |
1 | …, f(38), f(39)] + y / x + [g(0), g(1), g(2), g(3), g(4…
  |                    ^^^^^ division by zero
  |"""
    )


def test_without_columns_the_line_stands_alone_and_without_source_only_its_place(home):
    line = Source(file=str(home / "gone.py"), line=7, function="g", code="    return y / x")
    assert (
        excerpt_of(line)
        == """\
 --> gone.py:7, in g
  |
7 |     return y / x
  |
  = division by zero"""
    )
    assert (
        excerpt_of(Source(file="/elsewhere/gone.py", line=7))
        == """\
 --> /elsewhere/gone.py:7
  |
  = division by zero"""
    )


def test_an_event_without_source_says_so(home):
    assert (
        terminal.text(Report(origin=Event(primitive="div", reason="division by zero")))
        == """\
error: `div` made nan in the forward pass
  |
  = no line of your own is known for it
  = division by zero"""
    )


def test_a_file_that_is_gone_still_shows_the_line_that_was_kept(home):
    text = "y = (a\n     / b)\n"
    assert (
        excerpt_of(written(home / "gone.py", text, "a\n     / b"))
        == """\
 --> gone.py:1:6, in step
  |
1 | y = (a
  |      ^ division by zero
  |"""
    )


@pytest.mark.parametrize(("label", "said"), [("step", "step()"), ("loss xlogy · float32", "loss xlogy · float32"), ("<lambda>", "")])
def test_what_was_run_stands_beside_the_headline(home, label, said):
    first = terminal.text(Report(origin=Event(primitive="log"), label=label)).splitlines()[0]
    assert first == f"error: `log` made nan in the forward pass        {said}".rstrip()


def test_narrow_widths_wrap_and_keep_the_carets_in_place(home):
    assert (
        terminal.text(xlogy_report(home), 44)
        == """\
error: `div` made nan in the backward pass
of step 212
  loss xlogy · float32
 --> models/mlp.py:9:30, in xlogy_loss
  |
9 | …mean(jnp.sum(xlogy(labels, probs), axi…
  |               ^^^^^^^^^^^^^^^^^^^^
  |               derivative of `xlogy`:
  |               labels / probs
  |
  = 0.0 / 0.0 at [17, 4], zero divided by
    zero, the first of 31 in f32[40,10]
  = labels f32[40,10] is 0.0 there (min 0,
    max 1, 360 zeros)
  = probs is 0.0 there (min 0, max 1,
    31 zeros)
  = because of `jnp.exp(shifted)` (line 3,
    at [17, 4]), underflow to zero:
    exp(-104.2)
  = seen first as nan in grads['w3']
    (3 of 400 elements)
  = on the way: div (9) -> mul (9) ->
    dot_general (8) -> grads['w3']
help: softmax underflows to 0 once logits
      differ by about 104 (float32); take
      the logarithm before it does [ND012]
  - xlogy(labels, softmax(logits))
  + labels * jax.nn.log_softmax(logits)
  = proven: the gradient is finite, at most
    1.0"""
    )


@pytest.mark.parametrize("width", range(40, 121, 7))
def test_no_line_is_wider_than_asked_and_none_ends_in_space(home, width):
    for line in terminal.text(xlogy_report(home), width).splitlines():
        assert cell_len(line) <= width
        assert line == line.rstrip()


def test_a_long_way_is_shortened_to_one_line(home):
    text = "".join(f"x{n} = f(x)\n" for n in range(30))
    steps = [Event(primitive=f"op{n}", source=saved(home, text, f"x{n} = ")) for n in range(30)]
    lines = terminal.text(Report(origin=steps[0], chain=tuple(steps), symptoms=("loss",))).splitlines()
    assert lines[-2:] == [
        "  = on the way: op0 (1) -> op1 (2) -> op2 (3) -> ... 24 more ... -> op27 (28) -> op28 (29) ->",
        "    op29 (30) -> loss",
    ]


def test_a_cycle_through_a_loop_is_counted(home):
    text = "a = b * c\nd = a + e\n"
    product, total = (Event(primitive=p, source=saved(home, text, code)) for p, code in (("mul", "b * c"), ("add", "a + e")))
    report = Report(origin=product, chain=(product, *[total, product] * 5), symptoms=("['loss']",))
    assert terminal.text(report).splitlines()[-1] == "  = on the way: (mul (1) -> add (2)) x 5 -> mul (1) -> output['loss']"


@pytest.mark.parametrize(
    ("value", "dtype", "said"),
    [
        (0.0, "float32", "0.0"),
        (-0.0, "float32", "-0.0"),
        (-104.24999, "float32", "-104.2"),
        (3.4028234663852886e38, "float32", "3.403e+38"),
        (0.30000001192092896, "float32", "0.3"),
        (0.9999999403953552, "float32", "0.99999994"),
        (1.0000001192092896, "float32", "1.0000001"),
        (3.19951367, "float32", "3.2"),
        (0.1 + 0.2, "float64", "0.30000000000000004"),
        (65504.0, "float16", "65504.0"),
        (1e-45, "float32", "1e-45"),
        (float("inf"), "float32", "inf"),
        (float("nan"), "float32", "nan"),
        (complex(1.5, -2.0), "complex64", "1.5 - 2.0j"),
        (7, "int32", "7"),
        (True, "bool", "True"),
    ],
)
def test_numbers_are_short_and_never_look_rounder_than_they_are(value, dtype, said):
    report = Report(origin=Event(primitive="op", operands=(scalar("x", value, dtype),)))
    assert f"op({said})" in terminal.text(report)


def test_a_numpy_scalar_is_said_as_a_number():
    import numpy as np

    assert "exp(88.73)" in terminal.text(Report(origin=Event(primitive="exp", operands=(scalar("", np.float32(88.73)),))))


def test_escape_sequences_in_source_do_not_reach_the_terminal(home):
    assert "\x1b" not in terminal.text(Report(origin=Event(primitive="div", source=saved(home, "y = '\x1b[31m' / x\n", "/ x"))))


def printed(report: Report, **console) -> str:
    file = io.StringIO()
    terminal.show(report, Console(file=file, **console))
    return file.getvalue()


def test_a_pipe_gets_plain_text_a_terminal_gets_colour(home):
    report = xlogy_report(home)
    assert printed(report) == terminal.text(report) + "\n"
    coloured = printed(report, force_terminal=True, width=100, color_system="standard")
    assert "\x1b[1;31merror: " in coloured
    file = io.StringIO()
    console = Console(file=file, width=100)
    console.print(terminal.rich_report(report))
    assert file.getvalue() == terminal.text(report) + "\n"


def test_no_color_gives_no_escapes_even_on_a_terminal(home, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    report = xlogy_report(home)
    assert printed(report, force_terminal=True, width=80) == terminal.text(report, 80) + "\n"
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=80)
    console.print(report)
    assert "\x1b" not in file.getvalue()


def test_markup_in_the_users_code_is_not_markup(home):
    report = Report(origin=Event(primitive="div", source=saved(home, "y = x['[bold]a[/bold]'] / z\n", "x['[bold]a[/bold]'] / z")))
    assert "x['[bold]a[/bold]'] / z" in printed(report, force_terminal=True, width=100)


def test_a_second_way_to_write_it_takes_one_line(home):
    report = xlogy_report(home)
    other = Fix(
        code="ND013", name="safe-where", why="where picks after both sides are computed", before="x", after="xlogy(labels, probs + eps)"
    )
    assert terminal.text(replace(report, fixes=(*report.fixes, other))).splitlines()[-1] == (
        "help: or `xlogy(labels, probs + eps)`: where picks after both sides are computed [ND013]"
    )


def test_the_fullest_report_fits_one_screen(home):
    report = xlogy_report(home)
    operands = tuple(array(f"operand_{name}", 0.0, index=(3, 4)) for name in "abcdefgh")
    full = replace(
        report,
        origin=replace(report.origin, operands=operands, context=(("scan", 3), ("vmap", 8)), scope="Net/Dense_0"),
        chain=report.chain * 20,
        cause=report.cause * 9,
        symptoms=tuple(f"grads['layer_{n}']['kernel']" for n in range(40)),
        benign=report.chain * 9,
        unseen=tuple(f"pallas_call at kernels.py:{n}" for n in range(9)),
        fixes=report.fixes * 3,
    )
    assert len(terminal.text(report).splitlines()) <= 20
    assert len(terminal.text(full).splitlines()) <= 35
