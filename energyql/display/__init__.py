"""Drawing with text: markup that is escaped by construction, and graphs as SVG. Knows nothing of queries."""
