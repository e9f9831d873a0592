"""Pictures, charts, graphs and markup for results and pages."""
