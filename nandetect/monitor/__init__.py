"""The health of a training run: its measures are taken in the step and read some steps later, and rules judge their series."""
