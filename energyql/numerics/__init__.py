"""Computations on tensors that do not involve queries: layers, derivatives, normal probabilities, random numbers."""

LARGEST = 65504
"""Largest number of float16, the dtype of saved models, and so of numbers in the settings of a model."""
