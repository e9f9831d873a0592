"""Attribute heads and the image judge: networks, predictions, labels."""
