"""How `nandetect diff-loss` looks: the verdict, then for each function where it is finite, what it loses, and where it parts."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from nandetect import wording
from nandetect.cli import output
from nandetect.render import excerpt, layout, page, words

if TYPE_CHECKING:
    from nandetect.compare import Comparison
    from nandetect.compare.results import Breakage, Judgement, Limit, Parting, Ratio, Sample, Survey, Threshold, Training, Worst

_WIDTH = 100
# Blocks of the picture, a column for each size of the input; the highest stands for all bits of a float32.
BLOCKS, ASCII = "▁▂▃▄▅▆▇█", "_.,-=+*#"
_BITS = 24
# The first lines of a report, which say where: the headline, the place, the line and its carets.
_BRIEF = 5
# The most families that the table of limits shows.
_ROWS = 10
# The most columns of the table of accuracies.
_COLUMNS = 9
_PICTURED = ("scale", "gap, wrong class", "gap, right class", "offset", "all equal", "all equal, negative")


def show(found: Comparison, to_stderr: bool = False) -> None:
    """Print the comparison, with blocks where the terminal's encoding has them."""
    stream = sys.stderr if to_stderr else sys.stdout
    blocks = BLOCKS if page.can_write(BLOCKS, stream.encoding or "ascii") else ASCII
    output.write_lines([text(found, blocks)], to_stderr)


def text(found: Comparison, blocks: str = BLOCKS) -> str:
    """The whole report as plain text."""
    lines = [*page.wrap(found.verdict, _WIDTH), "", *page.wrap(_setting(found), _WIDTH)]
    for judgement in found.judged:
        lines += ["", *_function(judgement, found, blocks)]
    if found.training:
        lines += ["", *_training(found.training)]
    if found.timing:
        lines += ["", *_timing(found)]
    lines += [line for note in found.notes for line in page.wrap(f"note: {note}", _WIDTH)]
    return "\n".join(line.rstrip() for line in lines)


def _setting(found: Comparison) -> str:
    kinds = {"onehot": "one-hot labels", "classes": "labels as classes", "real": "real labels", "none": "no labels", "given": "as given"}
    shapes = ", ".join(f"{name} {words.array_type(shape, '')}" for name, shape in zip(found.parameters, found.shapes, strict=True))
    same = {
        "same": "the same function in exact arithmetic",
        "factor": f"in exact arithmetic the second is {_short(found.sameness.amount)} times the first",
        "offset": f"in exact arithmetic the second is the first and {_short(found.sameness.amount)}",
        "different": "different functions in exact arithmetic",
        "unknown": "not known to be the same function",
    }[found.sameness.relation]
    return f"judged in {found.dtype} on ({shapes}), {kinds[found.labels]}; {same}; more than {found.max_ulp:g} ulp is a fault"


def _function(judgement: Judgement, found: Comparison, blocks: str) -> Iterator[str]:
    """What was found of one of the two functions."""
    yield f"{judgement.name}: {'sound' if judgement.sound else 'at fault'}"
    yield from _regions(judgement)
    yield from _limits(judgement)
    survey = judgement.surveys[0]
    yield from _picture(survey, blocks)
    for worst in (survey.worst_value, survey.worst_gradient):
        if worst and (worst.ulps > found.max_ulp):
            yield from _worst(worst)
    for number, broken in enumerate(judgement.breakages):
        yield from _breakage(broken, judgement.breakages[0].input.code if number else ())
    if judgement.parting:
        yield from _parting(judgement.parting)


def _regions(judgement: Judgement) -> Iterator[str]:
    """A line for each family in which the function is not finite throughout, a column for each dtype."""
    rows: dict[tuple[str, str], dict[str, Threshold]] = {}
    for survey in judgement.surveys:
        for threshold in survey.thresholds:
            if threshold.fault:
                rows.setdefault((threshold.family, threshold.what), {})[survey.dtype] = threshold
    if not rows:
        yield f"  finite wherever the truth is, in {', '.join(survey.dtype for survey in judgement.surveys)}"
        return
    width = max(len(f"{family}, {what}") for family, what in rows) + 2
    dtypes = [survey.dtype for survey in judgement.surveys]
    yield f"  {'finite up to':<{width}}" + "".join(f"{dtype:>11}" for dtype in dtypes)
    for (family, what), cells in list(rows.items())[:_ROWS]:
        shown = [_limit(cells[dtype]) if dtype in cells else "throughout" for dtype in dtypes]
        yield f"  {f'{family}, {what}':<{width}}" + "".join(f"{cell:>11}" for cell in shown)
    yield from _more(len(rows))


def _more(rows: int) -> Iterator[str]:
    if rows > _ROWS:
        yield f"  and {rows - _ROWS} more, which --json has"


def _limits(judgement: Judgement) -> Iterator[str]:
    """Which equations meet a limit of the dtype, and where: at the smallest size of any family."""
    survey = judgement.surveys[0]
    first: dict[str, Limit] = {}
    for limit in sorted(survey.limits, key=lambda limit: limit.at):
        first.setdefault(limit.primitive, limit)
    if first:
        met = [f"`{limit.primitive}` is {limit.made} from {limit.at:.4g}{_line(limit)}" for limit in first.values()]
        yield from (f"  {line}" for line in page.wrap(f"inside, as one element grows: {', '.join(met)}", _WIDTH - 2))


