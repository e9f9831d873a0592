"""The energy of a query as a differentiable function of the latent: a rule, evaluated on attribute heads."""
