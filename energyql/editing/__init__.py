"""Editing of pictures in steps, one query each; inversion of photographs; filmstrips and animations."""
