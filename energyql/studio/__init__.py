"""The studio: a web page for queries, and the HTTP API behind it. Needs the extra `studio`."""
