"""Generators: latents in, pictures out."""
