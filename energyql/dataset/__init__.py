"""Labelled data sets of any size, in shards that can be drawn again."""

from energyql.dataset.plan import DatasetClass, DatasetPlan

__all__ = ["DatasetClass", "DatasetPlan"]
