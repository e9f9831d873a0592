"""Readers of checkpoints, files of weights that other programs saved, for each architecture of generators.

Nothing in a file is executed.
"""
