"""`locate`: from a non-finite result back to the equation that made it, and from there to the report."""
