"""Readers of checkpoints that other programs wrote, one file for each format. Nothing in a file is executed."""
