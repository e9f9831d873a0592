"""Tensor kernels that know no query: packed linear layers, pullbacks, the normal distribution, random numbers."""
