"""Readers of other people's checkpoints, one file a format. None of them runs anything that a file holds."""
