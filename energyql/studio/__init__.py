"""The studio: a web page for asking queries, and the HTTP API behind it. Needs the extra `studio`."""
