"""Comparing samplers on a model and queries of one's own: how true, how varied, how expensive."""
