"""Units and leaves that learn nothing: frozen, detached, dead."""

from __future__ import annotations

import numpy as np

from nandetect.findings import finding
from nandetect.monitor.rules.columns import Course, divided, middle
from nandetect.monitor.rules.finite import bad_gradient
from nandetect.monitor.rules.layers import KernelLeaf
from nandetect.monitor.rules.words import listed
from nandetect.records import Finding

# Points without any change before a leaf is called frozen, or a unit dead.
ENOUGH = 20
# The share of dead units that is worth a warning, and that which in a layer that learns is worth a note (AWS Debugger warns at a half;
# measured: healthy ReLU networks reach 0.5 in narrow layers, and with few samples in a batch for a while).
_MOST, _HALF = 0.75, 0.5
# The standard deviation up to which a share of idle units is steady: dead units are the same in every step, while with few samples in a
# batch other ReLUs are off in each step.
_STEADY = 0.03
_LEAST_WIDTH = 4
_LEAST_POINTS = 8
# Half a unit in the last place, relative to a number: an update below it is rounded away.
_ROUNDING = {"bfloat16": 2.0**-9, "float16": 2.0**-12}


def frozen_parameters(course: Course) -> list[Finding]:
    """Leaves that no gradient reaches, or whose update is nothing, while others learn."""
    if course.points < ENOUGH:
        return []
    findings = []
    silent_leaves, starved = silent(course), behind_dead(course)
    detached = [index for index in silent_leaves if index not in starved]
    if detached:
        findings.append(
            _frozen(course, detached, "no gradient reaches", "its gradient is exactly 0: detached from the loss", _DETACHED, 0.0)
        )
    update = course.layer("update")
    not_updated = [index for index in _never(update, course.trained) if index not in silent_leaves]
    not_updated = not_updated if _has_kernel(course, not_updated) else []
    moving = np.isfinite(update).any() and (np.nan_to_num(update) > 0).any(0)
    if not_updated and (moving.any() or (np.nan_to_num(course.series("gradient")) > 0).any()):
        cause = "its gradient arrives and its update is exactly 0" if moving.any() else "every update is exactly 0"
        findings.append(_frozen(course, not_updated, "the optimizer never moves", cause, _STILL, 0.0))
    unmoved = [index for index in _unmoved(course) if index not in silent_leaves and index not in not_updated]
    if unmoved:
        findings.append(_frozen(course, unmoved, "updates are computed but never change", "its updates are not applied", _UNAPPLIED, 0.0))
    return findings


def gradient_absorption(course: Course) -> list[Finding]:
    """Leaves in low precision that rounding keeps where they are, though they are updated."""
    if course.points < ENOUGH:
        return []
    relative = divided(course.layer("update"), course.layer("weight"))
    absorbed = [
        index
        for index in _constant(course)
        if 0 < middle(relative[:, index]) < _ROUNDING.get(course.leaves[index].dtype, 0.0) and len(course.leaves[index].shape) > 1
    ]
    if not absorbed:
        return []
    ratio, dtype = float(middle(relative[:, absorbed])), course.leaves[absorbed[0]].dtype
    return [
        finding(
            "gradient-absorption",
            "warning",
            f"{listed([course.leaves[index].path for index in absorbed])} never changed in {course.points} steps: updates of "
            f"{ratio:.1e} of its size are rounded away in {dtype}",
            cause=f"updates smaller than what {dtype} can add",
            layer=course.leaves[absorbed[0]].path,
            step=int(course.steps[0]),
            measured=ratio,
            expected=_ROUNDING[dtype],
            help="keep the parameters, or a copy that is updated, in float32; stochastic rounding, or a higher learning rate, helps too",
        )
    ]


def dead_units(course: Course) -> list[Finding]:
    """Hidden layers most of whose units get no gradient from any sample, step after step."""
    if course.points < ENOUGH:
        return []
    silent_leaves, starved = silent(course), behind_dead(course)
    dead = []
    for kernel in course.kernels[:-1]:
        share = idle(course, kernel)[course.late]
        if kernel.leaf in silent_leaves and kernel.leaf not in starved:
            continue
        share = share[np.isfinite(share)]
        if len(share) < _LEAST_POINTS or kernel.outputs < _LEAST_WIDTH:
            continue
        least = float(share.min())
        steady = share.std() < _STEADY or least >= 0.95
        if least >= _HALF and steady and not _done(course):
            dead.append((kernel, least))
    worst = max(dead, key=lambda pair: pair[1], default=None)
    return [] if worst is None else [_dead(course, worst[0], worst[1], [kernel.path for kernel, _ in dead])]


def idle(course: Course, kernel: KernelLeaf) -> np.ndarray:
    """float[T]: the share of a layer's units whose gradient is exactly 0, from its bias where it has one."""
    if kernel.bias is not None:
        return course.layer("gradient_zero")[:, kernel.bias]
    if kernel.flipped:
        return np.full(course.points, np.nan)
    return course.layer("gradient_idle")[:, kernel.leaf]


