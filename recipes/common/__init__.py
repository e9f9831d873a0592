"""What the recipes of the packaged models share: from the factors of a drawing to a model folder."""
