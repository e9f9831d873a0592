"""Readers of checkpoints, files of weights that other programs saved, for each architecture of generators.

Nothing in a file is executed. Content that is damaged or not supported is a `CheckpointError`.
"""
