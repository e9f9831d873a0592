"""Circuits of sums and log-sum-exps, compiled from the trees of queries, as plain data. Nothing here imports torch."""
