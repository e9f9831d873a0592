"""Pictures, charts, graphs and markup (HTML, SVG, Markdown) for results and pages."""
