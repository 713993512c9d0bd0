"""The settings of a race, and its entrants as users spell them: `mlp`, `FILE.py`, `mlp:init=he-wrong,lr=0.01`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nandetect.errors import UsageError
from nandetect.train.settings import TrainSettings

# Seeds beyond which the exact test would take too long; fewer than six cannot give a p value below 0.05.
MOST_SEEDS = 32

# Settings of an entrant that does not give its own. On 40 digits they show what an initial scale is worth: with standardised pixels, He's
# scale gets all of them right in epoch 9 to 14, half of it in 33 to 41, and both reach loss 0.000 (8 seeds). On raw pixels, or with Adam,
# which rescales the gradient, a wrong initial scale is soon made up for.
DEFAULTS = {"optimizer": "momentum", "lr": 0.05}


@dataclass(frozen=True, slots=True, kw_only=True)
class RaceSettings:
    """The settings of a race. `target` is the share of training samples to get right; `time_limit`, in seconds, is for the whole race."""

    entrants: tuple[str, ...]
    data: str = "digits"
    samples: int = 40
    inputs: str = "standard"
    seeds: int = 8
    time_limit: float = 30.0
    target: float = 1.0

    def __post_init__(self) -> None:
        """Raises `UsageError` for settings that no race can be made of."""
        if len(self.entrants) < 2:
            raise UsageError("a race needs two entrants or more: nandetect race mlp:init=he mlp:init=he-wrong")
        if not 1 <= self.seeds <= MOST_SEEDS:
            raise UsageError(f"--seeds {self.seeds}: give 1 to {MOST_SEEDS}")
        if self.samples < 1:
            raise UsageError(f"--samples {self.samples}: give 1 or more")
        if not (math.isfinite(self.time_limit) and self.time_limit > 0):
            raise UsageError(f"--time-limit {self.time_limit:g}s: give a time above 0")
        if not 0 < self.target <= 1:
            raise UsageError(f"--target {self.target * 100:.4g}%: give an accuracy above 0% and up to 100%")


@dataclass(frozen=True, slots=True)
class Entrant:
    """A name, and what it trains with: settings of `nandetect train`, all but the seed."""

    name: str
    training: dict[str, Any]

    def with_seed(self, seed: int) -> TrainSettings:
        """The training of one seed; the parameters, the samples and the order of batches follow from it."""
        try:
            return TrainSettings(**self.training, seed=seed)
        except UsageError as error:
            raise UsageError(f"{self.name}: {str(error).removeprefix('--')}") from error


def entrants(settings: RaceSettings) -> tuple[Entrant, ...]:
    """The entrants, named as they were spelled; later ones of the same spelling get a number."""
    common: dict[str, Any] = {**DEFAULTS, "data": settings.data, "samples": settings.samples, "inputs": settings.inputs}
    racing: list[Entrant] = []
    for position, spelling in enumerate(settings.entrants):
        number = settings.entrants[: position + 1].count(spelling)
        racing.append(Entrant(spelling if number == 1 else f"{spelling} ({number})", {**common, **_training(spelling)}))
    return tuple(racing)


def _training(spelling: str) -> dict[str, Any]:
    """The settings of a training from `FILE.py:key=value,key=value`."""
    model, colon, listed = spelling.partition(":")
    if not model or (colon and not listed):
        raise UsageError(f"{spelling!r} is no entrant: write FILE.py, mlp, or mlp:key=value,key=value")
    training: dict[str, Any] = {"model": model}
    for pair in listed.split(",") if listed else []:
        key, equals, text = pair.partition("=")
        if not equals or not text:
            raise UsageError(f"{spelling}: {pair!r} is no setting; write key=value, and widths as hidden=128x40")
        if key not in _VALUES:
            raise UsageError(f"{spelling}: there is no setting {key}; there are {', '.join(_VALUES)}")
        name = key.replace("-", "_")
        if name in training:
            raise UsageError(f"{spelling}: {key} is given twice")
        try:
            training[name] = _VALUES[key](text)
        except UsageError as error:
            raise UsageError(f"{spelling}: {error}") from error
        except ValueError as error:
            raise UsageError(f"{spelling}: {key}={text} cannot be read; {_EXAMPLES.get(key, 'give a number')}") from error
    return training


def _yes_or_no(text: str) -> bool:
    if text not in ("yes", "no"):
        raise ValueError(text)
    return text == "yes"


def _widths(text: str) -> tuple[int, ...]:
    return tuple(int(width) for width in text.split("x"))


def _dtype(text: str) -> str:
    if text == "float64":
        raise UsageError("a race is run in 32 bits; give float32, bfloat16 or float16")
    return text


_VALUES: dict[str, Callable[[str], object]] = {
    "init": str,
    "loss": str,
    "lr": float,
    "optimizer": str,
    "hidden": _widths,
    "dtype": _dtype,
    "jit": _yes_or_no,
    "batch-size": int,
    "inputs": str,
}
_EXAMPLES = {"hidden": "give widths with x between, hidden=128x40", "jit": "give yes or no"}
