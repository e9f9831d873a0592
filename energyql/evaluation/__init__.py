"""Evaluation of samples and edits by judges, networks that are not used to make them."""
