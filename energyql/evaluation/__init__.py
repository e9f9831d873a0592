"""Evaluation of samples and edits by judges, networks that read pictures and are not used to draw or edit them."""
