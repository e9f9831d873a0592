"""Audits: a person looks at a few pictures, and the true share of a query is estimated with the help of the judge."""
