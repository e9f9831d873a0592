"""Logic of queries, without torch: decision diagrams, circuits, contradictions, and which samples satisfy a query."""
