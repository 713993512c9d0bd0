"""How `nandetect diff-loss` looks: the verdict, then for each function where it is finite, what it loses, and where it parts."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from nandetect import wording
from nandetect.records import plain
from nandetect.render import excerpt, layout, page, words

if TYPE_CHECKING:
    from nandetect.compare import Comparison
    from nandetect.compare.results import Breakage, Judgement, Limit, Parting, Ratio, Sample, Survey, Threshold, Training, Worst

_WIDTH = 100
# A column of the picture for each size, as high as half of the bits that a float32 has.
BLOCKS, ASCII = "▁▂▃▄▅▆▇█", "_.,-=+*#"
_BITS = 24
# Lines of a report that say where: the headline, the place, the line and its carets.
_BRIEF = 5
# Families of which the limits are shown.
_ROWS = 10
# Columns of the table of accuracies.
_MARKS = 9
_PICTURED = ("scale", "gap, wrong class", "gap, right class", "offset", "all equal", "all equal, negative")


def show(found: Comparison, to_stderr: bool = False) -> None:
    """Print it, with blocks where the terminal's encoding has them."""
    stream = sys.stderr if to_stderr else sys.stdout
    try:
        BLOCKS.encode(stream.encoding or "ascii")
        blocks = BLOCKS
    except (UnicodeEncodeError, LookupError):
        blocks = ASCII
    stream.write(text(found, blocks) + "\n")
    stream.flush()


def text(found: Comparison, blocks: str = BLOCKS) -> str:
    """The whole report as plain text."""
    lines = [*page.wrap(found.verdict, _WIDTH), "", *page.wrap(_setting(found), _WIDTH)]
    for one in found.judged:
        lines += ["", *_function(one, found, blocks)]
    if found.training:
        lines += ["", *_training(found.training)]
    if found.timing:
        lines += ["", *_timing(found)]
    lines += [line for note in found.notes for line in page.wrap(f"note: {note}", _WIDTH)]
    return "\n".join(line.rstrip() for line in lines)


def _setting(found: Comparison) -> str:
    kinds = {"onehot": "one-hot labels", "classes": "labels as classes", "real": "real labels", "none": "no labels", "given": "as given"}
    taken = ", ".join(f"{name} {words.array_type(shape, '')}" for name, shape in zip(found.parameters, found.shapes, strict=True))
    same = {
        "same": "the same function in exact arithmetic",
        "factor": f"in exact arithmetic the second is {_short(found.sameness.amount)} times the first",
        "offset": f"in exact arithmetic the second is the first and {_short(found.sameness.amount)}",
        "different": "different functions in exact arithmetic",
        "unknown": "not known to be the same function",
    }[found.sameness.relation]
    return f"judged in {found.dtype} on ({taken}), {kinds[found.labels]}; {same}; more than {found.max_ulp:g} ulp is a fault"


def _function(one: Judgement, found: Comparison, blocks: str) -> Iterator[str]:
    yield f"{one.name}: {'sound' if one.sound else 'at fault'}"
    yield from _regions(one)
    yield from _limits(one)
    yield from _picture(one.surveys[0], blocks)
    for worst in (one.surveys[0].worst_value, one.surveys[0].worst_gradient):
        if worst and (worst.ulps > found.max_ulp):
            yield from _worst(worst)
    for number, broken in enumerate(one.breakages):
        yield from _breakage(broken, one.breakages[0].input.code if number else ())
    if one.parting:
        yield from _parting(one.parting)


def _regions(one: Judgement) -> Iterator[str]:
    """A line for each family in which it is not finite throughout, a column for each dtype."""
    rows: dict[tuple[str, str], dict[str, Threshold]] = {}
    for survey in one.surveys:
        for threshold in survey.thresholds:
            if threshold.fault:
                rows.setdefault((threshold.family, threshold.what), {})[survey.dtype] = threshold
    if not rows:
        yield f"  finite wherever the truth is, in {', '.join(survey.dtype for survey in one.surveys)}"
        return
    width = max(len(f"{family}, {what}") for family, what in rows) + 2
    dtypes = [survey.dtype for survey in one.surveys]
    yield f"  {'finite up to':<{width}}" + "".join(f"{dtype:>11}" for dtype in dtypes)
    for (family, what), cells in list(rows.items())[:_ROWS]:
        shown = [_limit(cells[dtype]) if dtype in cells else "throughout" for dtype in dtypes]
        yield f"  {f'{family}, {what}':<{width}}" + "".join(f"{cell:>11}" for cell in shown)
    yield from _more(len(rows))


def _more(rows: int) -> Iterator[str]:
    if rows > _ROWS:
        yield f"  and {rows - _ROWS} more, which --json has"


def _limits(one: Judgement) -> Iterator[str]:
    """Which equations meet a limit of the type, and where: the smallest size of any family."""
    survey = one.surveys[0]
    first: dict[str, Limit] = {}
    for limit in sorted(survey.limits, key=lambda limit: limit.at):
        first.setdefault(limit.primitive, limit)
    if first:
        told = [f"`{limit.primitive}` is {limit.made} from {limit.at:.4g}{_line(limit)}" for limit in first.values()]
        yield from (f"  {line}" for line in page.wrap(f"inside, as one element grows: {', '.join(told)}", _WIDTH - 2))


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
    ulps = getattr(sample, f"{what}_ulps")
    if ulps is None:
        return " " if getattr(sample, f"{what}_finite") else "x"
    bits = max(0.0, math.log2(max(ulps, 1.0)))
    return blocks[min(len(blocks) - 1, math.ceil(bits / _BITS * (len(blocks) - 1)))]


def _worst(worst: Worst) -> Iterator[str]:
    yield f"  {worst.what} off by {worst.ulps:,.0f} ulp: {_short(worst.got)}, and the truth is {_short(worst.truth)}, with"
    yield from _code(worst.input.code)


def _breakage(broken: Breakage, before: tuple[str, ...]) -> Iterator[str]:
    """The input, and the report of what broke there; after another one, whose input was `before`, its first lines alone."""
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
    """An error as the bits that are wrong."""
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
    marks = [at for at, _ in max((run.accuracy for run in trained.runs), key=len)]
    shown = marks[:: max(1, -(-len(marks) // _MARKS))]
    width = max(len(run.name) for run in trained.runs)
    yield f"  {'accuracy at step':<{max(width, 16)}}" + "".join(f"{at:>8}" for at in shown)
    for run in trained.runs:
        known = dict(run.accuracy)
        cells = [f"{known[at]:.1%}" if at in known else "-" for at in shown]
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


def body(found: Comparison) -> dict[str, Any]:
    """The command's own part of the JSON document; the findings stand beside it."""
    told = plain(found)
    del told["findings"]
    return told
