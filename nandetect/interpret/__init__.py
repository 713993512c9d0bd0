"""A jaxpr run equation by equation, and which elements of its values depend on which."""
