"""Audits, which estimate the true share of pictures that satisfy a query, from verdicts and people's answers."""
