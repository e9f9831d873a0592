"""Tensor kernels that know nothing of queries: linear layers, derivatives, the normal distribution, random numbers."""
