"""From a query's tree to a circuit of sums and log-sum-exps, as plain data. Nothing here imports torch."""
