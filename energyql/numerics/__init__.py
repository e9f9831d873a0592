"""Computations on tensors, independent of queries: linear layers, derivatives, normal probabilities, random numbers."""

LARGEST = 65504
"""Largest number in half precision, in which models are saved; settings stay below it, so that no tensor overflows."""
