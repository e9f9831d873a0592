"""Galleries: HTML pages of queries. Each query has its pictures, verdicts of the judge, and its compiled circuit."""
