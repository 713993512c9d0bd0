"""Watching the health of a training run: what is measured in the step, read late, and what the series of it say."""
