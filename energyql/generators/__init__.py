"""Generators of pictures: their interface, the architectures in this library, and readers of files of other programs.

A reader makes a generator of this library from a checkpoint, a file of weights that another program saved.
"""
