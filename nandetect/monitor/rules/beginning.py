"""What was wrong before the first step: inputs of another size than the layers are made for, weights of a wrong scale, equal units."""

from __future__ import annotations

import math
import re

import numpy as np

from nandetect import wording
from nandetect.findings import finding
from nandetect.monitor.rules.columns import Course, middle
from nandetect.monitor.rules.layers import KernelLeaf, is_recurrent, layer_of
from nandetect.monitor.rules.units import silent
from nandetect.monitor.rules.words import listed
from nandetect.records import Finding

# Points from which the beginning is read. After more of them a layer's input may be what a too large first step made of it.
_FIRST = 3
# Root mean square from which on inputs are too large: 1 when standardised, about 0.4 for pixels in 0..1, and 7.8, over the bound, for
# sixteen grey levels.
LARGE_INPUT = 5.0
# Scales, std * sqrt(fan-in), beyond which a layer multiplies the signal's size or divides it. LeCun's is 1, He's 1.41.
LARGE_SCALE, SMALL_SCALE = 3.0, 0.5
# Effects that a wrong scale must have had before it is called a fault here; `audit_init` judges the weights by themselves.
LOUD_LOSS, QUIET_FLOW = 3.0, 1e-3
_LOOKED_UP = re.compile(r"embed|position|wte|wpe|token|lookup|pos_emb", re.IGNORECASE)


def inputs_unscaled(course: Course) -> list[Finding]:
    """A finding where the first layer is given numbers far larger than 1."""
    scales = [(course.input_scale(kernel, slice(0, _FIRST)), kernel) for kernel in sources(course)]
    largest = max(((scale, kernel) for scale, kernel in scales if math.isfinite(scale)), key=lambda pair: pair[0], default=None)
    if largest is None or largest[0] < LARGE_INPUT:
        return []
    scale, kernel = largest
    return [
        finding(
            "inputs-unscaled",
            "error" if unlearned(course) else "warning",
            f"`{kernel.path}` is given inputs of size {scale:.3g} (root mean square, by its gradients), not about 1",
            cause="inputs that were never scaled",
            layer=kernel.path,
            step=int(course.steps[0]),
            measured=scale,
            expected=1.0,
            help="subtract the mean and divide by the standard deviation of the training inputs (pixels 0..255: at least divide by 255)",
        )
    ]


def init_scale(course: Course) -> list[Finding]:
    """Initial weights so far off that the signal explodes or fades, and the run shows it."""
    hidden = [kernel for kernel in course.kernels if not _LOOKED_UP.search(kernel.path)]
    scales = {kernel: course.scale(kernel, slice(0, 1)) for kernel in hidden}
    # A recurrent kernel makes the gradient explode over time, which `exploding_gradient` names.
    large = [kernel for kernel in hidden if scales[kernel] > LARGE_SCALE and not is_recurrent(course.leaves, kernel.leaf)]
    if large and (loud(course) or elasticity(course, slice(0, _FIRST)) > EXPLODING):
        return [_scale(course, large, scales, "too large", f"the loss starts at {course.first_loss:.3g}")]
    small = [kernel for kernel in hidden if 0 < scales[kernel] < SMALL_SCALE]
    if small and len(hidden) > 2 and unlearned(course) and math.isfinite(course.last_loss) and faded(course):
        return [_scale(course, small, scales, "too small", "hardly any signal comes through")]
    return []


def init_symmetry(course: Course) -> list[Finding]:
    """Kernels that are all zero and stay so: every unit of a layer gets the same gradient, or none."""
    weight = course.layer("weight")
    zero = [kernel for kernel in course.kernels if course.points and weight[0, kernel.leaf] == 0 and course.trained[kernel.leaf]]
    quiet = silent(course)
    stuck = [kernel for kernel in zero if kernel.leaf in quiet]
    if len(zero) < 2 or not stuck:
        return []
    return [
        finding(
            "init-symmetry",
            "error",
            f"{listed([kernel.path for kernel in zero])} start at zero and get no gradient",
            cause="weights that all start at zero",
            layer=zero[0].path,
            step=int(course.steps[0]),
            measured=0.0,
            expected=math.sqrt(2 / zero[0].inputs),
            help="draw the kernels at random (`jax.nn.initializers.he_normal()`); only biases, and the last layer alone, may start at zero",
        )
    ]


