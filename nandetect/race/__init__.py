"""A fair race between trainings: the same data, seeds and order of batches, turns in small slices, and a test of who was faster."""

from nandetect.race.contest import run
from nandetect.race.settings import RaceSettings

__all__ = ["RaceSettings", "run"]
