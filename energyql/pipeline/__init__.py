"""Drawing of pictures that satisfy a query: settings, models, compiled queries and results.

Also the energies of a query for the rows of a table of predictions.
"""