# The elasticity above which a gradient explodes. Measured at the start: 4 to 110 in healthy runs, from 10,000 upwards where the gradient
# explodes in depth or time.
EXPLODING = 3000.0
_LOGITS = 1.5


def elasticity(course: Course, window: slice) -> float:
    """||g|| ||w|| / |loss|: how many times its own size the loss would change with the weights. Losses below 1 count as 1.

    The last bias has the gradient of the logits, whose norm is 1.4 at most for a cross-entropy: where it is larger, the loss is scaled.
    """
    loss = np.maximum(np.abs(course.loss[window]), 1.0)
    last = course.kernels[-1].bias if course.kernels else None
    if last is not None:
        loss = loss * np.maximum(np.nan_to_num(course.layer("gradient")[window, last]) / _LOGITS, 1.0)
    gradient, weight = course.series("gradient")[window], course.series("weight")[window]
    with np.errstate(over="ignore", invalid="ignore"):
        value = gradient * weight / np.where(np.isfinite(loss), loss, 1.0)
    return float(np.nanmax(value)) if len(value) and np.isfinite(value).any() else (math.inf if np.isinf(value).any() else math.nan)


def sources(course: Course) -> list[KernelLeaf]:
    """The kernels that are given the inputs: of the first layers those that take as many channels as no layer gives."""
    if not course.kernels:
        return []
    first = layer_of(course.kernels[0].path)
    wide = {kernel.outputs for kernel in course.kernels} | {leaf.shape[0] for leaf in course.leaves if len(leaf.shape) == 1}
    beginning = [kernel for kernel in course.kernels if layer_of(kernel.path) == first] if first else list(course.kernels)
    beginning += [kernel for kernel in course.kernels[: len(course.kernels) // 2] if kernel not in beginning]
    return [kernel for kernel in beginning if kernel.channels not in wide] or [course.kernels[0]]


def loud(course: Course) -> bool:
    """Whether the loss starts far above that of a guess."""
    return course.first_loss > LOUD_LOSS * max(course.chance if math.isfinite(course.chance) else 0.0, 1.0) or not math.isfinite(
        course.first_loss
    )


def unlearned(course: Course) -> bool:
    """Whether the loss is about what it was at the start, or above, or not finite."""
    if course.broken:
        return True
    if not np.isfinite(course.loss).any():
        return False
    return course.last_loss > 0.9 * min(course.first_loss, _guess(course))


def faded(course: Course) -> bool:
    """Whether the loss hardly depends on the weights: at most points their elasticity is below 1e-3 in every kernel but the last."""
    loss = np.maximum(np.abs(course.loss[course.full]), 1.0)[:, None]
    indices = [kernel.leaf for kernel in course.kernels[:-1] if course.trained[kernel.leaf]]
    if not indices or not len(course.full) or not (np.nan_to_num(course.layer("gradient_nonfinite")) == 0).all():
        return False
    flow = course.layer("gradient")[course.full][:, indices] * course.layer("weight")[course.full][:, indices] / loss
    return bool(middle(np.nanmax(np.where(np.isfinite(flow), flow, 0), 1)) < QUIET_FLOW)


def _guess(course: Course) -> float:
    """The loss of a guess, or the first loss where that is lower: a loss that only fell to a guess's shows no learning."""
    return course.chance if math.isfinite(course.chance) and course.first_loss > course.chance else course.first_loss


def _scale(course: Course, kernels: list[KernelLeaf], scales: dict[KernelLeaf, float], how: str, seen: str) -> Finding:
    pick = max if how == "too large" else min
    worst = pick(kernels, key=lambda kernel: scales[kernel])
    std, he = scales[worst] / math.sqrt(worst.inputs), math.sqrt(2 / worst.inputs)
    factor = max(std / he, he / std)
    return finding(
        "init-scale",
        "error" if unlearned(course) else "warning",
        f"`{worst.path}` starts with a standard deviation of {std:.3g}, {wording.times(factor)} {how} for He's {he:.3g}, and {seen}",
        cause=f"initial weights {how}",
        layer=worst.path,
        step=int(course.steps[0]),
        measured=std,
        expected=he,
        help="use `jax.nn.initializers.he_normal()` before a ReLU, `lecun_normal()` else; `nd.audit_init` names the mistake",
    )
