"""The recipe of the packaged model `postcards`."""
