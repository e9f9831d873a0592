"""A query's circuit and the attribute heads, joined to one differentiable energy of the latent."""
