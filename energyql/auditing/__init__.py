"""Audits, which estimate the true share of pictures that satisfy a query.

A person answers for a few of the pictures. The answers correct the verdicts of the judge, a network that reads
pictures.
"""
