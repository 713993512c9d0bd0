"""The parameters of two losses: the role that the name of each suggests, and the scene, all parameters of one call together."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

Role = Literal["swept", "real", "positive", "labels", "counts", "fixed"]
LABELS = ("onehot", "classes", "real", "none")

# Words in a parameter's name that tell its role.
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
    """The parameters in order, with role and shape. `labels` is the kind of labels; `given` holds an archive's arrays, if there is one."""

    names: tuple[str, ...]
    roles: tuple[Role, ...]
    shapes: tuple[tuple[int, ...], ...]
    labels: str
    classes: int
    given: tuple[np.ndarray, ...] | None = None

    @property
    def movable(self) -> tuple[int, ...]:
        """The positions of arguments that may be any numbers, so that their rounding counts: not those of labels of zeros and ones."""
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
        """Arguments as arrays of the dtype; integers and booleans keep theirs."""
        return [_cast(np.asarray(arg), dtype) for arg in args]

    def reshaped(self, shape: tuple[int, ...]) -> Scene:
        """The scene with another shape of the swept array, and of the arguments that are shaped after it."""
        return replace(self, shapes=tuple(_beside(old, self.shape, shape) for old in self.shapes))


def _cast(arg: np.ndarray, dtype: np.dtype) -> np.ndarray:
    return arg if arg.dtype.kind in "iub" else np.asarray(arg, np.float64).astype(dtype)


def _beside(old: tuple[int, ...], before: tuple[int, ...], after: tuple[int, ...]) -> tuple[int, ...]:
    """The new shape of an argument, where the swept array goes from one shape to another."""
    return after if old == before else after[:-1] if old == before[:-1] else old


def roles(names: tuple[str, ...], labels: str | None) -> tuple[Role, ...]:
    """The role of every parameter by its name. Where labels are asked for and no name suggests them, the last parameter holds them."""
    named_roles: list[Role] = ["swept", *(_role(name, labels) for name in names[1:])]
    if labels not in (None, "none") and "labels" not in named_roles and len(named_roles) > 1:
        named_roles[-1] = "labels"
    return tuple(named_roles)


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
    # Labels after more than one prediction, such as a mean and a spread, are numbers.
    return ["real", "onehot", "classes"] if position > 1 else ["onehot", "classes", "real"]
