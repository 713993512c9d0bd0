"""One guarded step with the watches of the threads that call it."""

from __future__ import annotations

import threading
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from nandetect.guarding.shared import Shared
from nandetect.guarding.steered import LEAST, SHARE
from nandetect.guarding.tally import Tally
from nandetect.guarding.watch import Watch


@dataclass
class GuardedStep(Shared):
    """What the threads share, their watches, and the tallies of threads that have ended."""

    watches: list[Watch] = field(default_factory=list)
    past: list[Tally] = field(default_factory=list)
    lock: AbstractContextManager[object] = field(default_factory=threading.RLock)

    def joined(self) -> Watch | None:
        """The watch of a thread that calls for the first time; None where making one fails.

        Of threads that have ended, what is left is looked at, and let go.
        """
        try:
            watch = Watch(self)
        except Exception as error:
            self.failed(error)
            return None
        with self.lock:
            ended = [other for other in self.watches if not other.thread.is_alive()]
            self.watches = [*(other for other in self.watches if other not in ended), watch]
            self.threads = len(self.watches)
            self.past += [other.tally for other in ended]
        for other in ended:
            other.look()
        return watch

    def flush(self) -> None:
        """Look at every call not yet looked at, of this thread and of those that have ended. Raises `NonFiniteError` as the step would."""
        thread = threading.current_thread()
        with self.lock:
            watches = [watch for watch in self.watches if watch.thread is thread or not watch.thread.is_alive()]
        for watch in watches:
            watch.look()

    def ask_steered(self) -> None:
        """Warn of calls that a NaN steered though they returned nothing that is not finite, if that takes a small part of the time."""
        for watch in self.watches:
            if watch.steered and not self.findings:
                try:
                    most = max(SHARE * (time.perf_counter() - watch.tally.began), LEAST)
                    finding = watch.steered.finding(self.step, self.compilations, most)
                except Exception as error:
                    self.failed(error)
                    continue
                if finding is not None:
                    self.warn(finding)
