"""What a program's own loop could do without, measured at the end of it: what the loop does is done again, for some tenths of a second."""

from __future__ import annotations

import jax
import numpy as np

from nandetect import compat, effects
from nandetect.guarding.guarded_step import GuardedStep
from nandetect.guarding.watch import Watch
from nandetect.guarding.working import working
from nandetect.records import Finding
from nandetect.run import unjitted
from nandetect.run.eager import EagerWatch
from nandetect.run.functions import Functions
from nandetect.run.operation_log import OperationLog
from nandetect.speed import audit, rules

# A compiled function is called again at the end where it was called often, and neither a call nor compiling it takes longer, in seconds,
# than this.
_CALLS, _CALLING, _COMPILING = 20, 0.1, 3.0
# The seconds for which it is called, those for which the operations of a loop that is not jitted are run, and the share of the program's
# time that each may take. Most programs' states could be donated: what that would save is asked only where compiling the step twice for
# it stays within that share as well.
_SECONDS, _LOOP_SECONDS = 1.0, 0.3
_SHARE = 0.01


def slow(functions: Functions, eager: EagerWatch, seconds: float) -> list[Finding]:
    """What costs the loop time by the way it is written: a step that is not jitted, a result that is read after every step, and what
    the function that was called most could do without.

    Asked at the end of a program that took so many seconds.
    """
    busiest, calls = functions.busiest()
    read = eager.reads.price(busiest.name, calls) if busiest else None
    findings = [rules.host_transfer(read) if read else None, _not_jitted(eager.log, calls, seconds)]
    function = functions.busiest_of(busiest)
    return [*(finding for finding in findings if finding), *(_of_function(*function, seconds) if function else [])]


def _of_function(shared: GuardedStep, watch: Watch, seconds: float) -> list[Finding]:
    """What a compiled function could do without, seen in its program and measured on the arguments of a call after its last."""
    first = next(iter(shared.compilations.all), None)
    if first is None or watch.tally.calls < _CALLS or first.seconds > _COMPILING or watch.call_seconds > _CALLING:
        return []
    may_ask = 2 * first.seconds + _SECONDS * audit.SHARE <= _SHARE * seconds
    without = ("not-jitted",) if may_ask else ("not-jitted", "not-donated")
    with working, compat.outside_of_traces():
        try:
            args, kwargs = watch.next_call() or ((), {})
            # Batches come from the host in most programs: on the device, they are not told as transfers.
            args, kwargs = jax.tree.map(lambda leaf: jax.device_put(leaf) if isinstance(leaf, np.ndarray) else leaf, (args, kwargs))
            return audit.judge(shared.step, args, kwargs, _SECONDS, without)
        # The step is the user's: that it cannot be called again is no reason to fail where nothing is wrong.
        except Exception:
            return []


def _not_jitted(log: OperationLog, calls: int, seconds: float) -> Finding | None:
    """What a loop whose step is not jitted would gain by it."""
    with working, compat.outside_of_traces():
        try:
            with effects.replay_settings(), effects.muted_effects():
                price = unjitted.price(log, calls, min(_LOOP_SECONDS, _SHARE * seconds), 2 * _SHARE * seconds)
        # The operations are the user's: that they cannot be run again is no reason to fail where nothing is wrong.
        except Exception:
            return None
    return rules.not_jitted(price) if price else None
