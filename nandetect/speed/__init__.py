"""Where a training loop loses its time: not jitted, compiled again and again, float64 by accident, trips to the host, no donation."""
