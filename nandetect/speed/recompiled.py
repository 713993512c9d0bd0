"""From the compilations of one function to what kept it compiling."""

from __future__ import annotations

from dataclasses import replace

from nandetect.speed.compilations import Compilation, Compilations
from nandetect.speed.prices import Reason, Recompiling
from nandetect.speed.signature import Change


def price(seen: Compilations, calls: int, now: float) -> Recompiling | None:
    """What compiling again has cost until `now`; None where it was compiled once at most."""
    if len(seen.all) < 2:
        return None
    first, *again = seen.all
    began = first.ended - first.seconds
    of_seconds = max(now, again[-1].ended) - began
    return Recompiling(
        name=seen.name,
        count=len(seen.all),
        calls=calls,
        seconds=sum(compilation.seconds for compilation in again),
        of_seconds=of_seconds,
        spread=(again[-1].ended - began) / of_seconds,
        reasons=_reasons(again),
        where=seen.called_at,
    )


def _reasons(again: list[Compilation]) -> tuple[Reason, ...]:
    """What changed, the commonest first, with the first example of each."""
    reasons: dict[tuple[str, str], Reason] = {}
    for reason in (reason for compilation in again for reason in _of_one(compilation)):
        key = reason.kind, reason.path
        reasons[key] = replace(reasons[key], count=reasons[key].count + 1) if key in reasons else reason
    return tuple(sorted(reasons.values(), key=lambda reason: -reason.count))


def _of_one(compilation: Compilation) -> list[Reason]:
    """One reason for each kind of change; of many leaves that changed alike (the dtype of all parameters), the first stands for all."""
    if not compilation.changed:
        return [Reason(kind="function" if compilation.new_function else "settings")]
    kinds: dict[str, list[Change]] = {}
    for change in compilation.changed:
        kinds.setdefault(change.kind, []).append(change)
    return [Reason(kind=kind, path=alike[0].path, others=len(alike) - 1, example=str(alike[0])) for kind, alike in kinds.items()]
