"""The findings on one kernel: its scale, what is not random in it, the underflow of its dtype."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from nandetect import wording
from nandetect.audit.kernels import InitialKernel, scaled
from nandetect.audit.mistakes import Mistake
from nandetect.audit.scale import ScaleVerdict
from nandetect.audit.schemes import Fans, Scheme
from nandetect.findings import finding
from nandetect.records import Finding

# The share of weights below the smallest normal number of a 16-bit dtype that is called underflow.
_SUNK = 0.1
# Defaults of libraries, by the distribution and the name of the kernel: harmless in a shallow net, and not the person's own choice.
_DEFAULTS = {"LeCun": ("truncated", "kernel"), "haiku's default": ("truncated", "w"), "torch's default": ("uniform", "weight")}
_RECTIFIERS = {"relu": "ReLU", "leaky_relu": "leaky ReLU"}


def of_pattern(kernel: InitialKernel, kernels: Sequence[InitialKernel]) -> Iterator[Finding]:
    """What is not random in a kernel and should be; NaN and inf in it."""
    path, regular = kernel.parameter.path, kernel.pattern
    named = f"`{path}` {list(kernel.parameter.shape)}"
    if not kernel.statistics.finite:
        yield finding("non-finite", "error", f"{named} has weights that are not finite", cause="non-finite at the start", layer=path)
    elif regular.constant is not None:
        yield from _constant(kernel, kernels, named)
    elif regular.repeated and not regular.sparse:
        kind, across = ("columns", "outputs") if regular.axis == "output" else ("rows", "inputs")
        if kernel.parameter.stores_outputs_first:
            kind = "rows" if kind == "columns" else "columns"
        yield finding(
            "init-symmetry",
            "warning",
            f"{regular.repeated:,} of the {regular.units:,} {kind} of {named} repeat another one: those {across} start out alike",
            cause=f"duplicated {kind}",
            layer=path,
            measured=regular.repeated,
            expected=0,
            help="draw every weight by itself: `jax.random.normal(key, shape)` with the whole shape, and a new key for each array",
        )


def _constant(kernel: InitialKernel, kernels: Sequence[InitialKernel], named: str) -> Iterator[Finding]:
    """The finding on a kernel of which all weights are one value; none where zeros are right."""
    path, value = kernel.parameter.path, kernel.pattern.constant
    all_zero = all(other.is_zero for other in kernels)
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


def of_scale(kernel: InitialKernel, verdict: ScaleVerdict | None) -> Iterator[Finding]:
    """A scale that no scheme has, or one that is for another nonlinearity; weights not centred on 0; the underflow of a 16-bit dtype."""
    statistics = kernel.statistics
    if kernel.pattern.constant is not None or (kernel.pattern.sparse and statistics.tiny <= statistics.zeros) or not statistics.finite:
        return
    if kernel.parameter.dtype in ("float16", "bfloat16") and statistics.tiny > _SUNK:
        yield _sunk(kernel, verdict)
    elif not statistics.is_centred and abs(statistics.mean) > 0.5 * statistics.deviation:
        yield _one_sided(kernel)
    elif verdict is not None and (verdict.is_off or verdict.causes):
        yield _off(kernel, verdict)


def _off(kernel: InitialKernel, verdict: ScaleVerdict) -> Finding:
    """The finding on a scale that is not the one that the kernel should have."""
    std, wanted = scaled(kernel).deviation, verdict.wanted
    before = _RECTIFIERS.get(kernel.around.follows)
    where = f"`{kernel.parameter.path}` {list(kernel.parameter.shape)}{f' before {before}' if before else ''}"
    wants = f"{verdict.wants.name} wants {with_numbers(verdict.wants.formula, verdict.fans)} = {wording.decimal(wanted)}"
    ratio = wanted / std
    times = f"{wording.times_off(ratio)} too small" if ratio >= 1 else f"{wording.times_off(1 / ratio)} too large"
    default = _default(kernel, verdict)
    # A library's own scale has one cause; Glorot's may also come of another mistake.
    causes = verdict.causes[:1] if default is not None and default.name != "Glorot" else verdict.causes
    return finding(
        "init-scale",
        "note" if default else "warning",
        f"{where}: {_measured(std, verdict)} where {wants}, {times}; {_origin(verdict, default)}",
        cause=" or ".join(mistake.cause for mistake in causes) or "a scale that no scheme has",
        layer=kernel.parameter.path,
        measured=std,
        expected=wanted,
        help=_help(verdict),
    )


def _measured(std: float, verdict: ScaleVerdict) -> str:
    """The standard deviation, as the formula of the likeliest mistake where there is one."""
    return f"std is `{verdict.causes[0].formula}`: {wording.decimal(std)}" if verdict.causes else f"std is {wording.decimal(std)}"


def _origin(verdict: ScaleVerdict, default: Scheme | None) -> str:
    """Where a scale comes from: a library's default, or code that was probably written in place of other code."""
    if default is not None:
        return default.source
    if verdict.causes:
        return f"you probably wrote {_wrote(verdict.causes[0], verdict.wants.name)}"
    return "no mistake that is known here gives it"


