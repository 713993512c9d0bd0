"""The patterns of hazards, by the primitive of the operation that another form stands in for."""
