"""What one batch shows: inputs that were never scaled, the loss against chance, units that start dead or saturated, and how signal and
gradient travel through the layers."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence

from nandetect.audit.kernels import chain
from nandetect.audit.reading import Key, Reading
from nandetect.audit.signal import Signal
from nandetect.findings import finding
from nandetect.records import Finding

# Mean squares of inputs between these are taken for scaled: 0..1 gives some 0.1 to 0.5, standardised ones 1, and a heavy tail a few.
_SCALED = (1e-4, 25.0)
# Over chance (ln C), DETECTORS 5.2: He's weights on standardised inputs begin at up to 2 times that.
_LOSS_NOTED, _LOSS_WARNED = 1.5, 3.0
# The share of saturated and of dead units that is told, on so many values of each at least. DETECTORS 5.7 has a half for both; the
# thirtieth layer of 64 units from He's weights has that many dead ones by chance.
_SATURATED, _DEAD, _NEARLY_ALL = 0.5, 0.7, 0.9
_SAMPLES, _FEWEST_SAMPLES = 256, 32
# Factors from one end of a chain of layers to the other (of second moments) that are noted and warned of, and the gain of a healthy layer.
# The defaults of flax lose a factor of 2 in each layer before a ReLU, those of torch and equinox 6, and train well up to some depth.
_NOTED, _WARNED = 10.0, 1e5
_GAIN = (0.8, 1.25)


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
    because = next((one.cause for one in before if one.severity != "note"), "")
    message = f"the loss is {loss:.3g} before the first step, where guessing among {classes} classes costs ln {classes} = {chance:.3g}"
    if not math.isfinite(loss):
        yield finding("loss-at-start", "error", message, cause=because or "a loss that overflows", measured=loss, expected=chance)
        return
    ratio = loss / chance
    if 1 / _LOSS_NOTED < ratio < _LOSS_NOTED:
        return
    severity, cause = "warning", because
    if ratio > 1 and batch > 1 and not because and abs(math.log(ratio / batch)) < 0.3:
        severity, cause = "note", "a loss summed over the batch, not averaged"
    elif ratio < 1 and not because and abs(math.log(ratio * classes)) < 0.1:
        severity, cause = "note", "a loss divided by the number of classes as well"
    elif 1 / _LOSS_WARNED < ratio < _LOSS_WARNED:
        severity = "note"
    cause = cause or (
        "logits too large to begin with" if ratio > 1 else "labels that the inputs give away, or another loss than cross-entropy"
    )
    yield finding(
        "loss-at-start",
        severity,
        message,
        cause=cause,
        measured=loss,
        expected=chance,
        help="a fresh classifier should know nothing: see what makes its logits large" if ratio > 1 else "see what the loss averages over",
    )


def of_units(reading: Reading, signals: Mapping[Key, Signal], paths: Sequence[str], before: Sequence[Finding]) -> Iterator[Finding]:
    """Layers of which most units are dead or saturated on the whole batch: the first ones, not those that they starve."""
    causes = {one.layer: one for one in before if one.rule in ("init-scale", "init-symmetry")}
    starved: set[Key] = {
        key for key, site in reading.sites.items() if paths[site.leaf] in causes and _is_symmetry(causes[paths[site.leaf]])
    }
    for key, signal in signals.items():
        site = reading.sites[key]
        dead = any(event == "relu" for _, event in site.acts.values())
        most = signal.idle > (_DEAD if dead else _SATURATED) and signal.seen >= _SAMPLES
        nearly_all = signal.idle > _NEARLY_ALL and signal.seen >= _FEWEST_SAMPLES
        if not (most or nearly_all) or starved & {key, *site.upstream}:
            continue
        path = paths[site.leaf]
        if dead:
            starved.add(key)
        yield _idle(path, signal, dead, reading.follows(site), causes[path].cause if path in causes else "")


def _is_symmetry(one: Finding) -> bool:
    return one.rule == "init-symmetry"


def _idle(path: str, signal: Signal, dead: bool, follows: str, cause: str) -> Finding:
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


def of_travel(
    reading: Reading, signals: Mapping[Key, Signal], paths: Sequence[str], before: Sequence[Finding], depth: int = 3
) -> Iterator[Finding]:
    """A signal or a gradient that grows or shrinks through a chain of at least `depth` layers; the layers alone, not what adds to them."""
    for run in chain(reading):
        run = [key for key in run if key in signals]
        if len(run) < depth:
            continue
        names = [paths[reading.sites[key].leaf] for key in run]
        causes = {one.layer: one.cause for one in before if one.rule in ("init-scale", "init-symmetry", "inputs-unscaled")}
        cause = next((causes[name] for name in names if name in causes), "")
        backward = [signals[key].backward for key in reversed(run)]
        forward = [signals[key].forward for key in run]
        # From the last layer down, and from the first one up.
        told = list(_travelled(backward, names[::-1], cause, "gradient")) or list(_travelled(forward, names, cause, "signal"))
        yield from told


def _travelled(moments: Sequence[float], names: Sequence[str], cause: str, what: str) -> Iterator[Finding]:
    if any(math.isnan(moment) for moment in moments) and what == "gradient":
        return
    if not all(math.isfinite(moment) for moment in moments):
        at = names[next(at for at, moment in enumerate(moments) if not math.isfinite(moment))]
        message = f"the {what} is not finite any more at `{at}`, before the first step"
        yield finding("signal-drift", "error", message, cause=cause or "a signal that overflows", layer=at)
        return
    if min(moments) <= 0:
        return
    drift = moments[-1] / moments[0]
    gain = statistics.median(later / earlier for earlier, later in itertools.pairwise(moments))
    size = max(drift, 1 / drift)
    if size < _NOTED or _GAIN[0] <= gain <= _GAIN[1]:
        return
    grows = drift > 1
    rule = "signal-drift" if what == "signal" else "exploding-gradient" if grows else "vanishing-gradient"
    times, changes = math.sqrt(size), "grows" if grows else "shrinks"
    yield finding(
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
