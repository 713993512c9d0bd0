"""What each primitive does to the labels of `reading`: a function for each family of primitives. Importing this fills `RULES`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from nandetect import compat
from nandetect.audit.reading import NONE, RULES, Atoms, Keys, Label, LabelledEquation, Site, activated, merged, product, union


@RULES.rule(
    "convert_element_type", "copy", "copy_p", "neg", "reduce_precision", "sharding_constraint", "optimization_barrier", "stop_gradient",
    "real", "pvary", "pcast", "psum", "psum_invariant", "all_gather", "mesh_cast", "reshard",
)  # fmt: skip
def _same(equation: LabelledEquation) -> list[Label]:
    if len(equation.ins) == len(equation.eqn.outvars):
        return [_masked(equation, label) for label in equation.ins]
    return equation.outs(merged(equation.ins))


def _masked(equation: LabelledEquation, label: Label) -> Label:
    """The label of what is only copied or cast: a comparison that becomes a number is a one-hot code, or a mask."""
    return replace(label, is_one_hot=label.is_one_hot or (equation.name == "convert_element_type" and bool(label.compared)))


@RULES.rule("transpose")
def _transpose(equation: LabelledEquation) -> list[Label]:
    (label,) = equation.ins
    order = equation.eqn.params["permutation"]
    return [replace(label, atoms=tuple(label.atoms[axis] for axis in order)) if label.atoms is not None else label]


@RULES.rule("squeeze", "expand_dims")
def _squeeze(equation: LabelledEquation) -> list[Label]:
    (label,) = equation.ins
    if label.atoms is None:
        return [label]
    removed = set(equation.eqn.params["dimensions"])
    return [replace(label, atoms=tuple(atom for axis, atom in enumerate(label.atoms) if axis not in removed))]


@RULES.rule("broadcast_in_dim")
def _broadcast(equation: LabelledEquation) -> list[Label]:
    label = equation.ins[0]
    if label.atoms is None:
        return [label]
    shape, places = equation.eqn.params["shape"], equation.eqn.params["broadcast_dimensions"]
    atoms: list[tuple[tuple[int, int], ...]] = [()] * len(shape)
    for axis, place in enumerate(places):
        atoms[place] = label.atoms[axis]
    return [replace(label, atoms=tuple(atoms))]


@RULES.rule("reshape")
def _reshape(equation: LabelledEquation) -> list[Label]:
    label = equation.ins[0]
    if label.atoms is None:
        return [label]
    return [replace(label, atoms=_regrouped(label.atoms, compat.aval(equation.eqn.outvars[0]).shape))]


def _regrouped(atoms: Atoms, shape: Sequence[int]) -> Atoms | None:
    """The factors of the axes, dealt out over the axes of another shape; None where the sizes do not divide."""
    left = [atom for axis in atoms for atom in axis if atom[1] != 1]
    axes: list[tuple[tuple[int, int], ...]] = []
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
        axes.append(tuple(taken))
    return None if left else tuple(axes)


@RULES.rule("slice", "dynamic_slice", "rev")
def _slice(equation: LabelledEquation) -> list[Label]:
    # Slices of a parameter keep the sizes of its axes: they were drawn with the fans of the whole.
    return equation.outs(equation.ins[0])


@RULES.rule("pad", "reduce_window_max", "reduce_window_sum", "reduce_window", "cumsum", "dynamic_update_slice", "concatenate")
def _part(equation: LabelledEquation) -> list[Label]:
    return equation.outs(merged(equation.ins))


@RULES.rule("split")
def _split(equation: LabelledEquation) -> list[Label]:
    return equation.outs(equation.ins[0])


@RULES.rule("gather")
def _gather(equation: LabelledEquation) -> list[Label]:
    table, places = equation.ins[:2]
    if table.leaf is not None:
        equation.reading.looked_up.add(table.leaf)
        return equation.outs(replace(merged([places]), is_data=True))
    return equation.outs(table)


@RULES.rule("eq", "ne", "gt", "ge", "lt", "le", "sign", "is_finite", "and", "or", "not")
def _compare(equation: LabelledEquation) -> list[Label]:
    seen = merged(equation.ins)
    is_code = equation.name == "eq" and seen.is_data and not seen.pending
    return equation.outs(Label(is_data=seen.is_data, compared=seen.pending | seen.compared, upstream=seen.upstream, is_one_hot=is_code))


@RULES.rule("add", "sub", "add_any")
def _add(equation: LabelledEquation) -> list[Label]:
    left, right = equation.ins
    if left.leaf is not None and not right.is_data and right.leaf is None:
        return [left]
    if right.leaf is not None and not left.is_data and left.leaf is None:
        return [right]
    return [_sum(equation, left, right) if left.is_data and right.is_data else merged(equation.ins)]


def _sum(equation: LabelledEquation, left: Label, right: Label) -> Label:
    """The label of a sum of two values that depend on the inputs: the end of a residual branch, or several products made one.

    A branch ends where its product is added to a stream that has nothing pending, or only sites that come before it.
    """
    for stream, branch in ((left, right), (right, left)):
        if (stream.over | stream.after) & branch.pending and not stream.pending:
            return merged(equation.ins)
        if branch.pending and not stream.pending:
            equation.reading.note(branch.pending, "residual")
            return replace(merged(equation.ins), pending=NONE, after=NONE)
        if branch.pending and stream.pending and stream.pending <= _above(equation, branch.pending):
            equation.reading.note(branch.pending, "residual")
            return replace(merged(equation.ins), pending=stream.pending, after=NONE)
    equation.reading.note(left.pending ^ right.pending, "sum")
    return merged(equation.ins)


def _above(equation: LabelledEquation, keys: Keys) -> Keys:
    """Every site that one of these depends on."""
    return union(equation.reading.sites[key].upstream for key in keys)


@RULES.rule("mul", "div")
def _multiply(equation: LabelledEquation) -> list[Label]:
    left, right = equation.ins
    for label, factor in ((left, right), (right, left)):
        if label.leaf is not None and not factor.is_data:
            if factor.constant is None:
                return [replace(label, is_changed=True)]
            number = 1 / factor.constant if equation.name == "div" and factor is right and factor.constant else factor.constant
            return [replace(label, factor=label.factor * number)]
        if label.is_data and not factor.is_data:
            return [replace(label, constant=None)]
    return [_product(equation, left, right) if left.is_data and right.is_data else merged(equation.ins)]


def _product(equation: LabelledEquation, left: Label, right: Label) -> Label:
    """The label of a product of two values that depend on the inputs: a normalisation, a gate, a square."""
    for label, factor in ((left, right), (right, left)):
        if label.pending and factor.over & label.pending and not factor.pending:
            equation.reading.note(label.pending, "norm")
            return replace(merged(equation.ins), pending=NONE, after=NONE, over=NONE, normed=label.pending)
        if label.pending and factor.after & label.pending:
            equation.reading.note(label.pending, "selfgate")
            return replace(merged(equation.ins), pending=NONE, after=label.pending | factor.after)
    if left.pending and left.pending == right.pending:
        equation.reading.note(left.pending, "square")
        return replace(merged(equation.ins), pending=NONE, after=left.after | left.pending)
    if left.over or right.over:
        return replace(merged(equation.ins), pending=NONE, over=NONE)
    equation.reading.note(left.pending | right.pending, "gate")
    return replace(merged(equation.ins), pending=NONE, after=NONE)


@RULES.rule("max", "min")
def _most(equation: LabelledEquation) -> list[Label]:
    left, right = equation.ins
    if left.over or right.over:
        return [merged(equation.ins)]
    if left.pending and left.pending == right.pending:
        return activated(equation, "leaky_relu")
    has_zero = any(label.constant == 0 for label in equation.ins)
    return activated(equation, "relu" if equation.name == "max" and has_zero else "other")


@RULES.rule("select_n")
def _select(equation: LabelledEquation) -> list[Label]:
    which, *cases = equation.ins
    pending = union(case.pending for case in cases)
    if not which.compared & pending:
        return [replace(merged(cases), upstream=merged(equation.ins).upstream)]
    has_zero = any(case.constant == 0 for case in cases)
    return activated(equation, "relu" if has_zero else "leaky_relu")


@RULES.rule("reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "argmax", "argmin", "reduce_and", "reduce_or")
def _reduce(equation: LabelledEquation) -> list[Label]:
    seen = merged(equation.ins)
    # Sums are linear, as in a mean over positions, and a statistic as well.
    linear = equation.name == "reduce_sum"
    return equation.outs(
        replace(seen, over=seen.over | seen.pending | seen.after, pending=seen.pending if linear else NONE, leaf=None, atoms=None)
    )


@RULES.rule("sqrt", "rsqrt")
def _root(equation: LabelledEquation) -> list[Label]:
    equation.reading.normalises |= merged(equation.ins).is_data
    return _power(equation)


@RULES.rule("log")
def _log(equation: LabelledEquation) -> list[Label]:
    equation.reading.has_logarithm = True
    return _power(equation)


@RULES.rule("integer_pow", "square", "pow", "cbrt", "abs")
def _power(equation: LabelledEquation) -> list[Label]:
    seen = merged(equation.ins)
    # Powers may be on the way to a variance or to gelu's cube: the equations that follow show which.
    equation.reading.note(seen.pending, "square")
    return equation.outs(replace(seen, pending=NONE, after=seen.after | seen.pending) if not seen.over else replace(seen, pending=NONE))


@RULES.rule("tanh")
def _tanh(equation: LabelledEquation) -> list[Label]:
    seen = merged(equation.ins)
    return activated(equation, "tanh") if seen.pending else equation.outs(seen)


@RULES.rule("logistic")
def _logistic(equation: LabelledEquation) -> list[Label]:
    return activated(equation, "sigmoid")


@RULES.rule("erf", "erfc")
def _erf(equation: LabelledEquation) -> list[Label]:
    return activated(equation, "gelu")


@RULES.rule("sin", "cos")
def _sine(equation: LabelledEquation) -> list[Label]:
    return activated(equation, "sin")


@RULES.rule("exp", "exp2")
def _exponential(equation: LabelledEquation) -> list[Label]:
    return activated(equation, "softmax" if equation.ins[0].over else "other")


@RULES.rule("expm1")
def _expm1(equation: LabelledEquation) -> list[Label]:
    return activated(equation, "elu")


@RULES.rule("log1p")
def _log1p(equation: LabelledEquation) -> list[Label]:
    equation.reading.has_logarithm = True
    return activated(equation, "softplus")


@RULES.rule("dot_general")
def _dot(equation: LabelledEquation) -> list[Label]:
    (contracted, batch) = equation.eqn.params["dimension_numbers"]
    for operand in (1, 0):
        weight, other = equation.ins[operand], equation.ins[1 - operand]
        if weight.leaf is not None and weight.atoms is not None and other.is_data:
            free = [axis for axis in range(len(weight.atoms)) if axis not in contracted[operand] and axis not in batch[operand]]
            return [_site(equation, weight, 1 - operand, contracted[operand], free, (), _units(equation, operand, free))]
    left, right = equation.ins
    if left.is_data and right.is_data:
        equation.reading.note(left.pending | right.pending, "attention")
        return [replace(merged(equation.ins), pending=NONE, after=NONE, over=NONE)]
    out = merged(equation.ins)
    return [replace(out, pending=NONE, after=out.after | out.pending)]


def _units(equation: LabelledEquation, operand: int, free: Sequence[int]) -> int | None:
    """The axis of the product along which a kernel's outputs lie: batch axes come first, then the left's, then the right's.

    None where the kernel has not exactly one axis of outputs.
    """
    (contracted, batch) = equation.eqn.params["dimension_numbers"]
    if len(free) != 1:
        return None
    before = 0 if operand == 0 else len(equation.shape(0)) - len(contracted[0]) - len(batch[0])
    return len(batch[0]) + before


@RULES.rule("conv_general_dilated")
def _convolution(equation: LabelledEquation) -> list[Label]:
    signal, weight = equation.ins
    if weight.leaf is None or weight.atoms is None or not signal.is_data:
        equation.reading.note(signal.pending | weight.pending, "other")
        return [replace(merged(equation.ins), pending=NONE)]
    numbers = equation.eqn.params["dimension_numbers"]
    outside, inside, *window = numbers.rhs_spec
    return [_site(equation, weight, 0, (inside, *window), (outside, *window), window, numbers.out_spec[1])]


def _site(
    equation: LabelledEquation,
    weight: Label,
    signal: int,
    contracted: Sequence[int],
    free: Sequence[int],
    window: Sequence[int],
    units: int | None,
) -> Label:
    """The label of a kernel's product. Its site is entered in the reading; what feeds one that is there already is added to it."""
    assert weight.leaf is not None
    other = equation.ins[signal]
    if other.is_one_hot and not other.pending:
        equation.reading.looked_up.add(weight.leaf)
    equation.reading.note(other.pending, "kernel")
    site = equation.reading.sites.get(equation.key)
    if site is None:
        site = equation.reading.sites[equation.key] = Site(
            key=equation.key,
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
    # Loops are walked twice, and the second round may show more that feeds the site.
    site.fed_by |= (other.after | other.pending) - {equation.key}
    site.upstream |= other.upstream
    key = frozenset({equation.key})
    return Label(is_data=True, pending=key, upstream=other.upstream | key)
