"""Pictures, markup and graphs: what results and pages are drawn with."""
