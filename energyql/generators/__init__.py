"""Generators: their interface and class labels, StyleGAN2 and StyleGAN3, and readers of other programs' checkpoints."""
