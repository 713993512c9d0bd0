"""A run's record on disk: its series, events and findings in one small SQLite file that can be read while it is written."""

from nandetect.logbook.catalogue import default_directory, find, prune
from nandetect.logbook.reader import Entry, RecordedRun, State, entries, read
from nandetect.logbook.thinning import thin
from nandetect.logbook.writer import ELAPSED, Logbook

__all__ = ["ELAPSED", "Entry", "Logbook", "RecordedRun", "State", "default_directory", "entries", "find", "prune", "read", "thin"]
