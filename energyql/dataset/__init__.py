"""Labelled data sets of any size, in shards (tar archives), each of which can be drawn again without the others."""

from energyql.dataset.plan import DatasetClass, DatasetPlan

__all__ = ["DatasetClass", "DatasetPlan"]
