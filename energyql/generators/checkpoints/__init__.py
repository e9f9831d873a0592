"""Readers of checkpoints, files of weights that other programs saved, for each architecture of generators.

Nothing in a file is executed. Content that is damaged or not supported is a `CheckpointError`. Readers warn by a
`CheckpointWarning` if they assume a setting, or maps of noise or filters, that a file lacks.
"""
