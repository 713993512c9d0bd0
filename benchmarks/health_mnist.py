"""The healthy MLP on all digits and on 8,000 MNIST images, and an MLP that is stuck at 37.5 % there, by the likely causes."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import optax
from health_models import SIGMOID, TANH, digits, mlp, mnist
from health_runs import Case

_SIZES, _DIGITS = (784, 128, 40, 10), (64, 128, 40, 10)
sgd, momentum, adam = optax.sgd, partial(optax.sgd, momentum=0.9), optax.adam


def cases(folder: Path) -> list[Case]:
    """`folder` holds MNIST's 10,000 test images as IDX files, of which 8,000 are trained on."""
    raw, unit = partial(mnist, folder, "raw"), partial(mnist, folder, "unit")
    standard, shuffled = partial(mnist, folder), partial(mnist, folder, shuffled=True)

    def sick(name: str, rules: str, *args: object, **kw: object) -> Case:
        return Case(f"mnist-{name}", *args, expected=frozenset(rules.split()), fault=name, batch=40, **kw)  # pyright: ignore

    return [
        Case("digits-healthy-adam", partial(mlp, _DIGITS), digits, partial(adam, 1e-3), steps=1500, batch=40, seed=301),
        Case("digits-healthy-momentum", partial(mlp, _DIGITS), digits, partial(momentum, 0.05), steps=1500, batch=40, seed=302),
        Case("mnist-healthy-adam", partial(mlp, _SIZES), standard, partial(adam, 1e-3), steps=2000, batch=40, seed=303),
        Case("mnist-healthy-sgd", partial(mlp, _SIZES), unit, partial(sgd, 0.1), steps=2000, batch=40, seed=304),
        sick("raw-sigmoid", "inputs-unscaled saturated-units", partial(mlp, _SIZES, SIGMOID, "glorot"), raw, partial(sgd, 0.1), seed=311),
        sick("raw-relu", "inputs-unscaled", partial(mlp, _SIZES), raw, partial(sgd, 0.1), seed=312),
        sick("raw-adam", "inputs-unscaled", partial(mlp, _SIZES, scheme="he-wrong"), raw, partial(adam, 4e-3), seed=313),
        sick("unit-init", "init-scale exploding-gradient", partial(mlp, _SIZES, scheme="unit"), unit, partial(sgd, 0.1), seed=314),
        sick("unit-init-sigmoid", "init-scale saturated-units", partial(mlp, _SIZES, SIGMOID, "unit"), unit, partial(sgd, 0.1), seed=315),
        sick(
            "tiny-init",
            "init-scale vanishing-gradient",
            partial(mlp, (784, 128, 128, 40, 10), scheme="tiny"),
            unit,
            partial(sgd, 0.1),
            seed=316,
        ),
        sick("zero-init", "init-symmetry", partial(mlp, _SIZES, scheme="zeros"), unit, partial(sgd, 0.1), seed=317),
        sick("rate-high-sgd", "learning-rate-high", partial(mlp, _SIZES), unit, partial(sgd, 10.0), seed=318),
        sick("rate-high-adam", "learning-rate-high", partial(mlp, _SIZES), standard, partial(adam, 0.1), seed=319),
        sick("rate-low-sgd", "learning-rate-low", partial(mlp, _SIZES), unit, partial(sgd, 1e-5), seed=320),
        sick("rate-low-adam", "learning-rate-low", partial(mlp, _SIZES), standard, partial(adam, 1e-7), seed=321),
        sick("dead-bias", "dead-units", partial(mlp, _SIZES, bias=-8.0), unit, partial(sgd, 0.1), seed=322),
        sick(
            "sigmoid-depth",
            "vanishing-gradient",
            partial(mlp, (784, *[64] * 6, 10), SIGMOID, "glorot"),
            standard,
            partial(sgd, 0.1),
            seed=323,
        ),
        sick("tanh-unit-init", "init-scale saturated-units", partial(mlp, _SIZES, TANH, "unit"), standard, partial(sgd, 0.05), seed=324),
        sick("shuffled", "loss-at-chance", partial(mlp, _SIZES), shuffled, partial(adam, 1e-3), seed=325),
        sick("detached", "frozen-parameters", partial(mlp, _SIZES, detach=2), unit, partial(sgd, 0.1), seed=326),
    ]
