"""What each primitive does to the labels of `reading`: the table, a family of primitives a function. Importing it fills `RULES`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from nandetect.audit.reading import NONE, Atoms, Label, Site, Step, activated, merged, product, rule


@rule(
    "convert_element_type", "copy", "copy_p", "neg", "reduce_precision", "sharding_constraint", "optimization_barrier", "stop_gradient",
    "real", "pvary", "pcast", "psum", "psum_invariant", "all_gather", "mesh_cast", "reshard",
)  # fmt: skip
def _same(step: Step) -> list[Label]:
    if len(step.ins) == len(step.eqn.outvars):
        return [_masked(step, label) for label in step.ins]
    return step.outs(merged(step.ins))


def _masked(step: Step, label: Label) -> Label:
    """A comparison that becomes a number is a one-hot code, or a mask."""
    return replace(label, is_one_hot=label.is_one_hot or (step.name == "convert_element_type" and bool(label.compared or label.is_one_hot)))


@rule("transpose")
def _transpose(step: Step) -> list[Label]:
    (label,) = step.ins
    order = step.eqn.params["permutation"]
    return [replace(label, atoms=tuple(label.atoms[axis] for axis in order)) if label.atoms is not None else label]


@rule("squeeze", "expand_dims")
def _squeeze(step: Step) -> list[Label]:
    (label,) = step.ins
    if label.atoms is None:
        return [label]
    gone = set(step.eqn.params["dimensions"])
    return [replace(label, atoms=tuple(atom for axis, atom in enumerate(label.atoms) if axis not in gone))]


@rule("broadcast_in_dim")
def _broadcast(step: Step) -> list[Label]:
    label = step.ins[0]
    if label.atoms is None:
        return [label]
    shape, places = step.eqn.params["shape"], step.eqn.params["broadcast_dimensions"]
    atoms: list[tuple[tuple[int, int], ...]] = [()] * len(shape)
    for axis, place in enumerate(places):
        atoms[place] = label.atoms[axis]
    return [replace(label, atoms=tuple(atoms))]


@rule("reshape")
def _reshape(step: Step) -> list[Label]:
    label = step.ins[0]
    if label.atoms is None:
        return [label]
    return [replace(label, atoms=_regrouped(label.atoms, step.eqn.outvars[0].aval.shape), leaf=label.leaf)]


def _regrouped(atoms: Atoms, shape: Sequence[int]) -> Atoms | None:
    """The factors of the axes dealt out over another shape; None where they do not divide."""
    left = [atom for axis in atoms for atom in axis if atom[1] != 1]
    found: list[tuple[tuple[int, int], ...]] = []
    for size in shape:
        taken: list[tuple[int, int]] = []
        while size > 1:
            if not left:
                return None
            axis, whole = left.pop(0)
            shared = math.gcd(size, whole)
            if shared == 1 or (shared != whole and shared != size):
                return None
            taken.append((axis, shared))
            size //= shared
            if whole > shared:
                left.insert(0, (axis, whole // shared))
        found.append(tuple(taken))
    return None if left else tuple(found)


@rule(
    "slice",
    "dynamic_slice",
    "rev",
    "pad",
    "reduce_window_max",
    "reduce_window_sum",
    "reduce_window",
    "cumsum",
    "dynamic_update_slice",
    "concatenate",
)
def _part(step: Step) -> list[Label]:
    # A slice of a parameter was drawn with the fans of the whole: its axes keep their sizes.
    if step.name in ("slice", "dynamic_slice", "rev"):
        return step.outs(step.ins[0])
    return step.outs(merged(step.ins))


@rule("split")
def _split(step: Step) -> list[Label]:
    return step.outs(step.ins[0])


@rule("gather")
def _gather(step: Step) -> list[Label]:
    table, places = step.ins[:2]
    if table.leaf is not None:
        step.reading.looked_up.add(table.leaf)
        return step.outs(merged([places], is_data=True))
    return step.outs(table)


@rule("eq", "ne", "gt", "ge", "lt", "le", "sign", "is_finite", "and", "or", "not")
def _compare(step: Step) -> list[Label]:
    seen = merged(step.ins)
    is_code = step.name == "eq" and seen.is_data and not seen.pending
    return step.outs(Label(is_data=seen.is_data, compared=seen.pending | seen.compared, upstream=seen.upstream, is_one_hot=is_code))


@rule("add", "sub", "add_any")
def _add(step: Step) -> list[Label]:
    left, right = step.ins
    if left.leaf is not None and not right.is_data and right.leaf is None:
        return [left]
    if right.leaf is not None and not left.is_data and left.leaf is None:
        return [right]
    if not (left.is_data and right.is_data):
        return [merged(step.ins)]
    for stream, branch in ((left, right), (right, left)):
        if (stream.over | stream.after) & branch.pending and not stream.pending:
            return [merged(step.ins)]
        if branch.pending and not stream.pending:
            step.reading.note(branch.pending, "residual")
            return [merged(step.ins, pending=NONE, after=NONE)]
        if branch.pending and stream.pending and stream.pending <= _above(step, branch.pending):
            step.reading.note(branch.pending, "residual")
            return [merged(step.ins, pending=stream.pending, after=NONE)]
    step.reading.note(left.pending ^ right.pending, "sum")
    return [merged(step.ins)]


def _above(step: Step, keys: frozenset) -> frozenset:
    return frozenset().union(*(step.reading.sites[key].upstream for key in keys))


@rule("mul", "div")
def _multiply(step: Step) -> list[Label]:
    left, right = step.ins
    for one, other in ((left, right), (right, left)):
        if one.leaf is not None and not other.is_data:
            if other.constant is None:
                return [replace(one, is_changed=True)]
            number = 1 / other.constant if step.name == "div" and other is right and other.constant else other.constant
            return [replace(one, factor=one.factor * number)]
        if one.is_data and not other.is_data:
            return [replace(one, constant=None)]
    if not (left.is_data and right.is_data):
        return [merged(step.ins)]
    for one, other in ((left, right), (right, left)):
        if one.pending and other.over & one.pending and not other.pending:
            step.reading.note(one.pending, "norm")
            return [merged(step.ins, pending=NONE, after=NONE, over=NONE, normed=one.pending)]
        if one.pending and other.after & one.pending:
            step.reading.note(one.pending, "selfgate")
            return [merged(step.ins, pending=NONE, after=one.pending | other.after)]
    if left.pending and left.pending == right.pending:
        step.reading.note(left.pending, "square")
        return [merged(step.ins, pending=NONE, after=left.after | left.pending)]
    if left.over or right.over:
        return [merged(step.ins, pending=NONE, over=NONE)]
    step.reading.note(left.pending | right.pending, "gate")
    return [merged(step.ins, pending=NONE, after=NONE)]


@rule("max", "min")
def _most(step: Step) -> list[Label]:
    left, right = step.ins
    if left.over or right.over:
        return [merged(step.ins)]
    if left.pending and left.pending == right.pending:
        return activated(step, "leaky_relu")
    zero = any(label.constant == 0 for label in step.ins)
    return activated(step, "relu" if step.name == "max" and zero else "other")


@rule("select_n")
def _select(step: Step) -> list[Label]:
    which, *cases = step.ins
    pending = frozenset().union(*(case.pending for case in cases))
    if not which.compared & pending:
        return [merged(cases, upstream=merged(step.ins).upstream)]
    zero = any(case.constant == 0 for case in cases)
    return activated(step, "relu" if zero else "leaky_relu")


@rule("reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "argmax", "argmin", "reduce_and", "reduce_or")
def _reduce(step: Step) -> list[Label]:
    seen = merged(step.ins)
    # A sum is linear, as in a mean over positions, and a statistic as well.
    linear = step.name == "reduce_sum"
    return step.outs(
        replace(seen, over=seen.over | seen.pending | seen.after, pending=seen.pending if linear else NONE, leaf=None, atoms=None)
    )


@rule("sqrt", "rsqrt", "integer_pow", "square", "pow", "cbrt", "abs", "log")
def _power(step: Step) -> list[Label]:
    if step.name == "log":
        step.reading.has_logarithm = True
    seen = merged(step.ins)
    step.reading.normalises |= step.name in ("sqrt", "rsqrt") and seen.is_data
    # A power of what is pending is a step on the way to a variance or to gelu's cube: what it is shows later.
    step.reading.note(seen.pending, "square")
    return step.outs(replace(seen, pending=NONE, after=seen.after | seen.pending) if not seen.over else replace(seen, pending=NONE))


@rule("tanh")
def _tanh(step: Step) -> list[Label]:
    seen = merged(step.ins)
    return activated(step, "tanh") if seen.pending else step.outs(seen)


@rule("logistic")
def _logistic(step: Step) -> list[Label]:
    return activated(step, "sigmoid")


@rule("erf", "erfc")
def _erf(step: Step) -> list[Label]:
    return activated(step, "gelu")


@rule("sin", "cos")
def _sine(step: Step) -> list[Label]:
    return activated(step, "sin")


@rule("exp", "exp2")
def _exponential(step: Step) -> list[Label]:
    return activated(step, "softmax" if step.ins[0].over else "other")


@rule("expm1")
def _expm1(step: Step) -> list[Label]:
    return activated(step, "elu")


@rule("log1p")
def _log1p(step: Step) -> list[Label]:
    step.reading.has_logarithm = True
    return activated(step, "softplus")


@rule("dot_general")
def _dot(step: Step) -> list[Label]:
    (contracted, batch) = step.eqn.params["dimension_numbers"]
    for at in (1, 0):
        weight, other = step.ins[at], step.ins[1 - at]
        if weight.leaf is not None and weight.atoms is not None and other.is_data:
            free = [axis for axis in range(len(weight.atoms)) if axis not in contracted[at] and axis not in batch[at]]
            return [_site(step, weight, 1 - at, contracted[at], free, (), _units(step, at, free))]
    left, right = step.ins
    if left.is_data and right.is_data:
        step.reading.note(left.pending | right.pending, "attention")
        return [merged(step.ins, pending=NONE, after=NONE, over=NONE)]
    return [merged(step.ins, pending=NONE, after=merged(step.ins).after | merged(step.ins).pending)]


def _units(step: Step, at: int, free: Sequence[int]) -> int | None:
    """The axis of the product along which a kernel's outputs lie: batch axes come first, then the left's, then the right's."""
    (contracted, batch) = step.eqn.params["dimension_numbers"]
    if len(free) != 1:
        return None
    before = 0 if at == 0 else len(step.shape(0)) - len(contracted[0]) - len(batch[0])
    return len(batch[0]) + before


