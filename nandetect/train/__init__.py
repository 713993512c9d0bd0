"""Training a small model the way a first attempt does, and saying what came of it."""

from nandetect.train.loop import run
from nandetect.train.optimizers import OPTIMIZERS
from nandetect.train.settings import DTYPES, Reached, Result, Settings, Snapshot, Toll

__all__ = ["DTYPES", "OPTIMIZERS", "Reached", "Result", "Settings", "Snapshot", "Toll", "run"]
