"""The exact values of a traced function, in ball arithmetic, which bounds its own error."""

from nandetect.truth.differences import derivative_at, gradient
from nandetect.truth.formula import Exact, of
from nandetect.truth.values import Values

__all__ = ["Exact", "Values", "derivative_at", "gradient", "of"]
