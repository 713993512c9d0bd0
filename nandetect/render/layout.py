"""A report as a page: what is said, in which order. Painters add colour; neither this module nor they compute anything."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.cells import cell_len

from nandetect import ownership
from nandetect.records import Event, Fix, Report, Source
from nandetect.render import words
from nandetect.render.excerpt import excerpt, gutter_width
from nandetect.render.page import Line, Span, hang, joined, listing, plain_text, printable
from nandetect.render.route import ARROW, route

_NARROWEST = 40
_OPERANDS = 4
_CAUSES = 3
_OTHERS = 3
_FIXES = 2


def page(report: Report, width: int = 100) -> list[Line]:
    """The whole report, laid out for a width."""
    width = max(width, _NARROWEST)
    origin = report.origin
    gutter = gutter_width(origin.source) if origin.source else 1
    label = _label(origin)
    shown = excerpt(origin.source, label, width) if origin.source else []
    told = label if any("^" in span.text for line in shown for span in line if span.style == "caret") else ""
    lines = [*_headline(report, width), *_arrow(origin.source, gutter, width), *shown]
    if not shown:
        lines.append((Span(" " * gutter + " |", "gutter"),))
    for fact in _facts(report, told, width - gutter - 3):
        lines += hang((Span(" " * gutter + " = ", "gutter"),), fact, width)
    for fix in report.fixes[:1]:
        lines += _help(fix, gutter, width)
    for fix in report.fixes[1:_FIXES]:
        also = "and" if fix.proven else "or"
        lines += hang((Span("help: ", "help"),), f"{also} `{fix.after or fix.name}`: {fix.why} [{fix.code}]", width)
    for said in _elsewhere(report):
        lines += hang((Span(" " * gutter + " = ", "gutter"),), said, width)
    return lines


def text(report: Report, width: int = 100) -> str:
    """The page without colour: no escapes, no trailing spaces."""
    return "\n".join(plain_text(line) for line in page(report, width))


def headline(report: Report) -> str:
    """What happened, in a sentence that stands alone."""
    origin = report.origin
    number = "" if report.step is None else f" step {report.step}"
    step = number and f" of{number}"
    if origin.primitive == "<input>":
        name = f"the input `{origin.argument}`" if origin.argument else "an input"
        return f"{origin.value} was already in {name}{step}"
    if origin.primitive == "<literal>":
        return f"{origin.value} is written as a literal into a result{step}"
    if origin.primitive == "<unknown>":
        return f"a result{step} was {origin.value}, and what made it was not found"
    verb = "made" if report.reproduced else "probably made"
    rounds = words.iterations(origin)
    compiled = ", only as compiled" if report.compiled_only else ""
    where = f"{', ' + rounds if rounds else ''}{compiled}"
    if words.is_aside(origin):
        return f"`{origin.primitive}` {verb} {origin.value}{number and ' in' + number}{where}, {words.phase(origin)}"
    return f"`{origin.primitive}` {verb} {origin.value} {words.phase(origin)}{step}{where}"


def _headline(report: Report, width: int) -> list[Line]:
    lines = hang((Span("error: ", "error"),), headline(report), width, "headline", after=())
    label = _program(report.label)
    if not label:
        return lines
    beside = (*lines[0], Span(" " * 8 + label, "dim"))
    if len(lines) == 1 and cell_len(plain_text(beside)) <= width:
        return [beside]
    return [*lines, *hang((Span("  "),), label, width, "dim")]


def _program(label: str) -> str:
    """What was run; a function's bare name is marked as one, and a lambda's says nothing."""
    return "" if label == "<lambda>" else f"{label}()" if label.isidentifier() else label


def _arrow(source: Source | None, gutter: int, width: int) -> list[Line]:
    if source is None:
        return []
    lead = source.code.encode()[: source.column or 0].decode(errors="replace")
    column = "" if source.column is None else f":{len(lead) + 1}"
    function = f", in {words.function(source.function)}" if source.function and source.function != "<module>" else ""
    return hang((Span(" " * gutter + "--> ", "gutter"),), f"{words.path(source.file)}:{source.line}{column}{function}", width)


def _label(origin: Event) -> str:
    """What stands behind the carets."""
    if origin.derivative_of:
        detail = words.by_name(origin) or origin.reason
        return f"derivative of `{origin.derivative_of}`" + (f": {detail}" if detail else "")
    return origin.reason


def _facts(report: Report, told: str, width: int) -> Iterator[str]:
    origin = report.origin
    if origin.source is None and origin.primitive != "<input>":
        yield "no line of your own is known for it"
    if not told and _label(origin) and origin.primitive != "<input>":
        yield _label(origin)
    yield from _stack(origin.source)
    if report.called_at is not None:
        call = report.called_at
        inside = "" if call.function == "<module>" else f", in {words.function(call.function)}"
        yield f"the step was called at {words.place(call, origin.source)}{inside}: {call.code.strip()}"
    yield from _element(origin, told, width)
    where = [*words.surroundings(origin), *([f"scope {origin.scope}"] if origin.scope else [])]
    if where:
        yield ", ".join(where)
    for number, event in enumerate(report.cause[:_CAUSES]):
        yield ("because of " if number == 0 else "and that because of ") + _cause(event, origin)
    for event in report.others[:_OTHERS]:
        yield f"also at fault, even with that mended: {_cause(event, origin)}"
    yield from _symptom(report)
    yield from _caveats(report)


def _stack(source: Source | None) -> Iterator[str]:
    """The library line that the user's line called into, and who called the user's line."""
    if source is None:
        return
    keys = [(frame.file, frame.line, frame.function) for frame in source.frames]
    key = (source.file, source.line, source.function)
    own = keys.index(key) if key in keys else 0
    if own:
        inner = source.frames[0]
        code = f": {words.marked(inner)}" if inner.code.strip() else ""
        yield f"inside {words.place(inner)}, in {words.function(inner.function)}{code}"
    callers = [frame for frame in source.frames[own + 1 :] if frame.function != "<module>" and ownership.is_users(frame.file)]
    if callers:
        yield "called from " + listing([joined(f"{words.function(frame.function)} ({words.place(frame, source)})") for frame in callers], 2)


def _element(origin: Event, told: str, width: int) -> Iterator[str]:
    """The bad element, and each operand with its value there; on one line where it fits."""
    if origin.primitive == "<input>":
        yield _input(origin)
        return
    value = words.by_value(origin)
    known = origin.operands[:_OPERANDS]
    # Nameless scalars are left out where `value` writes the values out already.
    operands = [
        words.operand(operand, number, origin.index, known[number - 2] if number > 1 else None)
        for number, operand in enumerate(known, 1)
        if operand.name or operand.shape or not value
    ]
    lead = _lead(origin, value, told)
    left = len(origin.operands) - len(known)
    more = [f"and {words.amount(left, 'operand')} more"] if left else []
    whole = f"{lead}: {', '.join([*operands, *more])}"
    if operands and len(whole) <= width:
        yield whole
    elif lead != origin.value:
        yield from [lead, *operands, *more]


def _lead(origin: Event, value: str, told: str) -> str:
    """`0.0 / 0.0 at [17, 4], the first of 31 in f32[40,10]`."""
    element = f" at {words.index(origin.index)}" if origin.index else ""
    reason = f", {origin.reason}" if told and origin.reason and origin.reason not in told else ""
    first = f", the first of {origin.count:,} in {words.array_type(origin.shape, origin.dtype)}" if origin.count > 1 else ""
    return f"{value or origin.value}{element}{reason}{first}"


def _input(origin: Event) -> str:
    """`nan in 3 of 400 elements, the first at [2, 7] of f32[40,10] (min 0, max 1, 3 nan)`."""
    many = f" in {_elements(origin)}" if origin.count and origin.size > 1 else ""
    kind = words.array_type(origin.shape, origin.dtype)
    first = f", the first at {words.index(origin.index)}{f' of {kind}' if kind else ''}" if origin.index else ""
    about = words.summary(origin.operands[0]) if origin.operands else ""
    return f"{origin.value}{many}{first}" + (f" ({about})" if about else "")


def _elements(event: Event) -> str:
    return joined(f"{event.count:,} of {event.size:,} elements" if event.size else words.amount(event.count, "element"))


def _cause(event: Event, origin: Event) -> str:
    """What made an operand deadly: `jnp.exp(z)` (line 35, scan iteration 2, at [3]), underflows to 0 in float32: exp(-104.2)."""
    where = [words.spot(event.source, origin.source)] if event.source else []
    if event.primitive == "<input>":
        detail = words.kind_and_range(event.operands[0]) if event.operands else ""
        what = words.given(event)
    else:
        operands = [words.operand(operand, number, event.index) for number, operand in enumerate(event.operands[:2], 1)]
        detail = words.by_value(event) or ", ".join(operands)
        what = words.operation(event)
        # The iterations of the origin are told already.
        rounds = words.iterations(event, origin.source)
        where += [rounds] if rounds and rounds != words.iterations(origin, origin.source) else []
        where += [f"at {words.index(event.index)}"] if event.index else []
    place = f" ({', '.join(where)})" if where else ""
    reason = f", {event.reason}" if event.reason else ""
    return f"{what}{place}{reason}" + (f": {detail}" if detail else "")


def _symptom(report: Report) -> Iterator[str]:
    if not report.symptoms:
        return
    last = report.chain[-1] if report.chain else report.origin
    how_many = f" ({_elements(last)})" if last.count and last.size > 1 else ""
    seen, *others = [joined(words.output(path)) for path in report.symptoms]
    also = f", and in {listing(others, 2)}" if others else ""
    yield f"seen first as {last.value} in {seen}{how_many}{also}"
    way = route(report.chain)
    if ARROW in way:
        yield f"on the way: {way}{ARROW}{seen}"


def _caveats(report: Report) -> Iterator[str]:
    if report.benign:
        near = report.origin.source
        spots = _unique(joined(f"`{event.primitive}` ({words.spot(event.source, near)})") for event in report.benign)
        others = words.amount(len(report.benign), "other non-finite value")
        yield f"not at fault: {others} that no output descends from: {listing(spots, 2)}"
    if report.unseen:
        yield f"not looked inside: {listing(_unique(map(joined, report.unseen)), 3)}; checked at the outputs"
    if report.compiled_only:
        yield "note: op by op the values stay finite; the compiled program is at fault"
    if not report.reproduced and report.origin.primitive != "<unknown>":
        yield "note: a replay did not reproduce what the compiled step returned; this is the likeliest place"
    for note in report.notes:
        yield f"note: {note}"


def _elsewhere(report: Report) -> Iterator[str]:
    """`2 more places take `sqrt` of what can be 0: lines 88, 131; line 131 breaks now too`."""
    if not report.elsewhere:
        return
    near, count = report.origin.source, len(report.elsewhere)
    now = [one.source for one in report.elsewhere if one.at_edge]
    first, _, rest = report.elsewhere[0].what.partition(" ")
    verb = first if count > 1 else {"are": "is"}.get(first, f"{first}s")
    spots = words.spots([one.source for one in report.elsewhere], near)
    broke = f"{words.spots(now, near)} {'breaks' if len(now) == 1 else 'break'} now too" if now else "none breaks now"
    yield f"{words.amount(count, 'more place')} {verb} {rest}: {spots}; {broke if count > 1 or now else 'it does not break now'}"


def _unique(parts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(parts))


def _help(fix: Fix, gutter: int, width: int) -> list[Line]:
    pad = Span(" " * (gutter + 1))
    lines = hang((Span("help: ", "help"),), f"{fix.why} [{fix.code}]", width, after=(Span(" " * 6),))
    lines += [(pad, Span(f"- {printable(row)}", "before")) for row in fix.before.splitlines()]
    lines += [(pad, Span(f"+ {printable(row)}", "after")) for row in fix.after.splitlines()]
    said = f"{'proven' if fix.proven else 'not proven'}: {fix.proof or 'it was not tried on this step'}"
    lines += hang((Span(" " * gutter + " = ", "gutter"),), said, width)
    return lines
