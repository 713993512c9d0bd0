"""Which parameters are kernels, how each is used, and what the rest of the model says of it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace

from nandetect.audit.parameters import Parameter
from nandetect.audit.pattern import Pattern, pattern
from nandetect.audit.reading import Key, Reading, Site
from nandetect.audit.scale import fits
from nandetect.audit.schemes import GPT2, Fans, Follows, Surroundings, is_window, readings
from nandetect.audit.weight_statistics import WeightStatistics, weight_statistics

# Names of last layers, for want of a program that shows which one is last.
_LAST = re.compile(r"(head|out|output|logits|readout|classifier|final|policy|value|critic|actor|decoder)", re.IGNORECASE)
# Names of kernels that are rightly zero at the start.
_ZERO = re.compile(r"(lora|adapter|zero|gate|alpha|res(idual)?|modulation|ada)", re.IGNORECASE)
_CELL = re.compile(r"(_ih|_hh|rnn|gru|lstm|recurrent)", re.IGNORECASE)
# The most layers that a scan is taken to have: a longer axis counts something else.
_MOST_LAYERS = 200
_KERNEL = re.compile(r"^(kernel|weights?|w\d*|w_\w+|\w+_w)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class InitialKernel:
    """A parameter that is a kernel, with what its weights show, the fans that it may have, and its surroundings.

    `sites` are empty without a program. `may_be_zero` says that zeros are right there: at the end of a branch, in a last layer, in a gate.
    """

    parameter: Parameter
    statistics: WeightStatistics
    pattern: Pattern
    fans: tuple[Fans, ...]
    around: Surroundings
    sites: tuple[Site, ...] = ()
    may_be_zero: bool = False

    @property
    def is_zero(self) -> bool:
        return self.pattern.constant == 0


def kernels(parameters: Sequence[Parameter], reading: Reading | None) -> list[InitialKernel]:
    """The kernels among the parameters: with a program, those that it contracts with a signal and does not look up; without, the leaves of
    two axes or more that are neither embeddings nor, by their names, the biases and scales of stacked layers."""
    stacks = {parameter.shape[0] for parameter in parameters if _may_be_stack(parameter)}
    alone = [kernel for kernel in (_kernel(parameter, reading, stacks) for parameter in parameters) if kernel is not None]
    if reading is not None:
        order = {leaf: place for place, leaf in enumerate(dict.fromkeys(site.leaf for site in reading.sites.values()))}
        alone.sort(key=lambda kernel: order[kernel.parameter.number])
    model = _model(alone, parameters, reading)
    return [_placed(kernel, model, reading) for kernel in alone]


def _may_be_stack(parameter: Parameter) -> bool:
    """Whether the leading axis may count the layers of a stack: of three axes or more, and not the window of a convolution."""
    return len(parameter.shape) > 2 and not is_window(parameter.shape, parameter.stores_outputs_first)


@dataclass(frozen=True, slots=True)
class _Model:
    """All kernels of a model as parameters, the last of them by name, the repeated blocks (see `_blocks`), and the surroundings that all of
    them share."""

    kernels: Sequence[Parameter]
    last: Parameter | None
    blocks: Mapping[re.Pattern[str], int]
    shared: Surroundings


def _model(kernels: Sequence[InitialKernel], parameters: Sequence[Parameter], reading: Reading | None) -> _Model:
    """What the kernels say of one another."""
    own = [kernel.parameter for kernel in kernels]
    return _Model(
        kernels=own,
        last=max(own, key=lambda parameter: _natural(parameter.path), default=None),
        blocks=_blocks([parameter for parameter in parameters if len(parameter.shape) > 1]),
        shared=Surroundings(
            zeros=sum(kernel.is_zero for kernel in kernels),
            normalised=reading is not None and reading.normalises,
            small_normals=sum(map(_is_small_normal, kernels)),
        ),
    )


def _placed(kernel: InitialKernel, model: _Model, reading: Reading | None) -> InitialKernel:
    """The kernel with its surroundings."""
    path = kernel.parameter.path
    repeated = {count for block, count in model.blocks.items() if block.match(path)}
    around = replace(
        model.shared,
        follows=_follows(kernel, reading),
        is_last=len(model.kernels) > 1 and _is_last(kernel, model.last, reading),
        blocks=tuple(sorted(repeated | _stacks(model.kernels, kernel.parameter))),
        is_recurrent=bool(_CELL.search(path)),
    )
    return replace(kernel, around=around, may_be_zero=_may_be_zero(kernel, around, reading))


def _kernel(parameter: Parameter, reading: Reading | None, stacks: Container[int]) -> InitialKernel | None:
    """The parameter as a kernel without its surroundings; None where it is none."""
    if len(parameter.shape) < 2 or parameter.size < 2:
        return None
    sites = tuple(site for site in reading.sites.values() if site.leaf == parameter.number) if reading else ()
    if reading is not None:
        if not sites or parameter.number in reading.looked_up:
            return None
    elif parameter.is_vector or parameter.is_embedding:
        return None
    weights = parameter.values()
    regular = pattern(weights, parameter.stores_outputs_first)
    if reading is None and regular.constant == 1 and not _KERNEL.match(parameter.name):
        return None
    by_shape = readings(parameter.shape, parameter.stores_outputs_first, parameter.shape[0] in stacks)
    fans = tuple(fan for site in sites for fan in _fans(site, parameter)) or by_shape
    return InitialKernel(
        parameter=parameter,
        statistics=weight_statistics(weights),
        pattern=regular,
        fans=tuple(dict.fromkeys(fans)),
        around=Surroundings(),
        sites=sites,
    )


def _follows(kernel: InitialKernel, reading: Reading | None) -> Follows:
    """What follows a kernel, by the first of its sites that says more than that its product is used."""
    every: list[Follows] = [reading.follows(site) for site in kernel.sites] if reading else []
    telling: list[Follows] = [follows for follows in every if follows not in ("output", "kernel", "other")]
    return (telling or every or [""])[0]


def _fans(site: Site, parameter: Parameter) -> list[Fans]:
    """The fans at a site; where several axes are outputs, some may count members of an ensemble."""
    whole = Fans(fan_in=site.fan_in, fan_out=site.fan_out, window=site.window, shape=parameter.shape)
    members = [replace(whole, fan_out=site.window * parameter.shape[axis]) for axis in (-1, -2)] if site.branched else []
    return [whole, *members]


def scaled(kernel: InitialKernel) -> WeightStatistics:
    """What the weights show as the program uses them: what it multiplies them by belongs to their scale."""
    factor = abs(kernel.sites[0].factor) if kernel.sites else 1.0
    if factor in (0.0, 1.0):
        return kernel.statistics
    old = kernel.statistics
    return replace(old, second=old.second * factor**2, peak=old.peak * factor, mean=old.mean * factor)


def _is_small_normal(kernel: InitialKernel) -> bool:
    """Whether a kernel could have been drawn with GPT-2's standard deviation of 0.02."""
    statistics = kernel.statistics
    return statistics.second > 0 and statistics.count >= 256 and fits(statistics, GPT2, kernel.fans[0])