def silent(course: Course) -> list[int]:
    """The leaves whose gradient is exactly 0 at every recent point while another leaf's is not; none where no kernel is among them."""
    gradient = course.layer("gradient")[course.recent]
    zero = course.trained & (np.nan_to_num(gradient, nan=0.0) == 0).all(0) & np.isfinite(gradient).any(0)
    if not zero.any() or not (np.nan_to_num(gradient) > 0).any() or np.isin(True, bad_gradient(course)[course.recent]).all():
        return []
    indices = [int(index) for index in np.flatnonzero(zero)]
    return indices if _has_kernel(course, indices) else []


def behind_dead(course: Course) -> set[int]:
    """Those of the silent leaves that a dead layer keeps the gradient from.

    The layer after a dead one is given only zeros: its kernel's gradient is 0 and its bias's is not. Before a `stop_gradient` both are
    0, and were so from the first step.
    """
    silent_leaves = set(silent(course))
    order = [kernel for kernel in course.kernels if kernel.leaf in silent_leaves]
    if not order:
        return set()
    last = order[-1]
    early = np.nan_to_num(course.layer("gradient")[: course.recent.start + 1, last.leaf])
    if (last.bias is not None and last.bias not in silent_leaves) or (early > 0).any():
        return silent_leaves
    return set()


def _dead(course: Course, kernel: KernelLeaf, share: float, others: list[str]) -> Finding:
    series = idle(course, kernel)
    reached = np.flatnonzero(np.nan_to_num(series) >= min(share, 0.99) - _STEADY)
    step = int(course.steps[reached[0]]) if reached.size else int(course.steps[0])
    at_start = middle(series[course.start]) >= 0.8 * share
    cause = "dead from the start: a large negative bias, or inputs it never answers" if at_start else f"its units died around step {step}"
    bias = course.layer("weight")[0, kernel.bias] / np.sqrt(kernel.outputs) if at_start and kernel.bias is not None else 0.0
    if bias > 1:
        cause = f"dead from the start: its bias is about {bias:.2g} in size"
    count = round(share * kernel.outputs)
    others_too = f" (so are {listed([path for path in others if path != kernel.path])})" if len(others) > 1 else ""
    return finding(
        "dead-units",
        "note" if share < _MOST else "warning" if share < 0.99 else "error",
        f"{count} of {kernel.outputs} units of `{kernel.path}` get no gradient from any sample of any recent batch{others_too}",
        cause=cause,
        layer=kernel.path,
        step=step,
        measured=share,
        expected=_HALF,
        help="set the biases to 0 and use He's initial scale; a leaky ReLU or GELU keeps a gradient"
        if at_start
        else "lower the learning rate or warm it up; a leaky ReLU or GELU keeps a gradient",
    )


_DETACHED = "look for a `stop_gradient`, a branch that is not used in the loss, or a value that left JAX (numpy, int, argmax) on its way"
_STILL = (
    "look for a mask or a label of the optimizer (`optax.masked`, `multi_transform`, `set_to_zero`) or a learning rate of 0; "
    "if it is meant, do not give its gradient"
)
_UNAPPLIED = "check that the updated parameters are what the next step is given: `params = optax.apply_updates(params, updates)`"


def _frozen(course: Course, indices: list[int], what: str, cause: str, help: str, measured: float) -> Finding:
    paths = [course.leaves[index].path for index in indices]
    kernel = next((course.leaves[index].path for index in indices if len(course.leaves[index].shape) > 1), paths[0])
    return finding(
        "frozen-parameters",
        "warning",
        f"{what} {listed(paths)} in {course.points} steps",
        cause=cause,
        layer=kernel,
        step=int(course.steps[0]),
        measured=measured,
        expected="> 0",
        help=help,
    )


def _has_kernel(course: Course, indices: list[int]) -> bool:
    """Whether a kernel is among the leaves, where the model has any: biases before a normalisation get no gradient, which is no fault."""
    kernels = {kernel.leaf for kernel in course.kernels}
    return bool(kernels & set(indices)) or not kernels


def _never(column: np.ndarray, trained: np.ndarray) -> list[int]:
    """The trained leaves, kernels or not, whose column was measured and 0 at every point."""
    measured = np.isfinite(column)
    return [int(index) for index in np.flatnonzero(trained & measured.any(0) & (np.where(measured, column, 0) == 0).all(0))]


def _constant(course: Course) -> list[int]:
    """The trained leaves whose norm never changed, though they were updated."""
    weight, update = course.layer("weight")[course.full], course.layer("update")[course.full]
    if not len(weight):
        return []
    unchanged = (np.nan_to_num(weight) == np.nan_to_num(weight[0])).all(0) & (np.nan_to_num(weight[0]) > 0)
    return [int(index) for index in np.flatnonzero(unchanged & course.trained & (np.nan_to_num(update) > 0).all(0))]


def _unmoved(course: Course) -> list[int]:
    """The leaves that never changed though updates of that size would have changed them."""
    relative = divided(course.layer("update"), course.layer("weight"))
    rounding = {**_ROUNDING, "float32": 2.0**-22, "float64": 2.0**-22}
    return [index for index in _constant(course) if middle(relative[:, index]) > 4 * rounding.get(course.leaves[index].dtype, 1.0)]


def _done(course: Course) -> bool:
    """Whether nothing is left to learn: the gradient is 0 because the loss is."""
    return course.last_loss < 1e-2 * abs(course.first_loss)
