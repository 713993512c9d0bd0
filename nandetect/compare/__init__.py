"""Two losses held against the truth: which is right, where, by how much, and what it costs."""

from nandetect.compare.compare import CompareSettings, compare
from nandetect.compare.results import Comparison

__all__ = ["CompareSettings", "Comparison", "compare"]
