"""What is said of a kernel: its scale, its pattern, its dtype's floor, as findings."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from nandetect.audit.kernels import Kernel, scaled
from nandetect.audit.mistakes import Mistake
from nandetect.audit.scale import Verdict
from nandetect.audit.schemes import Fans
from nandetect.findings import finding
from nandetect.records import Finding

# The share of weights below the smallest normal number of a 16-bit dtype from which they are said to have sunk there.
SUNK = 0.1
# How a library draws where nobody says otherwise: harmless in a shallow net, and not the person's own choice.
_DEFAULTS = {"LeCun": ("truncated", "kernel"), "haiku's default": ("truncated", "w"), "torch's default": ("uniform", "weight")}
_RECTIFIERS = {"relu": "ReLU", "leaky_relu": "leaky ReLU"}


def of_pattern(kernel: Kernel, kernels: Sequence[Kernel]) -> Iterator[Finding]:
    """What is not random in a kernel and should be; NaN and inf in it."""
    path, seen = kernel.parameter.path, kernel.pattern
    named = f"`{path}` {list(kernel.parameter.shape)}"
    if not kernel.spread.finite:
        yield finding("non-finite", "error", f"{named} has weights that are not finite", cause="non-finite at the start", layer=path)
    elif seen.constant is not None:
        yield from _constant(kernel, kernels, named)
    elif seen.repeated and not seen.sparse:
        kind, across = ("columns", "outputs") if seen.axis == "output" else ("rows", "inputs")
        if kernel.parameter.stores_outputs_first:
            kind = "rows" if kind == "columns" else "columns"
        yield finding(
            "init-symmetry",
            "warning",
            f"{seen.repeated:,} of the {seen.units:,} {kind} of {named} repeat another one: those {across} start out alike",
            cause=f"duplicated {kind}",
            layer=path,
            measured=seen.repeated,
            expected=0,
            help="draw every weight by itself: `jax.random.normal(key, shape)` with the whole shape, and a new key for each array",
        )


def _constant(kernel: Kernel, kernels: Sequence[Kernel], named: str) -> Iterator[Finding]:
    path, value = kernel.parameter.path, kernel.pattern.constant
    all_zero = all(one.is_zero for one in kernels)
    if value == 0 and kernel.may_be_zero and not (all_zero and len(kernels) > 1):
        return
    half = kernel.parameter.dtype in ("float16", "bfloat16")
    cause = "zeros" if value == 0 else "equal weights"
    if value == 0 and half:
        cause = f"zeros, drawn as such or by {kernel.parameter.dtype} underflow"
    stuck = " and so are all the others: no gradient can pass" if value == 0 and all_zero and len(kernels) > 1 else ""
    alone = "; harmless only in a last layer" if value == 0 and not kernel.sites and not stuck else ""
    yield finding(
        "init-symmetry",
        "error" if stuck else "warning",
        f"all {kernel.parameter.size:,} weights of {named} are {value:g}{stuck or ': its units start out alike and stay so'}{alone}",
        cause=cause,
        layer=path,
        measured=value,
        help="draw the weights at random; zeros belong into biases, last layers and the ends of residual branches",
    )


def of_scale(kernel: Kernel, verdict: Verdict | None) -> Iterator[Finding]:
    """A scale that no scheme has, or one that is another nonlinearity's; weights of one sign; a 16-bit dtype's underflow."""
    seen, path = kernel.spread, kernel.parameter.path
    if kernel.pattern.constant is not None or (kernel.pattern.sparse and seen.tiny <= seen.zeros) or not seen.finite:
        return
    if kernel.parameter.dtype in ("float16", "bfloat16") and seen.tiny > SUNK:
        yield _sunk(kernel, verdict)
    elif not seen.is_centred and abs(seen.mean) > 0.5 * seen.deviation:
        yield _one_sided(kernel)
    elif verdict is not None and (verdict.is_off or verdict.causes):
        yield _off(kernel, verdict, path)


def _off(kernel: Kernel, verdict: Verdict, path: str) -> Finding:
    seen, fans = scaled(kernel), verdict.fans
    std, wanted = seen.deviation, verdict.wanted
    ratio = wanted / std
    times = f"{_times(ratio)} too small" if ratio >= 1 else f"{_times(1 / ratio)} too large"
    wants = f"{verdict.wants.name} wants {with_numbers(verdict.wants.formula, fans)} = {_short(wanted)}"
    # What was written for what, where one mistake explains it.
    first = verdict.causes[0] if verdict.causes else None
    before = _RECTIFIERS.get(kernel.around.follows)
    where = f"`{path}` {list(kernel.parameter.shape)}{f' before {before}' if before else ''}"
    what = f"std is `{first.formula}`: {_short(std)}" if first else f"std is {_short(std)}"
    default = _is_default(kernel, verdict)
    wrote = f"; you probably wrote {_wrote(first, verdict.wants.name)}" if first else "; no mistake that is known here gives it"
    if default and verdict.fits:
        wrote = f"; {verdict.fits.source}"
    # What a library draws by itself has one name; Glorot's scale may also be another's by mistake.
    is_one = default and verdict.fits is not None and verdict.fits.name != "Glorot"
    causes = " or ".join(mistake.cause for mistake in verdict.causes[: 1 if is_one else None])
    return finding(
        "init-scale",
        "note" if default else "warning",
        f"{where}: {what} where {wants}, {times}{wrote}",
        cause=causes or "a scale that no scheme has",
        layer=path,
        measured=std,
        expected=wanted,
        help=_help(verdict, fans),
    )


def _times(ratio: float) -> str:
    return f"{ratio:.1f} times" if ratio < 100 else f"{ratio:,.0f} times"


def _short(x: float) -> str:
    return f"{x:.4f}" if 0.001 <= x < 1 else f"{x:.3g}"


def _wrote(mistake: Mistake, wanted: str) -> str:
    meant = {"He": "sqrt(2/m)", "LeCun": "sqrt(1/m)", "Glorot": "sqrt(2/(m+n))"}[wanted if mistake.has_no_fans else mistake.wants]
    return f"no scale where `{meant}` was meant" if mistake.formula == "1" else f"`{mistake.formula.replace(' ', '')}` for `{meant}`"


def with_numbers(formula: str, fans: Fans) -> str:
    """`sqrt(2/784)` for `sqrt(2 / m)`."""
    numbers = re.sub(r"\bm\b", str(fans.fan_in), formula.replace(" / ", "/"))
    return re.sub(r"\bn\b", str(fans.fan_out), numbers)


def _help(verdict: Verdict, fans: Fans) -> str:
    advice = f"draw with std = {verdict.wants.formula} of its m = {fans.fan_in:,} inputs and n = {fans.fan_out:,} outputs"
    if verdict.causes:
        advice = f"write `{verdict.causes[0].meant}`, m = {fans.fan_in:,}" + (
            f" and n = {fans.fan_out:,}" if "n" in re.findall(r"\bn\b", verdict.causes[0].formula) else ""
        )
    return f"{advice}; the shape was {fans.why}: give apply and inputs to have it read off the program" if fans.why else advice


def _is_default(kernel: Kernel, verdict: Verdict) -> bool:
    """Whether a tolerated scale is what a library draws by itself, or is all but right."""
    if verdict.fits is None:
        return False
    if verdict.fits.name == "Glorot":
        return True
    form, name = _DEFAULTS.get(verdict.fits.name, ("", ""))
    return form in kernel.spread.forms and kernel.parameter.name == name


def _sunk(kernel: Kernel, verdict: Verdict | None) -> Finding:
    path, seen, dtype = kernel.parameter.path, kernel.spread, kernel.parameter.dtype
    small = " or ".join(mistake.cause for mistake in verdict.causes) if verdict and verdict.is_off else ""
    return finding(
        "init-scale",
        "warning",
        f"{seen.tiny:.0%} of the weights of `{path}` {list(kernel.parameter.shape)} are 0 or below the smallest normal number of {dtype}: "
        f"their std is {_short(seen.deviation)}",
        cause=f"{dtype} underflow" + (f": {small}" if small else ""),
        layer=path,
        measured=seen.tiny,
        expected=0.0,
        help=f"compute the scale and draw the weights in float32 and cast them afterwards; {dtype} has nothing below 6e-8"
        if dtype == "float16"
        else "compute the scale and draw the weights in float32 and cast them afterwards",
    )


def _one_sided(kernel: Kernel) -> Finding:
    path, seen = kernel.parameter.path, kernel.spread
    return finding(
        "init-scale",
        "warning",
        f"the weights of `{path}` {list(kernel.parameter.shape)} have the mean {seen.mean:.3g} with a root mean square of "
        f"{_short(seen.deviation)}: they are not centred on 0",
        cause="not centred: `jax.random.uniform` draws from 0 to 1" if seen.mean > 0 else "not centred",
        layer=path,
        measured=seen.mean,
        expected=0.0,
        help="draw around 0: `jax.random.uniform(key, shape, minval=-a, maxval=a)` with a = sqrt(6 / fan_in), or `jax.random.normal`",
    )


def folded(findings: Sequence[Finding]) -> list[Finding]:
    """Notes of one cause as one, for the first layer that has it; what is a warning stands for itself."""
    kept: list[Finding] = []
    more: Counter[str] = Counter()
    for one in findings:
        if one.severity == "note" and one.rule == "init-scale":
            more[one.cause] += 1
            if more[one.cause] > 1:
                continue
        kept.append(one)
    return [_with_others(one, more[one.cause] - 1) for one in kept]


def _with_others(one: Finding, others: int) -> Finding:
    if one.severity != "note" or one.rule != "init-scale" or others < 1:
        return one
    return dataclasses.replace(one, message=f"{one.message}; {others} more layer{'' if others == 1 else 's'} the same")


def with_inputs_first(one: Finding) -> Finding:
    """Weights that are too small make up for inputs that are too large: to mend only them would make it worse."""
    if one.rule != "init-scale" or not one.help or not (one.measured or 0) < (one.expected or 0):
        return one
    return dataclasses.replace(one, help=f"scale the inputs first, since small weights make up for their size; then {one.help}")