@rule("conv_general_dilated")
def _convolution(step: Step) -> list[Label]:
    signal, weight = step.ins
    if weight.leaf is None or weight.atoms is None or not signal.is_data:
        step.reading.note(signal.pending | weight.pending, "other")
        return [merged(step.ins, pending=NONE)]
    numbers = step.eqn.params["dimension_numbers"]
    outside, inside, *window = numbers.rhs_spec
    out = _site(step, weight, 0, (inside, *window), (outside, *window), window, numbers.out_spec[1])
    step.reading.sites[step.key].is_conv_transpose = any(one > 1 for one in step.eqn.params["lhs_dilation"])
    return [out]


def _site(
    step: Step, weight: Label, signal: int, contracted: Sequence[int], free: Sequence[int], window: Sequence[int], units: int | None
) -> Label:
    assert weight.leaf is not None
    other = step.ins[signal]
    if other.is_one_hot and not other.pending:
        step.reading.looked_up.add(weight.leaf)
    step.reading.note(other.pending, "kernel")
    site = step.reading.sites.get(step.key)
    if site is None:
        site = step.reading.sites[step.key] = Site(
            key=step.key,
            leaf=weight.leaf,
            fan_in=product(weight, contracted),
            fan_out=product(weight, free),
            window=product(weight, window),
            factor=weight.factor,
            is_changed=weight.is_changed,
            units=units,
            signal=signal,
            branched=len(free) - len(window) > 1,
        )
    site.fed_by |= (other.after | other.pending) - {step.key}
    site.upstream |= other.upstream
    key = frozenset({step.key})
    return Label(is_data=True, pending=key, upstream=other.upstream | key)
