"""Generators: their interface, the architectures of this library, and readers of checkpoints of other programs."""
