"""How the gradient travels through the layers: what explodes, vanishes, or ends in a saturated unit."""

from __future__ import annotations

import math

import numpy as np

from nandetect import wording
from nandetect.findings import finding
from nandetect.monitor.rules.beginning import EXPLODING, elasticity, faded, loud, sources, unlearned
from nandetect.monitor.rules.columns import Course, middle
from nandetect.monitor.rules.layers import cell_of, is_recurrent
from nandetect.records import Finding

# ln of how many times smaller the first layers' gradient is than the last ones', each over its weights: a thousand (AutoTrainer), or
# fifty where nothing is learned. Healthy runs: fifteen at most for more than a few steps.
VANISHED, FADING = math.log(1e3), math.log(50)
# Points at which the gradient must be so small, and the points at either end between which its growth is taken.
_POINTS = 20
# Points before which no gradient counts as vanished: a head that starts at zero lets little through for some ten steps.
_PATIENCE = 60
# The signal at the last layer over that at the first, both as root mean squares, above which it explodes; the second bound is for recurrent
# nets. Healthy at the start: 3 at most, 10 in a residual net, and about 1 in a recurrent one.
_LOUDER, _LOUDER_CELL = 30.0, 5.0
# The gradient now over that of the first points, where the loss has not fallen: slow growth that ends in an explosion.
GROWN = 100.0
_SATURATED = 5.0


def exploding_gradient(course: Course) -> list[Finding]:
    """Gradients, or a signal, that grow by large factors through depth or time at the first step, or grew so while training."""
    if not course.points:
        return []
    first = slice(0, 3)
    factor = elasticity(course, first)
    if factor > EXPLODING and not _resting(course):
        index = _strongest(course, 0)
        norm = float(course.series("gradient")[0])
        return [
            _exploding(
                course, index, 0, norm, f"{wording.times(factor)} what the loss would ask for ({EXPLODING:.0f} at most)", factor, EXPLODING
            )
        ]
    growth = _signal(course)
    cell = next((kernel.leaf for kernel in course.kernels if is_recurrent(course.leaves, kernel.leaf)), None)
    limit = _LOUDER if cell is None else _LOUDER_CELL
    if loud(course) and growth > limit:
        index, norm = course.kernels[-1].leaf if cell is None else cell, float(course.series("gradient")[0])
        return [_exploding(course, index, 0, norm, f"the signal grows {wording.times(growth)} on its way to the last layer", growth, limit)]
    return _grown(course)


