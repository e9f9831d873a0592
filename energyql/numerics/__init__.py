"""Tensor kernels that know nothing of queries: linear layers, derivatives, the normal distribution, random numbers."""

LARGEST = 65504
"""Largest number in half precision, in which models are saved; that of a setting, too, so that no tensor overflows."""
