"""The user's step as JAX traces it: its jaxpr, the pass of each equation, the line that its author wrote it on."""
