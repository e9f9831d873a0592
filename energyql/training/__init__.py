"""Training of attribute heads: labels, fitting, calibration, report, and import of heads from other programs."""