def _is_last(kernel: InitialKernel, last: Parameter | None, reading: Reading | None) -> bool:
    """Whether no other kernel comes after this one: in the program, else as the paths have it."""
    if reading is not None:
        return any(reading.is_last(site) for site in kernel.sites)
    return kernel.parameter is last or bool(_LAST.search(kernel.parameter.path))


def _may_be_zero(kernel: InitialKernel, around: Surroundings, reading: Reading | None) -> bool:
    if around.blocks or _ZERO.search(kernel.parameter.path):
        return True
    if reading is None:
        return around.is_last
    events = {event for site in kernel.sites for event in site.events}
    if events & {"residual", "sum", "gate", "attention"}:
        return True
    return reading.is_last(kernel.sites[0]) and around.follows not in ("relu", "leaky_relu")


def _blocks(parameters: Sequence[Parameter]) -> dict[re.Pattern[str], int]:
    """How often the blocks of each kind repeat, by a pattern of the paths in them; blocks of a single kernel are left out."""
    inside: dict[str, Counter[str]] = {}
    for parameter in parameters:
        for number in re.finditer(r"\d+", parameter.path):
            before, after = parameter.path[: number.start()], parameter.path[number.end() :]
            # A number counts blocks only where the path goes on below it: else it counts layers.
            if re.search(r"[./\[]", after.lstrip("]")):
                inside.setdefault(before, Counter())[number.group()] += 1
    return {
        re.compile(re.escape(before) + r"\d+"): len(kernels)
        for before, kernels in inside.items()
        if len(kernels) > 1 and min(kernels.values()) > 1
    }


def _stacks(parameters: Sequence[Parameter], kernel: Parameter) -> set[int]:
    """The length of a leading axis that several kernels of more than two axes share: the layers of a scan."""
    if len(kernel.shape) < 3 or kernel.stores_outputs_first:
        return set()
    length = kernel.shape[0]
    sharing = sum(len(other.shape) >= 3 and other.shape[0] == length for other in parameters)
    return {length} if sharing > 1 and 1 < length <= _MOST_LAYERS else set()


def _natural(path: str) -> list[tuple[int, int | str]]:
    """A path as what it is sorted by, so that `w10` comes after `w9`."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"(\d+)", path) if part]


def chains(reading: Reading) -> list[list[Key]]:
    """The longest runs of sites of which each is fed by the one before alone, through a nonlinearity or nothing."""
    fed = {key: next(iter(site.fed_by)) for key, site in reading.sites.items() if len(site.fed_by) == 1}
    starts = [key for key in reading.sites if key not in fed or fed[key] == key]
    follows: dict[Key, list[Key]] = {}
    for key, before in fed.items():
        if key != before:
            follows.setdefault(before, []).append(key)
    runs = []
    for start in starts:
        run = [start]
        while len(follows.get(run[-1], ())) == 1 and follows[run[-1]][0] not in run:
            run.append(follows[run[-1]][0])
        if len(run) > 1:
            runs.append(run)
    return runs
