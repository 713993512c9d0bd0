"""Numbers that a format cannot hold, or hardly: near its largest, or below its smallest normal one."""

from __future__ import annotations

import math

import numpy as np

from nandetect.findings import finding
from nandetect.monitor.rules.columns import Course, middle
from nandetect.monitor.rules.finite import bad_gradient, bad_loss
from nandetect.records import Finding

# The largest finite number of a format, and the bits of room below it that are too few: 5 % of the exponent's range (FPChecker, nixnan).
_LARGEST = {"float16": (65504.0, 2.0), "bfloat16": (3.39e38, 12.0), "float32": (3.4028e38, 12.0)}
# The share of a kernel's gradient that must be lost. TransformerEngine warns of a tenth (`underflows%`), but small networks train on with
# a third of their elements subnormal (measured: up to 0.3 in healthy float16 runs without a loss scale), so most of a kernel must be.
UNDERFLOW = 0.5
_TINY = 0.1
_ENOUGH = 5


def overflow_headroom(course: Course) -> list[Finding]:
    """Gradients or weights within a few bits of the largest number of their format, or float16 that is already beyond it."""
    near_limit = []
    for index, leaf in enumerate(course.leaves):
        if leaf.dtype not in _LARGEST:
            continue
        largest, room = _LARGEST[leaf.dtype]
        for column, what in (("gradient_max", "gradient"), ("weight_max", "weights")):
            values = np.nan_to_num(course.layer(column)[:, index], posinf=largest)
            is_near = values > largest / 2**room
            if is_near.any():
                point = int(np.argmax(is_near))
                near_limit.append((point, -float(values[point] / largest), index, what, float(values[point]), largest, room))
    if not near_limit:
        return _beyond(course)
    point, _, index, what, value, largest, room = min(near_limit)
    leaf = course.leaves[index]
    bits = max(math.log2(largest / value), 0.0)
    return [
        finding(
            "overflow-headroom",
            "error" if bad_gradient(course).any() or bad_loss(course).any() else "warning",
            f"the {what} of `{leaf.path}` reached {value:.3g} at step {int(course.steps[point])}, "
            f"{bits:.1f} bits below the largest {leaf.dtype}",
            cause=f"values near the largest of {leaf.dtype}, {largest:.5g}",
            layer=leaf.path,
            step=int(course.steps[point]),
            measured=bits,
            expected=room,
            help="use bfloat16 or float32 for it, or a smaller loss scale"
            if leaf.dtype == "float16"
            else "look for what grows; clip the gradient",
        )
    ]


def _beyond(course: Course) -> list[Finding]:
    """float16 leaves whose gradient was not finite from early on, with nothing seen to grow before."""
    half = [index for index, leaf in enumerate(course.leaves) if leaf.dtype == "float16" and len(leaf.shape) > 1]
    bad = np.nan_to_num(course.layer("gradient_nonfinite"))[:, half] > 0
    if not half or not bad.any():
        return []
    point = int(np.argmax(bad.any(1)))
    leaf = course.leaves[half[int(np.argmax(bad[point]))]]
    return [
        finding(
            "overflow-headroom",
            "error",
            f"the gradient of `{leaf.path}` is beyond 65504, the largest float16, at step {int(course.steps[point])}",
            cause="overflow in float16",
            layer=leaf.path,
            step=int(course.steps[point]),
            measured=0.0,
            expected=2.0,
            help="use bfloat16, or scale the loss dynamically and unscale the gradient in float32; scale the inputs",
        )
    ]


def underflow(course: Course) -> list[Finding]:
    """Gradients in low precision most of whose elements are flushed to 0 or have lost digits below the smallest normal number."""
    if course.points < _ENOUGH:
        return []
    window = course.recent
    tiny, zero = course.layer("gradient_tiny"), course.layer("gradient_zero")
    affected = []
    for kernel in course.kernels:
        leaf = course.leaves[kernel.leaf]
        if leaf.dtype not in ("float16", "bfloat16") or not course.trained[kernel.leaf]:
            continue
        lost = float(middle(tiny[window, kernel.leaf])), float(middle(zero[window, kernel.leaf]))
        # Zeros alone may come from dead or sparse units; zeros of an underflow lie beside numbers that are nearly 0.
        if (sum(lost) > UNDERFLOW and lost[0] > _TINY) or _all_lost(course, kernel.leaf):
            affected.append((sum(lost), kernel))
    if not affected:
        return []
    share, worst = max(affected, key=lambda pair: pair[0])
    dtype = course.leaves[worst.leaf].dtype
    return [
        finding(
            "underflow",
            "warning",
            f"{share:.0%} of the gradient of `{worst.path}` is 0 or below the smallest normal {dtype}",
            cause=f"gradients too small for {dtype}",
            layer=worst.path,
            step=int(course.steps[0]),
            measured=share,
            expected=_TINY,
            help="multiply the loss by a scale and divide the gradient by it in float32 (start at 2**15), or use bfloat16",
        )
    ]


def _all_lost(course: Course, index: int) -> bool:
    """Whether nearly all elements are exactly 0 though the largest that are left are nearly 0 too."""
    largest = float(middle(course.layer("gradient_max")[course.recent, index]))
    zero = float(middle(course.layer("gradient_zero")[course.recent, index]))
    return (
        course.leaves[index].dtype == "float16"
        and zero > 0.8
        and largest < 2.0**-14
        and not course.last_loss < 0.01 * abs(course.first_loss)
    )
