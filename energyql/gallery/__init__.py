"""Galleries: web pages of queries, each with its pictures, the judge's verdicts, and its compiled circuit."""