def _line(limit: Limit) -> str:
    return f" ({words.spot(limit.source, limit.source)})" if limit.source else ""


def _limit(threshold: Threshold) -> str:
    return "nowhere" if threshold.finite_to is None else f"{threshold.finite_to:.4g}"


def _picture(survey: Survey, blocks: str) -> Iterator[str]:
    """Bits lost over twelve decades, a row for each family."""
    rows = [(name, [sample for sample in survey.samples if sample.family == name]) for name in _PICTURED]
    rows = [(name, samples) for name, samples in rows if samples]
    if not rows:
        return
    width = max(len(name) for name, _ in rows)
    columns = len(rows[0][1])
    yield f"  bits lost in {survey.dtype} (x: not finite)"
    yield f"  {'':<{width}}  {'value':<{columns + 2}}gradient"
    for name, samples in rows:
        value, gradient = ("".join(_block(sample, what, blocks) for sample in samples) for what in ("value", "gradient"))
        yield f"  {name:<{width}}  {value:<{columns + 2}}{gradient}"
    yield f"  {'':<{width}}  {'1e-6':<{columns - 3}}{'1e6':<5}1e-6{'1e6':>{max(columns - 4, 4)}}"


def _block(sample: Sample, what: str, blocks: str) -> str:
    """The bits that a value or a gradient lost, as a block; `x` where it is not finite, a space where it was not judged."""
    ulps = getattr(sample, f"{what}_ulps")
    if ulps is None:
        return " " if getattr(sample, f"{what}_finite") else "x"
    bits = max(0.0, math.log2(max(ulps, 1.0)))
    return blocks[min(len(blocks) - 1, math.ceil(bits / _BITS * (len(blocks) - 1)))]


def _worst(worst: Worst) -> Iterator[str]:
    yield f"  {worst.what} off by {worst.ulps:,.0f} ulp: {_short(worst.got)}, and the truth is {_short(worst.truth)}, with"
    yield from _code(worst.input.code)


def _breakage(broken: Breakage, before: tuple[str, ...]) -> Iterator[str]:
    """The input, and the report of what broke there; only its first lines after another breakage, whose input was `before`."""
    same = " the same" if broken.input.code == before else ""
    yield f"  {broken.what} {_short(broken.got)}, and the truth is {_short(broken.truth)}, with{same}"
    yield from _code(() if broken.input.code == before else broken.input.code)
    if broken.report is not None:
        lines = layout.text(broken.report, _WIDTH - 2).splitlines()
        yield from (f"  {line}" for line in (lines[:_BRIEF] if before else lines))


def _code(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        yield f"      {line}"


def _bits(ulps: float) -> str:
    """How many bits an error of so many ulp makes wrong."""
    if ulps < 2:
        return "less than 1 bit"
    return "all of its bits" if math.log2(ulps) >= _BITS else f"{math.log2(ulps):.0f} bits"


def _parting(parting: Parting) -> Iterator[str]:
    event = parting.event
    given = _bits(parting.ulps_before)
    yield f"  `{event.primitive}` loses the most: its result is {_bits(parting.ulps)} off, and what it was given {given}"
    if event.source is not None:
        yield f"    --> {words.path(event.source.file)}:{event.source.line}, in {words.function(event.source.function)}"
        for line in excerpt.excerpt(event.source, "", _WIDTH - 2):
            yield f"  {page.plain_text(line)}"


def _training(trained: Training) -> Iterator[str]:
    parted = "the losses never parted" if trained.parted_at is None else f"the losses parted at step {trained.parted_at}"
    yield f"training, the same but for the loss: {parted}"
    steps = [step for step, _ in max((run.accuracy for run in trained.runs), key=len)]
    shown = steps[:: max(1, -(-len(steps) // _COLUMNS))]
    width = max(len(run.name) for run in trained.runs)
    yield f"  {'accuracy at step':<{max(width, 16)}}" + "".join(f"{step:>8}" for step in shown)
    for run in trained.runs:
        known = dict(run.accuracy)
        cells = [f"{known[step]:.1%}" if step in known else "-" for step in shown]
        yield f"  {run.name:<{max(width, 16)}}" + "".join(f"{cell:>8}" for cell in cells)
    for run in trained.runs:
        if run.report is not None:
            lines = layout.text(run.report, _WIDTH - 2).splitlines()
            yield f"  {run.name} turned non-finite in step {run.non_finite_step}:"
            yield from (f"  {line}" for line in lines[:_BRIEF])


def _timing(found: Comparison) -> Iterator[str]:
    assert found.timing is not None
    first, second = found.names
    yield f"time per call, compiled, on shape {list(found.timing.shape)}"
    for name, ratio in (("forward", found.timing.forward), ("with gradient", found.timing.backward)):
        yield f"  {name:<14}{_ratio(ratio, first, second)}"


def _ratio(ratio: Ratio, first: str, second: str) -> str:
    spread = f"{ratio.median:.2f} times the first's ({ratio.least:.2f} to {ratio.most:.2f})"
    return f"{first} {ratio.first:,.0f} us, {second} {ratio.second:,.0f} us: {spread}"


def _short(x: float | None) -> str:
    return "?" if x is None else wording.precise(x)
