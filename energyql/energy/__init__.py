"""The energy of a query as a differentiable function of a latent, computed from predictions of attributes."""