def vanishing_gradient(course: Course) -> list[Finding]:
    """Early layers whose gradient is a thousandth of that of the last ones, or next to nothing everywhere."""
    fallen = fall(course)
    if fallen is None:
        return []
    index, drop = fallen
    stuck = unlearned(course)
    limit = FADING if stuck else VANISHED
    points = int((drop > limit).sum())
    now = middle(drop[-max(len(drop) // 4, 8) :]) > limit
    if points >= _POINTS and course.points >= _PATIENCE and (now or not _learned(course)):
        factor = math.exp(min(float(middle(drop)), 80.0))
        layers = len(course.kernels)
        rate = factor ** (1 / max(layers - 1, 1))
        return [
            finding(
                "vanishing-gradient",
                "error" if stuck else "warning",
                f"the gradient of `{course.leaves[index].path}` is, against its weights, {wording.times(factor)} smaller than the last "
                f"layer: it falls {rate:.2g} times a layer over {layers} layers",
                cause="a gradient that shrinks from layer to layer: saturating activations, or weights too small",
                layer=course.leaves[index].path,
                step=int(course.steps[0]),
                measured=1 / factor,
                expected=1e-3,
                help="use ReLU or GELU with He's initial scale, normalisation between the layers, or residual connections",
            )
        ]
    if stuck and course.points >= _POINTS and len(course.kernels) > 2 and faded(course):
        return [_faded(course)]
    return []


def saturated_units(course: Course) -> list[Finding]:
    """A layer whose units stand so far out on a sigmoid or tanh that its gradient is lost there, from the size of what they are given."""
    if len(course.kernels) < 2 or not course.points:
        return []
    for kernel, after in zip(course.kernels[:-1], course.kernels[1:], strict=True):
        drive = course.input_scale(kernel, course.start) * course.scale(kernel, course.start)
        next_input = course.input_scale(after, course.start)
        # An input of about 1 to the next layer, however large the drive: the activation is bounded, and at its bound.
        if math.isfinite(drive) and drive > _SATURATED and next_input < 1.05 and kernel in sources(course):
            return [
                finding(
                    "saturated-units",
                    "warning",
                    f"the units of `{kernel.path}` are driven to about ±{drive:.3g}, where a sigmoid or tanh is flat",
                    cause="inputs or weights so large that the activations saturate",
                    layer=kernel.path,
                    step=int(course.steps[0]),
                    measured=drive,
                    expected=1.0,
                    help="scale the inputs to about 1 and draw the weights with `glorot_normal()` or `lecun_normal()`",
                )
            ]
    return []


def fall(course: Course) -> tuple[int, np.ndarray] | None:
    """The leaf with the smallest gradient in the first half of the layers, and ln of how many times smaller that half's is, at each point.

    It is compared with the last quarter of the layers; None where fewer than three kernels are trained.
    """
    kernels = [kernel for kernel in course.kernels if course.trained[kernel.leaf]]
    if len(kernels) < 3:
        return None
    indices = [kernel.leaf for kernel in kernels]
    weight = course.layer("weight")[course.full][:, indices]
    # Weights as large as now at least: a head that starts at zero has next to none at first.
    final = middle(course.layer("weight")[course.late][:, indices], 0)
    gradient = course.layer("gradient")[course.full][:, indices]
    with np.errstate(divide="ignore", invalid="ignore"):
        profile = np.log(gradient) - np.log(np.fmax(weight, final))
    profile = np.where(np.isfinite(profile), profile, np.nan)
    rows = np.isfinite(profile).sum(1) >= 3
    if not rows.any():
        return None
    profile = profile[rows]
    half = max(len(indices) // 2, 1)
    front, back = profile[:, :half], profile[:, -max(len(indices) // 4, 1) :]
    drop = np.asarray(middle(back, 1)) - np.asarray(middle(front, 1))
    worst = int(np.argmin(np.nan_to_num(np.asarray(middle(front, 0)), nan=np.inf)))
    return indices[worst], drop


def _signal(course: Course) -> float:
    """The size of the last layer's input over that of the first one's, at the first step."""
    if len(course.kernels) < 2:
        return math.nan
    scales = [course.input_scale(kernel, slice(0, 1)) for kernel in sources(course)]
    first = max((scale for scale in scales if math.isfinite(scale)), default=math.nan)
    return course.input_scale(course.kernels[-1], slice(0, 1)) / max(first, 1.0) if math.isfinite(first) else math.nan


def _grown(course: Course) -> list[Finding]:
    """A gradient that has become a hundred times what it was, in a run whose loss is no better for it."""
    gradient = course.series("gradient")
    finite = np.flatnonzero(np.isfinite(gradient) & (gradient > 0))
    if len(finite) < 2 * _POINTS or not unlearned(course):
        return []
    usual = float(np.median(gradient[finite[:_POINTS]]))
    norms = gradient[finite]
    now = float(np.median(norms[-_POINTS:]))
    if now < GROWN * usual:
        return []
    point = int(finite[int(np.argmax(norms > 10 * usual))])
    return [
        _exploding(
            course,
            _strongest(course, int(finite[-1])),
            point,
            now,
            f"{wording.times(now / usual)} what it was at first",
            now / usual,
            GROWN,
        )
    ]


def _strongest(course: Course, point: int) -> int | None:
    """The leaf that has most of the gradient, against its weights where they are known."""
    row = np.nan_to_num(course.layer("gradient")[point], posinf=3e38)
    weight = course.layer("weight")[: point + 1]
    known = np.flatnonzero(np.isfinite(weight).any(1))
    if known.size:
        kernels = [kernel.leaf for kernel in course.kernels]
        relative = np.where(weight[known[-1]] > 0, row / np.maximum(weight[known[-1]], 1e-30), 0)
        return max(kernels, key=lambda index: relative[index]) if kernels else int(np.argmax(row)) if row.size else None
    return int(np.argmax(row)) if row.size else None


def _resting(course: Course) -> bool:
    """Whether the loss is so small from the beginning that a ratio to it means nothing."""
    return abs(course.first_loss) < 1e-3


def _learned(course: Course) -> bool:
    return course.last_loss < 0.5 * min(course.first_loss, course.chance if math.isfinite(course.chance) else math.inf)


def _exploding(course: Course, index: int | None, point: int, size: float, why: str, measured: float, expected: float) -> Finding:
    layer = course.leaves[index].path if index is not None else None
    cell = cell_of(course.leaves, index) if index is not None else None
    recurrent = "a recurrent weight" if cell is None or cell == index else f"a recurrent weight, `{course.leaves[cell].path}`,"
    cause = (
        "each layer multiplies the gradient" if cell is None else f"{recurrent} that multiplies the gradient at every step of the sequence"
    )
    where = f"the gradient of `{layer}`" if layer else "the gradient"
    norm = float(np.nan_to_num(course.layer("gradient")[point, index], nan=size)) if index is not None else size
    return finding(
        "exploding-gradient",
        "error" if unlearned(course) else "warning",
        f"{where} is {norm:.3g} at step {int(course.steps[point])}: {why}",
        cause=cause,
        layer=layer,
        step=int(course.steps[point]),
        measured=measured,
        expected=expected,
        help="start the recurrent weights orthogonal with gain 1, clip the gradient's norm (1.0), or use a GRU or an LSTM"
        if cell is not None
        else "use He's initial scale and normalisation between the layers, and clip the gradient's norm",
    )


def _faded(course: Course) -> Finding:
    index = next(kernel.leaf for kernel in course.kernels if course.trained[kernel.leaf])
    size = float(middle(course.layer("gradient")[:, index]))
    return finding(
        "vanishing-gradient",
        "error",
        f"the gradient of every layer but the last is next to nothing: {size:.2g} in `{course.leaves[index].path}`",
        cause="the signal fades on its way through the layers",
        layer=course.leaves[index].path,
        step=int(course.steps[0]),
        measured=size,
        expected=1e-3,
        help="draw the weights with He's scale (`jax.nn.initializers.he_normal()`), or normalise between the layers",
    )
