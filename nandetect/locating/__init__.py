"""`locate`: from a non-finite result back to the equation that made it, and from there to the report."""

# Their rules enter the table of the way back, in `trail`.
from nandetect.locating import carried, entered

__all__ = ["carried", "entered"]
