"""From what was measured to what is worth telling: one function for each rule, which returns None where nothing is.

The thresholds are the project's own; a measured gain below a fifth is within what a busy machine shows of two equal programs.
"""

from __future__ import annotations

from nandetect import wording
from nandetect.findings import finding
from nandetect.records import Finding
from nandetect.speed import words
from nandetect.speed.prices import Crossing, Donation, Jitting, Reason, Recompiling, Widening

# A gain is told from this many times as fast on.
GAIN = 1.2
# Fewer operations than the first are no step; beside a step that is compiled, fewer than the second are a loop's bookkeeping.
OPERATIONS, BESIDE = 8, 16
# Compilations of a function that are expected: training and evaluation, each with a smaller last batch.
WARM = 4
# Shares of the time that went into compiling again: below the first it is not told, from the second on it is a warning.
COMPILING, MUCH_COMPILING = 0.01, 0.1
# A gain of fewer seconds a step is not told.
SHORT = 20e-6
# A state smaller than this, in bytes, need not be donated; nor one that is less than this share of what the step keeps alive.
STATE, STATE_SHARE = 1e6, 0.1


def not_jitted(seen: Jitting) -> Finding | None:
    """A step runs operation by operation, and compiled it is more than `GAIN` times as fast."""
    ratio = seen.seconds / seen.jitted_seconds
    gain, beside = seen.seconds - seen.jitted_seconds, seen.of_seconds is not None
    if ratio < GAIN or gain < SHORT or seen.operations < (BESIDE if beside else OPERATIONS):
        return None
    if seen.of_seconds is not None and seen.of_seconds < GAIN * (seen.of_seconds - gain):
        return None
    slow, fast = wording.call_time(seen.seconds), wording.call_time(seen.jitted_seconds)
    if seen.is_function:
        slow, fast = f"{slow} ({wording.pace(seen.seconds)})", f"{fast} ({wording.pace(seen.jitted_seconds)})"
    name = f"`{seen.name}`" if seen.is_function else seen.name
    return finding(
        "not-jitted",
        "note" if beside else "warning",
        f"{name}{words.at(seen.where)} is not jitted: it takes {slow}, compiled it would take {fast}, "
        f"{wording.times_as_fast(ratio)} as fast",
        cause=f"{seen.operations:,} operations are run one by one",
        measured=seen.seconds * 1e3,
        expected=seen.jitted_seconds * 1e3,
        help=f"{seen.name} = jax.jit({seen.name})"
        if seen.is_function
        else "put what a step does into a function of the state and the batch, and before the loop: step = jax.jit(step)",
    )


def recompiling(seen: Recompiling, warm: int = WARM) -> Finding | None:
    """A function is compiled more than `warm` times, which takes a share of the time and has a reason that can be told."""
    share = seen.seconds / max(seen.of_seconds, 1e-9)
    if seen.count <= warm or share < COMPILING or not seen.reasons:
        return None
    # Compilations that all fall at the beginning are a warming up, for as many sizes as there are.
    much = share >= MUCH_COMPILING and seen.spread >= 0.5
    told = "; ".join(map(_reason, seen.reasons[:3])) + words.more(max(len(seen.reasons) - 3, 0))
    first = seen.reasons[0]
    return finding(
        "recompiling",
        "warning" if much else "note",
        f"`{seen.name}` was compiled {seen.count:,} times in {seen.calls:,} calls{words.at(seen.where)}: after the first, that took "
        f"{wording.call_time(seen.seconds)}, {share:.0%} of the time. {told}",
        cause=_cause(first),
        layer=first.path or None,
        measured=seen.count,
        expected=1,
        help=_recompiling_help(first, seen.name),
    )


def _cause(reason: Reason) -> str:
    if reason.kind == "function":
        return "a new function object each time"
    whose = f"of `{reason.path}`" if reason.path else "of the arguments" if reason.kind == "structure" else "of JAX"
    return f"a changing {reason.kind.removesuffix('s')} {whose}"


def _reason(reason: Reason) -> str:
    often = "once" if reason.count == 1 else f"{reason.count:,} times"
    if reason.kind == "function":
        return f"a new function object {often}"
    if reason.kind == "settings":
        return f"no argument changed but a setting of JAX {often}"
    if not reason.path:
        return f"a static field of the arguments, or how they are put together, changed {often}"
    whose = f"`{reason.path}`{words.more(reason.others)} changed {'their' if reason.others else 'its'} {reason.kind}"
    return f"{whose} {often}: {reason.example}"


def _recompiling_help(reason: Reason, name: str) -> str:
    kind, example = reason.kind, reason.example
    root = reason.path.split("[")[0].split(".")[0]
    if kind == "function":
        return f"jit it once, before the loop: step = jax.jit({'step' if name == '<lambda>' else name})"
    if kind == "shape":
        return f"give every call the same shape: drop the last batch, or pad `{root}` to a few fixed sizes and mask what was added"
    if kind == "dtype":
        return f"give it one dtype: {root} = jnp.asarray({root}, jnp.{example.split('[')[0]})"
    if kind == "weak type":
        dtype = example.split("[")[0]
        return f"hand it over in one way, as an array: {root} = jnp.asarray({root}, jnp.{dtype})"
    if kind == "static value" and "function" in example:
        return f"hand over the same function each time: make `{root}` once, before the loop"
    if kind == "static value":
        return f"take `{root}` out of static_argnums and static_argnames, so that its value can change without compiling"
    if kind == "sharding":
        return f"place it in one way before the loop: {root} = jax.device_put({root}, sharding)"
    if kind == "structure":
        return f"give `{root or 'the arguments'}` the same keys, lengths and static fields each time"
    return "set what changes (jax.config, a mesh, a context such as jax.default_matmul_precision) once, before the loop"