def _wrote(mistake: Mistake, wanted: str) -> str:
    """The formula of a mistake beside the one that was meant."""
    meant = {"He": "sqrt(2/m)", "LeCun": "sqrt(1/m)", "Glorot": "sqrt(2/(m+n))"}[wanted if mistake.has_no_fans else mistake.wants]
    return f"no scale where `{meant}` was meant" if mistake.formula == "1" else f"`{mistake.formula.replace(' ', '')}` for `{meant}`"


def with_numbers(formula: str, fans: Fans) -> str:
    """`sqrt(2/784)` for `sqrt(2 / m)`."""
    numbers = re.sub(r"\bm\b", str(fans.fan_in), formula.replace(" / ", "/"))
    return re.sub(r"\bn\b", str(fans.fan_out), numbers)


def _help(verdict: ScaleVerdict) -> str:
    fans = verdict.fans
    advice = f"draw with std = {verdict.wants.formula} of its m = {fans.fan_in:,} inputs and n = {fans.fan_out:,} outputs"
    if verdict.causes:
        advice = f"write `{verdict.causes[0].meant}`, m = {fans.fan_in:,}" + (
            f" and n = {fans.fan_out:,}" if "n" in re.findall(r"\bn\b", verdict.causes[0].formula) else ""
        )
    return f"{advice}; the shape was {fans.why}: give apply and inputs to have it read off the program" if fans.why else advice


def _default(kernel: InitialKernel, verdict: ScaleVerdict) -> Scheme | None:
    """The scheme that a kernel has, where that is what a library draws by itself, or Glorot's, which is all but right; else None."""
    scheme = verdict.fits
    if scheme is None or scheme.name == "Glorot":
        return scheme
    form, name = _DEFAULTS.get(scheme.name, ("", ""))
    return scheme if form in kernel.statistics.forms and kernel.parameter.name == name else None


def _sunk(kernel: InitialKernel, verdict: ScaleVerdict | None) -> Finding:
    """The finding on weights of a 16-bit dtype that are below its smallest normal number."""
    path, statistics, dtype = kernel.parameter.path, kernel.statistics, kernel.parameter.dtype
    small = " or ".join(mistake.cause for mistake in verdict.causes) if verdict and verdict.is_off else ""
    return finding(
        "init-scale",
        "warning",
        f"{statistics.tiny:.0%} of the weights of `{path}` {list(kernel.parameter.shape)} are 0 or below the smallest normal number of "
        f"{dtype}: their std is {wording.decimal(statistics.deviation)}",
        cause=f"{dtype} underflow" + (f": {small}" if small else ""),
        layer=path,
        measured=statistics.tiny,
        expected=0.0,
        help=f"compute the scale and draw the weights in float32 and cast them afterwards; {dtype} has nothing below 6e-8"
        if dtype == "float16"
        else "compute the scale and draw the weights in float32 and cast them afterwards",
    )


def _one_sided(kernel: InitialKernel) -> Finding:
    """The finding on weights that are not centred on 0."""
    path, statistics = kernel.parameter.path, kernel.statistics
    return finding(
        "init-scale",
        "warning",
        f"the weights of `{path}` {list(kernel.parameter.shape)} have the mean {statistics.mean:.3g} with a root mean square of "
        f"{wording.decimal(statistics.deviation)}: they are not centred on 0",
        cause="not centred: `jax.random.uniform` draws from 0 to 1" if statistics.mean > 0 else "not centred",
        layer=path,
        measured=statistics.mean,
        expected=0.0,
        help="draw around 0: `jax.random.uniform(key, shape, minval=-a, maxval=a)` with a = sqrt(6 / fan_in), or `jax.random.normal`",
    )


def folded(findings: Sequence[Finding]) -> list[Finding]:
    """The findings with the notes on scales of one cause made one, for the first layer that has it; each warning stays for itself."""
    layers: Counter[str] = Counter()
    kept: list[Finding] = []
    for each in findings:
        if _is_scale_note(each):
            layers[each.cause] += 1
            if layers[each.cause] > 1:
                continue
        kept.append(each)
    return [_with_others(each, layers[each.cause] - 1) if _is_scale_note(each) else each for each in kept]


def _is_scale_note(found: Finding) -> bool:
    return found.severity == "note" and found.rule == "init-scale"


def _with_others(note: Finding, others: int) -> Finding:
    if others < 1:
        return note
    return dataclasses.replace(note, message=f"{note.message}; {others} more layer{'' if others == 1 else 's'} the same")


def with_inputs_first(found: Finding) -> Finding:
    """The finding with advice on the inputs first, where weights are too small: they make up for inputs that are too large."""
    if found.rule != "init-scale" or not found.help or not (found.measured or 0) < (found.expected or 0):
        return found
    return dataclasses.replace(found, help=f"scale the inputs first, since small weights make up for their size; then {found.help}")
