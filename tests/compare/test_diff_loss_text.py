"""How diff-loss looks: the whole text of one comparison made by hand, in blocks and in ASCII."""

from __future__ import annotations

import dataclasses

from nandetect.cli import diff_loss_view
from nandetect.compare import Comparison, conclusions
from nandetect.compare.results import (
    Breakage,
    Input,
    Judgement,
    Limit,
    Parting,
    Ratio,
    Sameness,
    Sample,
    Survey,
    Threshold,
    Timing,
    Trained,
    Training,
    Worst,
)
from nandetect.records import Event, Frame, Report, Source

FRAME = Frame(file="loss.py", line=3, column=11, end_line=3, end_column=21, function="naive", code="    return jnp.log(p)")
SOURCE = Source(**{name: getattr(FRAME, name) for name in Frame.__slots__}, frames=(FRAME,))
ORIGIN = Event(primitive="log", value="-inf", reason="log of zero", source=SOURCE, index=(0,), count=1, size=2, shape=(2,), dtype="float32")
HERE = Input(
    family="gap, wrong class",
    phrase="logit gaps over {}",
    at=87.3,
    code=("logits = jnp.array([89.0, 0.0])", "labels = jnp.array([0.0, 1.0])"),
)
BROKEN = Threshold(
    family="gap, wrong class",
    phrase="logit gaps over {}",
    what="value",
    finite_to=87.3,
    broken_from=87.4,
    made="nan",
    fault=True,
    lasting=True,
)


def samples(ulps):
    sizes = [10.0**power for power in range(-6, 7)]
    return tuple(
        Sample(family="scale", at=size, value_ulps=lost, gradient_ulps=0.5, value_finite=lost is not None, gradient_finite=True)
        for size, lost in zip(sizes, ulps, strict=True)
    )


def survey(thresholds=(), limits=(), ulps=(1.0,) * 13, worst=None):
    return Survey(dtype="float32", thresholds=thresholds, limits=limits, samples=samples(ulps), worst_value=worst, worst_gradient=None)


NAIVE = Judgement(
    name="naive",
    sound=False,
    exact=True,
    unsupported=(),
    surveys=(
        survey(
            (BROKEN,),
            (Limit(family="gap, wrong class", primitive="log", made="-inf", at=87.3, source=SOURCE),),
            (1.0, 1.0, 1.0, 1.0, 2.0, 16.0, 256.0, 4096.0, 2.0**16, 2.0**24, None, None, None),
            Worst(what="value", ulps=4096.0, got=1.5, truth=1.0, input=HERE),
        ),
    ),
    breakages=(
        Breakage(
            what="value", got=float("nan"), truth=89.0, input=HERE, report=Report(origin=ORIGIN, chain=(ORIGIN,), symptoms=("result",))
        ),
    ),
    parting=Parting(event=ORIGIN, ulps=4096.0, ulps_before=1.0),
)
STABLE = Judgement(name="stable", sound=True, exact=True, unsupported=(), surveys=(survey(),), breakages=(), parting=None)
RATIO = Ratio(first=20.0, second=10.0, least=0.4, median=0.5, most=0.75)
FOUND = Comparison(
    verdict="`naive` is non-finite for logit gaps over 87.3 in float32; `stable` is finite throughout and within 1 ulp.",
    names=("naive", "stable"),
    dtype="float32",
    max_ulp=16.0,
    labels="onehot",
    shapes=((2,), (2,)),
    parameters=("logits", "labels"),
    sameness=Sameness(relation="same", difference=0.0, points=6),
    judged=(NAIVE, STABLE),
    timing=Timing(shape=(2,), forward=RATIO, backward=RATIO),
    training=Training(
        parted_at=7,
        runs=(
            Trained(name="naive", steps=8, non_finite_step=8, report=None, loss=1.0, accuracy=((0, 0.1),)),
            Trained(name="stable", steps=100, non_finite_step=None, report=None, loss=0.1, accuracy=((0, 0.1), (100, 0.97))),
        ),
    ),
    notes=("no exact rule is known for lu",),
    findings=(),
)
WHOLE = """\
`naive` is non-finite for logit gaps over 87.3 in float32; `stable` is finite throughout and within
1 ulp.

judged in float32 on (logits [2], labels [2]), one-hot labels; the same function in exact
arithmetic; more than 16 ulp is a fault

naive: at fault
  finite up to                 float32
  gap, wrong class, value         87.3
  inside, as one element grows: `log` is -inf from 87.3 (line 3)
  bits lost in float32 (x: not finite)
         value          gradient
  scale  ▁▁▁▁▂▃▄▅▆█xxx  ▁▁▁▁▁▁▁▁▁▁▁▁▁
         1e-6      1e6  1e-6      1e6
  value off by 4,096 ulp: 1.5, and the truth is 1, with
      logits = jnp.array([89.0, 0.0])
      labels = jnp.array([0.0, 1.0])
  value nan, and the truth is 89, with
      logits = jnp.array([89.0, 0.0])
      labels = jnp.array([0.0, 1.0])
  error: `log` made -inf in the forward pass
   --> loss.py:3:12, in naive
    |
  3 |     return jnp.log(p)
    |            ^^^^^^^^^^ log of zero
    |
    = -inf at [0]
    = seen first as -inf in result (1 of 2 elements)
  `log` loses the most: its result is 12 bits off, and what it was given less than 1 bit
    --> loss.py:3, in naive
    |
  3 |     return jnp.log(p)
    |            ^^^^^^^^^^
    |

stable: sound
  finite wherever the truth is, in float32
  bits lost in float32 (x: not finite)
         value          gradient
  scale  ▁▁▁▁▁▁▁▁▁▁▁▁▁  ▁▁▁▁▁▁▁▁▁▁▁▁▁
         1e-6      1e6  1e-6      1e6

training, the same but for the loss: the losses parted at step 7
  accuracy at step       0     100
  naive              10.0%       -
  stable             10.0%   97.0%

time per call, compiled, on shape [2]
  forward       naive 20 us, stable 10 us: 0.50 times the first's (0.40 to 0.75)
  with gradient naive 20 us, stable 10 us: 0.50 times the first's (0.40 to 0.75)
note: no exact rule is known for lu
"""


def test_the_whole_text():
    assert diff_loss_view.text(FOUND) == WHOLE.rstrip("\n")


def test_without_blocks_the_picture_is_drawn_in_ascii():
    told = diff_loss_view.text(FOUND, diff_loss_view.ASCII)
    assert told.isascii()
    assert "  scale  ____.,-=+#xxx  _____________" in told


def test_what_breaks_in_another_type_alone_is_a_note():
    elsewhere = dataclasses.replace(survey((BROKEN,)), dtype="float16")
    both = (dataclasses.replace(STABLE, surveys=(survey(), elsewhere)), STABLE)
    (note,) = conclusions.findings(both, FOUND.sameness, 16.0)
    assert (note.rule, note.severity) == ("low-precision", "note")
    assert note.message == "in float16 the value of `stable` is non-finite for logit gaps over 87.4"
