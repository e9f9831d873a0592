"""Logic of queries: decision diagrams, circuits made from them, contradictions, and the truth of a query for samples.

Nothing in this package imports torch.
"""
