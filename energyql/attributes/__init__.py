"""Prediction of attributes: from latents by heads, and from pictures by judges; quality reports; labels of pictures."""
