"""Packages are found, not listed; `energyql.grammar` is the folder `grammar/` beside the package (see setup.cfg)."""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["energyql*"]), "energyql.grammar"])
