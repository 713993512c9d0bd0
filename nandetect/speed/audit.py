"""`audit_speed`: a step is called a few times as it is, and in other ways, to measure what of its time it need not take."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import jax
import numpy as np

from nandetect import compat, effects, jitted, nonfinite, widths
from nandetect.annotations import Array, Pytree
from nandetect.errors import UsageError
from nandetect.program.trace import is_compiled, is_jitted
from nandetect.records import Finding
from nandetect.speed import clock, recompiled, rules, static_checks, variants
from nandetect.speed.compilations import Compilations, tell_of
from nandetect.speed.prices import Crossing, Donation, Jitting, Widening
from nandetect.speed.timed_step import TimedStep

# The share of the whole time that measuring one thing may take.
SHARE = 0.25
# Arguments on the host that are smaller than this in all, in bytes, take no time that could be measured.
_UPLOAD = 1 << 16
# The compilations that are expected in the calls of `also`: one for training, and one for a smaller last batch.
_WARM = 2


def audit_speed(
    step: Callable[..., Pytree], *args: Pytree, also: Sequence[tuple[Pytree, ...]] = (), seconds: float = 2.0, **kwargs: Pytree
) -> list[Finding]:
    """What of a step's time or memory is lost by the way it is written, each with its price, measured on these arguments.

    The step, jitted or not, is called with the arguments a few times, and so is what it is compared with: compiled (`not-jitted`), without
    x64 where float32 data is widened (`x64`), without its callbacks and with its numpy arguments on the device (`host-transfer`), with its
    state donated (`not-donated`, by the compiler's own count of bytes). Where `also` gives the positional arguments of further calls, as
    the loop would make them, they are made in order, and what makes the step compile again is told (`recompiling`).

    Compiling aside, it takes about `seconds`. What the step donates is given to it as copies; `jax.debug` prints nothing and an
    `io_callback` is not called, but what a step that is not jitted does in Python is done at each call. `.measured` and `.expected` of the
    findings are milliseconds a step, megabytes (10**6 bytes) for `not-donated`, and compilations for `recompiling`. Nothing is returned for
    what would gain less than a fifth. Raises `UsageError` where the step cannot be traced with the arguments, or has an `io_callback` that
    returns something, so that it cannot be called again.
    """
    if not isinstance(seconds, int | float) or not seconds > 0:
        raise UsageError(f"seconds is a time above 0, not {seconds!r}")
    if not all(isinstance(call, tuple) for call in also):
        raise UsageError("also is a list of the positional arguments of further calls, each a tuple: also=[(params, batch), ...]")
    again = [_recompiling(step, [args, *also], kwargs)] if also else []
    return [finding for finding in [*judge(step, args, kwargs, seconds), *again] if finding]


def judge(
    step: Callable[..., Pytree], args: tuple[Pytree, ...], kwargs: Mapping[str, Pytree], seconds: float, without: Sequence[str] = ()
) -> list[Finding]:
    """The findings of `audit_speed` for one call, save the rules that are left out."""
    with effects.replay_settings(), effects.muted_effects():
        timed = TimedStep(step, args, dict(kwargs))
        if static_checks.needs_host(timed.program.jaxpr):
            raise UsageError(f"{timed.name} needs what its io_callback returns, and so cannot be called again; take that out")
        budget = seconds * SHARE
        tests = {"not-jitted": _not_jitted, "x64": _x64, "host-transfer": _host_transfers, "not-donated": _not_donated}
        return [finding for rule, test in tests.items() if rule not in without for finding in test(timed, budget) if finding]


def _not_jitted(timed: TimedStep, budget: float) -> list[Finding | None]:
    if is_compiled(timed.step):
        return []
    jitted = jax.jit(variants.plain(timed.program))
    seconds, jitted_seconds = clock.in_turns([timed.call, lambda: jitted(*timed.program.args)], budget, timed.prepare)
    price = Jitting(
        name=timed.name,
        operations=static_checks.operations(timed.program.jaxpr),
        seconds=seconds,
        jitted_seconds=jitted_seconds,
        where=timed.where,
        is_function=timed.name.isidentifier(),
    )
    return [rules.not_jitted(price)]


def _x64(timed: TimedStep, budget: float) -> list[Finding | None]:
    is_wide = jax.config.jax_enable_x64  # pyright: ignore[reportAttributeAccessIssue]
    widenings = static_checks.widened(timed.program.jaxpr) if is_wide else []
    # What it would take without x64 cannot be measured where trying it spoils the program.
    if not widenings or static_checks.holds_wide_constants(timed.program.jaxpr, timed.program.consts):
        return []
    inputs = dict(zip(timed.program.jaxpr.invars, timed.program.arguments, strict=True))
    first = next((widening for widening in widenings if widening.where), widenings[0])
    operand = static_checks.narrow_operand(first.eqn)
    argument = inputs.get(operand) if operand is not None else None
    what = f"`{argument or first.code}`" if argument or first.code else "an array"
    wide = tuple(name for var, name in inputs.items() if compat.aval(var).dtype == np.float64)
    price = narrowing(timed, budget)
    return [rules.x64(replace(price, what=what, where=first.where, count=len(widenings), argument=argument, wide=wide))]


def narrowing(timed: TimedStep, budget: float) -> Widening:
    """What a step takes with x64, as it is, and without."""
    leaves, tree = jax.tree.flatten((timed.args, timed.kwargs))
    with widths.single():
        arrays = {
            slot: jax.device_put(variants.narrowed(leaf)) for slot, leaf in enumerate(leaves) if isinstance(leaf, jax.Array | np.ndarray)
        }

    @jax.jit
    def step(arrays: dict[int, Array]) -> list[Array]:
        given = [arrays.get(slot, leaf) for slot, leaf in enumerate(leaves)]
        args, kwargs = jax.tree.unflatten(tree, given)
        out = jax.tree.leaves(timed.step(*args, **kwargs))
        # Arguments that the step changes in place (flax's nnx does) are results too.
        return out + [new for new, old in zip(jax.tree.leaves((args, kwargs)), given, strict=False) if new is not old]

    # A step that is not jitted is measured compiled: what jitting would save is another finding.
    wide = jax.jit(variants.plain(timed.program))
    as_it_is = timed.call if is_compiled(timed.step) else lambda: wide(*timed.program.args)
    seconds, narrow_seconds = clock.in_turns([as_it_is, lambda: step(arrays)], budget, timed.prepare, {1: widths.single})
    return Widening(name=timed.name, what="the data", where=None, count=1, seconds=seconds, narrow_seconds=narrow_seconds)


def _host_transfers(timed: TimedStep, budget: float) -> list[Finding | None]:
    return [*_callbacks(timed, budget), *_uploads(timed, budget)]


def _callbacks(timed: TimedStep, budget: float) -> list[Finding | None]:
    callbacks = static_checks.callbacks(timed.program.jaxpr)
    if not callbacks or not is_compiled(timed.step):
        return []
    quiet = jax.jit(variants.quiet(timed.program))
    calls = [timed.call_and_wait, lambda: quiet(*timed.program.args)]
    seconds, without_seconds = clock.in_turns(calls, budget, timed.prepare)
    first = callbacks[0]
    price = Crossing(
        kind="callback",
        name=timed.name,
        what=first.code or first.eqn.primitive.name,
        seconds=seconds,
        without_seconds=without_seconds,
        where=first.where,
        others=len(callbacks) - 1,
        returns=bool(first.eqn.outvars),
    )
    return [rules.host_transfer(price)]


def _uploads(timed: TimedStep, budget: float) -> list[Finding | None]:
    host = [(name, leaf) for name, leaf in timed.leaves if isinstance(leaf, np.ndarray)]
    size = sum(leaf.nbytes for _, leaf in host)
    if size < _UPLOAD or not is_compiled(timed.step):
        return []
    uploaded = TimedStep(timed.step, *timed.with_leaves(lambda leaf: jax.device_put(leaf) if isinstance(leaf, np.ndarray) else leaf))

    def prepare() -> None:
        timed.prepare()
        uploaded.prepare()

    seconds, without_seconds = clock.in_turns([timed.call, uploaded.call], budget, prepare)
    name = max(host, key=lambda named: named[1].nbytes)[0]
    price = Crossing(
        kind="upload",
        name=timed.name,
        what=name,
        seconds=seconds,
        without_seconds=without_seconds,
        size=size,
        others=len(host) - 1,
    )
    return [rules.host_transfer(price)]


def _not_donated(timed: TimedStep, budget: float) -> list[Finding | None]:
    if not is_jitted(timed.step) or jitted.may_donate(timed.step):
        return []
    groups, program = timed.groups, timed.program
    chosen = [groups[number] for number in static_checks.state(program.jaxpr, [slots for _, _, slots in groups])]
    donated = [slot for _, _, slots in chosen for slot in slots]
    size = sum(program.args[slot].nbytes for slot in donated)
    if size < rules.STATE:
        return []
    flat = variants.plain(program)
    plain, donating = (variants.compiled(jitted, program.args) for jitted in (jax.jit(flat), variants.donating(flat, donated)))
    memory, donated_memory = variants.memory(plain), variants.memory(donating)
    if memory is None or donated_memory is None:
        return []
    copies: list[Array] = []

    def prepare() -> None:
        copies[:] = program.args
        for slot in donated:
            copies[slot] = jax.device_put(program.args[slot], may_alias=False)

    seconds, donated_seconds = clock.in_turns([lambda: plain(*copies), lambda: donating(*copies)], budget, prepare)
    price = Donation(
        name=timed.name,
        arguments=tuple(name for _, name, _ in chosen),
        positions=tuple(number for number, _, _ in chosen),
        size=size,
        memory=memory,
        donated_memory=donated_memory,
        seconds=seconds,
        donated_seconds=donated_seconds,
    )
    return [rules.not_donated(price)]


def _recompiling(step: Callable[..., Pytree], calls: Sequence[tuple[Pytree, ...]], kwargs: dict[str, Pytree]) -> Finding | None:
    """Make the calls of a loop, in order, and see what is compiled."""
    compilations = Compilations(TimedStep(step, calls[0], kwargs).name)
    with effects.replay_settings(), effects.muted_effects():
        for args in calls:
            given, named = jax.tree.map(nonfinite.copied, (args, kwargs))
            jax.block_until_ready(_call(step, given, named, compilations))
    price = recompiled.price(compilations, len(calls), time.perf_counter())
    return rules.recompiling(price, _WARM) if price else None


def _call(step: Callable[..., Pytree], args: tuple[Pytree, ...], kwargs: dict[str, Pytree], compilations: Compilations) -> Pytree:
    """A call of the step; `_compiled` reads these arguments from the frame of this function when something is compiled in it."""
    return step(*args, **kwargs)


def _compiled(called: Mapping[str, Pytree], seconds: float) -> None:
    called["compilations"].enter(called["step"], 0, called["args"], called["kwargs"], seconds)


tell_of(_call.__code__, _compiled)
