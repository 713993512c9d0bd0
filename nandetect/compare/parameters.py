"""What two losses are called with: what the name of a parameter says of its role, and the parameters of one call together."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

Role = Literal["swept", "real", "positive", "labels", "counts", "fixed"]
LABELS = ("onehot", "classes", "real", "none")

# Words of a parameter's name that tell its role.
_LABEL_WORDS = frozenset(
    {"label", "labels", "target", "targets", "y", "ys", "onehot", "hot", "true", "truth", "gt", "class", "classes", "idx", "index", "t"}
)
_CLASS_WORDS = frozenset({"class", "classes", "idx", "index", "ids", "int"})
_COUNT_WORDS = frozenset({"count", "counts", "k", "n", "events"})
_REAL_WORDS = frozenset({"logits", "logit", "log", "pred"})
POSITIVE = frozenset(
    {
        *("sigma", "std", "stddev", "scale", "var", "variance", "rate", "rates", "lam"),
        *("temperature", "tau", "weight", "weights", "beta"),
    }
)
# Words for the square of a spread; words for a spread or its square.
SQUARED = frozenset({"var", "variance", "variances", "precision"})
SPREADS = SQUARED | {"sigma", "sigmas", "std", "stddev", "scale", "sd"}


def words_of(name: str) -> set[str]:
    """The words of a parameter's name."""
    lower = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
    for joined, apart in (("logvar", "log_var"), ("logsigma", "log_sigma"), ("logstd", "log_std")):
        lower = lower.replace(joined, apart)
    return set(re.split(r"[_\d]+", lower))


@dataclass(frozen=True, slots=True)
class Scene:
    """The parameters in order, with role and shape; `given` holds the arrays of an archive. `labels` is the kind that was settled on."""

    names: tuple[str, ...]
    roles: tuple[Role, ...]
    shapes: tuple[tuple[int, ...], ...]
    labels: str
    classes: int
    given: tuple[np.ndarray, ...] | None = None

    @property
    def movable(self) -> tuple[int, ...]:
        """The arguments that may be any numbers, so that their own rounding counts: not labels of zeros and ones."""
        movable = ("swept", "real", "labels") if self.labels == "real" else ("swept", "real")
        return tuple(position for position, role in enumerate(self.roles) if role in movable)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the swept array."""
        return self.shapes[0]

    @property
    def size(self) -> int:
        """How many numbers the swept array holds."""
        return math.prod(self.shape)

    def cast(self, args: Sequence[np.ndarray], dtype: np.dtype) -> list[np.ndarray]:
        """Arguments as arrays of the dtype; whole numbers stay so."""
        return [_cast(np.asarray(arg), dtype) for arg in args]

    def reshaped(self, shape: tuple[int, ...]) -> Scene:
        """The same with another shape of the swept array, and of all that goes with it."""
        return replace(self, shapes=tuple(_beside(old, self.shape, shape) for old in self.shapes))


def _cast(arg: np.ndarray, dtype: np.dtype) -> np.ndarray:
    return arg if arg.dtype.kind in "iub" else np.asarray(arg, np.float64).astype(dtype)


def _beside(old: tuple[int, ...], before: tuple[int, ...], after: tuple[int, ...]) -> tuple[int, ...]:
    """The new shape of an argument, where the swept array goes from one shape to another."""
    return after if old == before else after[:-1] if old == before[:-1] else old


def roles(names: tuple[str, ...], labels: str | None) -> tuple[Role, ...]:
    """The role of every parameter by its name; with labels asked for and none named so, the last one's is that."""
    found: list[Role] = ["swept", *(_role(name, labels) for name in names[1:])]
    if labels not in (None, "none") and "labels" not in found and len(found) > 1:
        found[-1] = "labels"
    return tuple(found)


def _role(name: str, labels: str | None) -> Role:
    words = words_of(name)
    if words & _REAL_WORDS:
        return "real"
    if words & _COUNT_WORDS and labels is None:
        return "counts"
    if words & _LABEL_WORDS and labels != "none":
        return "labels"
    return "positive" if words & POSITIVE else "real"


def kinds_of_labels(names: tuple[str, ...], others: tuple[str, ...], roles: tuple[Role, ...]) -> list[str]:
    """The kinds of labels to try, the likeliest first; `others` are the second function's names."""
    if "labels" not in roles:
        return ["none"]
    position = roles.index("labels")
    if words_of(f"{names[position]}_{others[position]}") & _CLASS_WORDS:
        return ["classes", "onehot", "real"]
    # Beside more than one prediction, as a mean and a spread, what is predicted is a number.
    return ["real", "onehot", "classes"] if position > 1 else ["onehot", "classes", "real"]
