"""Training a small model the way a first attempt does, and saying what came of it."""
