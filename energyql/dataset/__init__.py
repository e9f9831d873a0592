"""Labelled data sets of any size, in shards, each of which can be drawn again alone."""

from energyql.dataset.plan import DatasetClass, DatasetPlan

__all__ = ["DatasetClass", "DatasetPlan"]
