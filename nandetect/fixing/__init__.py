"""Fixes for what was located. No JAX here, so that a command can say what it wants before a program imports it."""

from __future__ import annotations

# Whether fixes are looked for at all, and whether they are put into the user's own step and run. The commands have `--no-proof`.
PRESCRIBES = True
PROVES = True
