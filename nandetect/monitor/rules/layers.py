"""The roles of the leaves: the kernels in the order of their depth, the bias of each, and how many classes there seem to be."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from nandetect.history import Leaf

# Words in a path that say where a layer stands, at the beginning or at the end, when numbers do not.
_FIRST = re.compile(r"embed|stem|encoder|input|patch|wte|token|cell|rnn|lstm|gru")
_LAST = re.compile(r"head|readout|logits|classif|final|output|lm_head|unembed|(^|[._/])(out|fc|last|proj_out)($|[._/\d])")
_ATTENTION = re.compile(r"qkv|attn|attention|query|(^|[._/])w?_?[qkv](_proj)?($|[._/])")


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelLeaf:
    """A leaf of two axes or more: its index in the pytree's order (`leaf`), that of its bias where it has one, and how wide it is.

    `inputs` is the fan-in; `channels` of them come from the layer before, the rest is a convolution's window. `flipped` where the outputs
    come first, (out, in), as equinox and torch have it.
    """

    leaf: int
    path: str
    bias: int | None
    inputs: int
    outputs: int
    channels: int
    flipped: bool = False


def kernels(leaves: Sequence[Leaf]) -> tuple[KernelLeaf, ...]:
    """All kernels, from the input to the output as far as their paths tell."""
    indices = [index for index, leaf in enumerate(leaves) if sum(size > 1 for size in leaf.shape) > 1]
    pairs = {index: _bias(leaves, index) for index in indices}
    flipped_votes = [
        leaves[bias].shape[0] == leaves[index].shape[0] != leaves[index].shape[-1] for index, bias in pairs.items() if bias is not None
    ]
    straight_votes = [
        leaves[bias].shape[0] == leaves[index].shape[-1] != leaves[index].shape[0] for index, bias in pairs.items() if bias is not None
    ]
    flipped = sum(flipped_votes) > sum(straight_votes)
    kernel_leaves = [_kernel(leaves[index], index, pairs[index], flipped) for index in indices]
    return tuple(sorted(kernel_leaves, key=lambda kernel: depth_key(kernel.path)))


def depth_key(path: str) -> tuple[int, list[tuple[int, str]]]:
    """A sorting key: numbers as numbers, what is called a head or a readout last, an embedding or a stem first."""
    name = path.lower()
    rank = 1 if _LAST.search(name) else -1 if _FIRST.search(name) else 0
    return rank, [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name) if part]


def layer_of(path: str) -> str:
    """The layer that a leaf belongs to: its path without the last name (`dense.kernel`), or its number in a flat dictionary (`w1`)."""
    parent = re.sub(r"(\.[^.\[\]]+|\[\d+\])$", "", path)
    if parent != path:
        return parent
    number = re.search(r"\d+$", path)
    return number.group() if number else ""


def is_recurrent(leaves: Sequence[Leaf], index: int) -> bool:
    """Whether a kernel goes from a width to itself, or to its three or four gates, beside another in one layer: what a cell looks like.
    Attention's kernels do so too, and are told by their names."""
    leaf, layer = leaves[index], layer_of(leaves[index].path)
    beside = [other for other in leaves if len(other.shape) == 2 and layer_of(other.path) == layer]
    if any(_ATTENTION.search(other.path.lower()) for other in beside):
        return False
    return len(leaf.shape) == 2 and len(beside) > 1 and leaf.shape[1] in (leaf.shape[0], 3 * leaf.shape[0], 4 * leaf.shape[0])


def cell_of(leaves: Sequence[Leaf], index: int) -> int | None:
    """The recurrent kernel of a leaf's layer: at every step of the sequence the gradient of the leaf is multiplied by it."""
    layer = layer_of(leaves[index].path)
    recurrent = (other for other, leaf in enumerate(leaves) if layer_of(leaf.path) == layer and is_recurrent(leaves, other))
    return index if is_recurrent(leaves, index) else next(recurrent, None)


def classes(leaves: Sequence[Leaf]) -> tuple[int, ...]:
    """The numbers of classes there may be: widths that a layer puts out and no layer takes in; 2 where such a width is 1."""
    ordered = kernels(leaves)
    if not ordered:
        return ()
    produced, consumed = {kernel.outputs for kernel in ordered}, {kernel.channels for kernel in ordered}
    ends = {ordered[-1].outputs, *(produced - consumed)}
    return tuple(sorted({max(width, 2) for width in ends}))


def _bias(leaves: Sequence[Leaf], index: int) -> int | None:
    """The vector beside a kernel that is as long as its outputs and not the scale of a normalisation; None where two fit, or none."""
    kernel, layer = leaves[index], layer_of(leaves[index].path)
    near = [
        other
        for other, leaf in enumerate(leaves)
        if len(leaf.shape) == 1 and layer_of(leaf.path) == layer and leaf.shape[0] in (kernel.shape[-1], kernel.shape[0])
    ]
    named = [other for other in near if re.search(r"(^|[._/])(b|bias|offset)\d*$|_b\d*$|bias", leaves[other].path.lower())]
    candidates = named or [other for other in near if not re.search(r"scale|gamma|norm", leaves[other].path.lower())]
    return candidates[0] if len(candidates) == 1 else None


def _kernel(leaf: Leaf, index: int, bias: int | None, flipped: bool) -> KernelLeaf:
    outer, rest = (leaf.shape[0], leaf.shape[1:]) if flipped else (leaf.shape[-1], leaf.shape[:-1])
    channels = rest[0] if flipped else rest[-1]
    return KernelLeaf(leaf=index, path=leaf.path, bias=bias, inputs=math.prod(rest), outputs=outer, channels=channels, flipped=flipped)
