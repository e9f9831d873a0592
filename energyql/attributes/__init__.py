"""Attribute heads: what they predict, how they are stored and how they are fitted."""
