"""From a generator and labels to a model folder: what `energyql train` does."""
