"""Which parameters are kernels, how each is used, and what the rest of the model says of it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from nandetect.audit.parameters import Parameter
from nandetect.audit.pattern import Pattern, pattern
from nandetect.audit.reading import Key, Reading, Site
from nandetect.audit.scale import fits
from nandetect.audit.schemes import GPT2, Fans, Follows, Surroundings, is_window, readings
from nandetect.audit.spread import Spread, spread

# The names of last layers, where no program says which one is last.
_LAST = re.compile(r"(head|out|output|logits|readout|classifier|final|policy|value|critic|actor|decoder)", re.IGNORECASE)
# Names of what is rightly zero at the start.
_ZERO = re.compile(r"(lora|adapter|zero|gate|alpha|res(idual)?|modulation|ada)", re.IGNORECASE)
_CELL = re.compile(r"(_ih|_hh|rnn|gru|lstm|recurrent)", re.IGNORECASE)
_KERNEL = re.compile(r"^(kernel|weights?|w\d*|w_\w+|\w+_w)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """A parameter with what its weights show, the fans that it may have, and its surroundings. `sites` are empty without a program.

    `may_be_zero` says that a kernel of zeros is rightly so there: the end of a branch, a last layer, a gate.
    """

    parameter: Parameter
    spread: Spread
    pattern: Pattern
    fans: tuple[Fans, ...]
    around: Surroundings
    sites: tuple[Site, ...] = ()
    may_be_zero: bool = False

    @property
    def is_zero(self) -> bool:
        return self.pattern.constant == 0


def kernels(parameters: Sequence[Parameter], reading: Reading | None) -> list[Kernel]:
    """The kernels among the parameters: with a program, those that it contracts with a signal and does not look up; without, the leaves of
    two axes or more that are neither embeddings nor, by their names, the biases and scales of stacked layers."""
    stacks = {one.shape[0] for one in parameters if len(one.shape) > 2 and not is_window(one.shape, one.stores_outputs_first)}
    found = [kernel for kernel in (_kernel(one, reading, stacks) for one in parameters) if kernel is not None]
    if reading is not None:
        order = {leaf: at for at, leaf in enumerate(dict.fromkeys(site.leaf for site in reading.sites.values()))}
        found.sort(key=lambda kernel: order[kernel.parameter.number])
    blocks = _blocks([parameter for parameter in parameters if len(parameter.shape) > 1])
    zeros = sum(kernel.is_zero for kernel in found)
    small = sum(_is_small_normal(kernel) for kernel in found)
    normalised = reading is not None and reading.normalises
    last = {max(found, key=lambda kernel: _natural(kernel.parameter.path)).parameter.number} if found else set()
    placed = []
    for kernel in found:
        repeated = tuple(sorted({count for pattern_, count in blocks.items() if pattern_.match(kernel.parameter.path)}))
        layers = _stacks([one.parameter for one in found], kernel.parameter)
        around = Surroundings(
            follows=_follows(kernel, reading),
            is_last=len(found) > 1 and _is_last(kernel, reading, last),
            blocks=tuple(sorted({*repeated, *layers})),
            zeros=zeros,
            is_recurrent=bool(_CELL.search(kernel.parameter.path)),
            normalised=normalised,
            small_normals=small,
        )
        placed.append(replace(kernel, around=around, may_be_zero=_may_be_zero(kernel, around, reading)))
    return placed


def _kernel(parameter: Parameter, reading: Reading | None, stacks: set[int]) -> Kernel | None:
    if len(parameter.shape) < 2 or parameter.size < 2:
        return None
    sites = tuple(site for site in reading.sites.values() if site.leaf == parameter.number) if reading else ()
    if reading is not None:
        if not sites or parameter.number in reading.looked_up:
            return None
    elif parameter.is_vector or parameter.is_embedding:
        return None
    weights = parameter.values()
    seen = pattern(weights, parameter.stores_outputs_first)
    if reading is None and seen.constant == 1 and not _KERNEL.match(parameter.name):
        return None
    by_shape = readings(parameter.shape, parameter.stores_outputs_first, parameter.shape[0] in stacks)
    fans = tuple(fan for site in sites for fan in _fans(site, parameter)) or by_shape
    return Kernel(
        parameter=parameter,
        spread=spread(weights),
        pattern=seen,
        fans=tuple(dict.fromkeys(fans)),
        around=Surroundings(),
        sites=sites,
    )


def _follows(kernel: Kernel, reading: Reading | None) -> Follows:
    """What follows a kernel, by the first of its sites that says more than that its product is used."""
    found: list[Follows] = [reading.follows(site) for site in kernel.sites] if reading else []
    telling: list[Follows] = [one for one in found if one not in ("output", "kernel", "other")]
    return (telling or found or [""])[0]


def _fans(site: Site, parameter: Parameter) -> list[Fans]:
    """The fans at a site; where several axes are outputs, some may count members of an ensemble."""
    one = Fans(fan_in=site.fan_in, fan_out=site.fan_out, window=site.window, shape=parameter.shape)
    alone = [replace(one, fan_out=site.window * parameter.shape[axis]) for axis in (-1, -2)] if site.branched else []
    return [one, *alone]


def scaled(kernel: Kernel) -> Spread:
    """The weights as the program uses them: what it multiplies them by belongs to their scale."""
    factor = abs(kernel.sites[0].factor) if kernel.sites else 1.0
    if factor in (0.0, 1.0):
        return kernel.spread
    old = kernel.spread
    return replace(old, second=old.second * factor**2, peak=old.peak * factor, mean=old.mean * factor)


def _is_small_normal(kernel: Kernel) -> bool:
    seen = kernel.spread
    return seen.second > 0 and seen.count >= 256 and fits(seen, GPT2, kernel.fans[0])


def _is_last(kernel: Kernel, reading: Reading | None, last: set[int]) -> bool:
    if reading is not None:
        return any(reading.is_last(site) for site in kernel.sites)
    return kernel.parameter.number in last or bool(_LAST.search(kernel.parameter.path))


def _may_be_zero(kernel: Kernel, around: Surroundings, reading: Reading | None) -> bool:
    if around.blocks or _ZERO.search(kernel.parameter.path):
        return True
    if reading is None:
        return around.is_last
    events = {event for site in kernel.sites for event in site.events}
    if events & {"residual", "sum", "gate", "attention"}:
        return True
    return reading.is_last(kernel.sites[0]) and around.follows not in ("relu", "leaky_relu")


def _blocks(parameters: Sequence[Parameter]) -> dict[re.Pattern[str], int]:
    """Patterns of paths that lie in blocks which repeat and hold two kernels or more each, with how often they repeat."""
    inside: dict[str, Counter[str]] = {}
    for parameter in parameters:
        for number in re.finditer(r"\d+", parameter.path):
            before, after = parameter.path[: number.start()], parameter.path[number.end() :]
            # The number of a layer that is all of the block counts no blocks.
            if re.search(r"[./\[]", after.lstrip("]")):
                inside.setdefault(before, Counter())[number.group()] += 1
    found = {}
    for before, blocks in inside.items():
        if len(blocks) > 1 and min(blocks.values()) > 1:
            found[re.compile(re.escape(before) + r"\d+")] = len(blocks)
    return found


def _stacks(parameters: Sequence[Parameter], this: Parameter) -> set[int]:
    """The length of a leading axis that several kernels of more than two axes share: the layers of a scan."""
    if len(this.shape) < 3 or this.stores_outputs_first:
        return set()
    alike = sum(len(one.shape) >= 3 and one.shape[0] == this.shape[0] for one in parameters)
    return {this.shape[0]} if alike > 1 and 1 < this.shape[0] <= 200 else set()


def _natural(path: str) -> list[tuple[int, int | str]]:
    """A key under which `w10` comes after `w9`."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"(\d+)", path) if part]


def chain(reading: Reading) -> list[list[Key]]:
    """The longest runs of sites each of which is fed by the one before alone, through a nonlinearity or nothing."""
    fed = {key: next(iter(site.fed_by)) for key, site in reading.sites.items() if len(site.fed_by) == 1}
    starts = [key for key in reading.sites if key not in fed or fed[key] == key]
    follows: dict[Key, list[Key]] = {}
    for key, before in fed.items():
        if key != before:
            follows.setdefault(before, []).append(key)
    found = []
    for start in starts:
        run = [start]
        while len(follows.get(run[-1], ())) == 1 and follows[run[-1]][0] not in run:
            run.append(follows[run[-1]][0])
        if len(run) > 1:
            found.append(run)
    return found
