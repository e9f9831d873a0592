"""Tests of energyql.sampling, file by file."""
