"""Computations on tensors that do not involve queries: layers, derivatives, normal probabilities, random numbers."""

LARGEST = 65504
"""Largest number of float16, the dtype of saved models. Settings must be smaller, so that no number overflows."""
