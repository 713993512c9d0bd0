"""The findings on one batch: inputs that were never scaled, the loss against chance, units that start dead or saturated, and how signal and
gradient travel through the layers."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from nandetect.audit.kernels import chains
from nandetect.audit.reading import Key, Reading
from nandetect.audit.signal import Signal
from nandetect.findings import finding
from nandetect.records import Finding

# Mean squares of inputs that are taken for scaled: inputs in 0..1 have 0.1 to 0.5, standardised ones 1, and those of a heavy tail a few.
_SCALED = (1e-4, 25.0)
# Ratios of the loss to chance (ln C) that are noted and warned of. Kernels drawn by He's formula begin at up to 2 on standardised inputs.
_LOSS_NOTED, _LOSS_WARNED = 1.5, 3.0
# Shares of units that are told where each was judged on _SAMPLES values. DeepDiagnosis and SageMaker Debugger take half for both, but half
# of the 64 units of a thirtieth layer are dead by chance with He's weights.
_SATURATED, _DEAD = 0.5, 0.7
_SAMPLES = 256
# The share that is told on fewer values, and the fewest.
_NEARLY_ALL, _FEWEST_SAMPLES = 0.9, 32
# Factors of the second moment from one end of a chain of layers to the other that are noted and warned of, the gain of a healthy layer, and
# the fewest layers that are a chain. The defaults of flax lose a factor of 2 in each layer before a ReLU, those of torch and equinox 6, and
# nets of some depth train well with either.
_NOTED, _WARNED = 10.0, 1e5
_GAIN = (0.8, 1.25)
_DEPTH = 3
# Rules that explain what is found on the batch.
_SCALE_RULES = ("init-scale", "init-symmetry")


def of_inputs(reading: Reading, signals: Mapping[Key, Signal], paths: Sequence[str]) -> Iterator[Finding]:
    """Inputs that reach the first kernel far from a mean square of 1."""
    for key, site in reading.sites.items():
        mean = signals[key].inputs if key in signals else math.nan
        if site.upstream or site.leaf in reading.looked_up or not mean > 0 or _SCALED[0] <= mean <= _SCALED[1]:
            continue
        size = math.sqrt(mean)
        yield finding(
            "inputs-unscaled",
            "warning",
            f"the inputs that reach `{paths[site.leaf]}` have a root mean square of {size:.3g}, where initial weights are made for about 1",
            cause="inputs that were never scaled",
            layer=paths[site.leaf],
            measured=size,
            expected=1.0,
            help="standardise the inputs (subtract the mean of the training set, divide by its deviation), or bring them to 0..1",
        )
        return


def of_loss(loss: float, classes: int, batch: int, before: Sequence[Finding]) -> Iterator[Finding]:
    """The loss at the start beside that of guessing, ln C."""
    chance = math.log(classes)
    because = next((found.cause for found in before if found.severity != "note"), "")
    message = f"the loss is {loss:.3g} before the first step, where guessing among {classes} classes costs ln {classes} = {chance:.3g}"
    if not math.isfinite(loss):
        yield finding("loss-at-start", "error", message, cause=because or "a loss that overflows", measured=loss, expected=chance)
        return
    ratio = loss / chance
    if 1 / _LOSS_NOTED < ratio < _LOSS_NOTED:
        return
    averaging = "" if because else _averaging(ratio, classes, batch)
    otherwise = "logits too large to begin with" if ratio > 1 else "labels that the inputs give away, or another loss than cross-entropy"
    yield finding(
        "loss-at-start",
        "note" if averaging or 1 / _LOSS_WARNED < ratio < _LOSS_WARNED else "warning",
        message,
        cause=because or averaging or otherwise,
        measured=loss,
        expected=chance,
        help="a fresh classifier should know nothing: see what makes its logits large" if ratio > 1 else "see what the loss averages over",
    )


def _averaging(ratio: float, classes: int, batch: int) -> str:
    """The average that explains a loss of `ratio` times chance: one not taken over the batch, or taken over the classes too; else empty."""
    if ratio > 1 and batch > 1 and abs(math.log(ratio / batch)) < 0.3:
        return "a loss summed over the batch, not averaged"
    if ratio < 1 and abs(math.log(ratio * classes)) < 0.1:
        return "a loss divided by the number of classes as well"
    return ""


def of_units(reading: Reading, signals: Mapping[Key, Signal], paths: Sequence[str], before: Sequence[Finding]) -> Iterator[Finding]:
    """Layers of which most units are dead or saturated on the whole batch: the first ones, not those behind them, which get no signal."""
    causes = {found.layer: found for found in before if found.rule in _SCALE_RULES}
    symmetric = {path for path, cause in causes.items() if cause.rule == "init-symmetry"}
    starved: set[Key] = {key for key, site in reading.sites.items() if paths[site.leaf] in symmetric}
    for key, signal in signals.items():
        site = reading.sites[key]
        dead = any(event == "relu" for _, event in site.acts.values())
        if not _are_idle(signal, _DEAD if dead else _SATURATED) or starved & {key, *site.upstream}:
            continue
        path = paths[site.leaf]
        if dead:
            starved.add(key)
        yield _idle(path, signal, dead, reading.follows(site), causes[path].cause if path in causes else "")


def _are_idle(signal: Signal, most: float) -> bool:
    """Whether the share of idle units is above `most`, on enough values."""
    if signal.seen >= _SAMPLES and signal.idle > most:
        return True
    return signal.seen >= _FEWEST_SAMPLES and signal.idle > _NEARLY_ALL


def _idle(path: str, signal: Signal, dead: bool, follows: str, cause: str) -> Finding:
    """The finding on a layer of dead or saturated units."""
    if dead:
        return finding(
            "dead-units",
            "warning",
            f"{signal.idle:.0%} of the units behind `{path}` are 0 for each of {signal.seen:,} values",
            cause=cause or "biases, or a mean of the inputs, that keep the products below 0",
            layer=path,
            measured=signal.idle,
            expected=0.0,
            help="start the biases at 0 and centre the inputs: a unit that is 0 for every sample has no gradient",
        )
    return finding(
        "saturated-units",
        "warning",
        f"{signal.idle:.0%} of the values behind `{path}` lie where `{follows}` is flat",
        cause=cause or "products far too large for the nonlinearity",
        layer=path,
        measured=signal.idle,
        expected=0.0,
        help="bring the inputs and the weights before it to their scale",
    )


def of_travel(reading: Reading, signals: Mapping[Key, Signal], paths: Sequence[str], before: Sequence[Finding]) -> Iterator[Finding]:
    """A gradient, else a signal, that grows or shrinks through a chain of layers; through the layers alone, not what adds to them."""
    causes = {found.layer: found.cause for found in before if found.rule in (*_SCALE_RULES, "inputs-unscaled")}
    for chain in chains(reading):
        keys = [key for key in chain if key in signals]
        if len(keys) < _DEPTH:
            continue
        names = [paths[reading.sites[key].leaf] for key in keys]
        cause = next((causes[name] for name in names if name in causes), "")
        # Gradients travel from the last layer down.
        gradient = _travelled([signals[key].backward for key in reversed(keys)], names[::-1], cause, "gradient")
        found = gradient or _travelled([signals[key].forward for key in keys], names, cause, "signal")
        if found is not None:
            yield found


def _travelled(moments: Sequence[float], names: Sequence[str], cause: str, what: Literal["gradient", "signal"]) -> Finding | None:
    """The finding on the moments of a chain of layers, in the order in which they are passed; None where they keep their size."""
    if what == "gradient" and any(map(math.isnan, moments)):
        return None
    if not all(map(math.isfinite, moments)):
        layer = next(name for name, moment in zip(names, moments, strict=True) if not math.isfinite(moment))
        message = f"the {what} is not finite any more at `{layer}`, before the first step"
        return finding("signal-drift", "error", message, cause=cause or "a signal that overflows", layer=layer)
    if min(moments) <= 0:
        return None
    drift = moments[-1] / moments[0]
    gain = statistics.median(later / earlier for earlier, later in itertools.pairwise(moments))
    size = max(drift, 1 / drift)
    if size < _NOTED or _GAIN[0] <= gain <= _GAIN[1]:
        return None
    grows = drift > 1
    rule = "signal-drift" if what == "signal" else "exploding-gradient" if grows else "vanishing-gradient"
    times, changes = math.sqrt(size), "grows" if grows else "shrinks"
    return finding(
        rule,
        "warning" if size >= _WARNED else "note",
        f"before the first step the {what} {changes} by a factor of {times:,.3g} from `{names[0]}` to `{names[-1]}`, "
        f"{math.sqrt(gain):.2f} times in each of {len(moments) - 1} layers",
        cause=cause or f"a {what} that {changes} in every layer",
        layer=names[-1],
        measured=math.sqrt(drift),
        expected=1.0,
        help="give every kernel the scale that its nonlinearity wants (He for ReLU), or put normalisation or residual connections in",
    )
