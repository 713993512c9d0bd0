"""nandetect inside other tools: pytest and notebooks."""