def x64(seen: Widening) -> Finding | None:
    """float32 data is widened to float64 on its way, and without that the step is more than `GAIN` times as fast."""
    ratio = seen.seconds / seen.narrow_seconds
    if ratio < GAIN or seen.seconds - seen.narrow_seconds < SHORT:
        return None
    wide, root = "", ""
    if seen.wide:
        root = seen.wide[0].split("[")[0].split(".")[0]
        wide = f", where `{seen.wide[0]}`{words.more(len(seen.wide) - 1)} {'is' if len(seen.wide) == 1 else 'are'} float64"
    return finding(
        "x64",
        "warning",
        f"`{seen.name}` computes in float64 though its data is float32: {seen.what} is widened{words.at(seen.where)}"
        f"{words.more(seen.count - 1)}{wide}. A step takes {wording.call_time(seen.seconds)}, "
        f"and {wording.call_time(seen.narrow_seconds)} without x64, {wording.times_as_fast(ratio)} as fast",
        cause="jax_enable_x64 is on",
        layer=seen.argument,
        measured=seen.seconds * 1e3,
        expected=seen.narrow_seconds * 1e3,
        help=f"leave jax_enable_x64 off, or make `{root}` float32: {root} = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), {root})"
        if root
        else "leave jax_enable_x64 off, or keep to float32: np.float32(...) for what comes from numpy, dtype=jnp.float32 for what is made",
    )


def host_transfer(seen: Crossing) -> Finding | None:
    """A step goes to the host, and without that it is more than `GAIN` times as fast."""
    price = seen.seconds - seen.without_seconds
    ratio = seen.seconds / max(seen.without_seconds, 1e-9)
    if price < SHORT or ratio < GAIN:
        return None
    message, cause, help = _CROSSINGS[seen.kind](seen, wording.call_time(price), wording.call_time(seen.seconds))
    return finding(
        "host-transfer",
        # A batch has to come from the host some time.
        "note" if seen.kind == "upload" else "warning",
        message,
        cause=cause,
        layer=seen.what if seen.kind == "upload" else None,
        measured=seen.seconds * 1e3,
        expected=seen.without_seconds * 1e3,
        help=help,
    )


def _callback(seen: Crossing, price: str, of: str) -> tuple[str, str, str]:
    takes = f", and {seen.others} more, take" if seen.others else " takes"
    return (
        f"`{seen.name}` calls back to the host in every step: `{seen.what}`{words.at(seen.where)}{takes} {price} of {of}",
        "a callback in the step",
        "compute it in the step, with jax.numpy; or once, before the loop, and hand it over"
        if seen.returns
        else "return what is wanted from the step and read it every 100 steps; or call back now and then: lax.cond(step % 100 == 0, ...)",
    )


def _read(seen: Crossing, price: str, of: str) -> tuple[str, str, str]:
    return (
        f"a result of `{seen.name}` is read after every step{words.at(seen.where)}: `{seen.what}` waits for it; read later, "
        f"a step could take up to {price} less, of {of}",
        "the host waits for the device before it goes on",
        "keep the arrays, and read them every 100 steps: losses.append(loss), then np.asarray(jnp.stack(losses))",
    )


def _upload(seen: Crossing, price: str, of: str) -> tuple[str, str, str]:
    root = seen.what.split("[")[0].split(".")[0]
    return (
        f"`{seen.what}`{words.more(seen.others)} of `{seen.name}`, {wording.megabytes(seen.size)}, "
        f"{'go' if seen.others else 'goes'} from numpy to the device in every step: {price} of {of}",
        "a numpy array is handed over",
        f"what does not change is moved once, before the loop: {root} = jax.device_put({root}); else move the next one while a step runs",
    )


_CROSSINGS = {"callback": _callback, "read": _read, "upload": _upload}


def not_donated(seen: Donation) -> Finding | None:
    """A large state is kept beside its successor."""
    saved = seen.memory - seen.donated_memory
    if saved < STATE or saved < STATE_SHARE * seen.memory:
        return None
    names = " and ".join(f"`{name}`" for name in seen.arguments)
    is_faster = seen.seconds / seen.donated_seconds >= GAIN and seen.seconds - seen.donated_seconds >= SHORT
    gain = f", and {wording.call_time(seen.donated_seconds)} a step where it takes {wording.call_time(seen.seconds)}" if is_faster else ""
    positions = seen.positions[0] if len(seen.positions) == 1 else seen.positions
    return finding(
        "not-donated",
        "note",
        f"`{seen.name}` keeps the old {names} beside the new: donated, it would need {wording.megabytes(seen.donated_memory)} "
        f"where it needs {wording.megabytes(seen.memory)}{gain}",
        cause="the state is not donated",
        layer=seen.arguments[0],
        measured=seen.memory / 1e6,
        expected=seen.donated_memory / 1e6,
        help=f"{seen.name} = jax.jit({seen.name}, donate_argnums={positions}), if nothing else uses the old state",
    )
