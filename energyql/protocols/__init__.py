"""The experiments of the field as named set-ups, run on any model: what `energyql evaluate` does."""
