"""Training of heads (on latents) and judges (on pictures): labels, fits, calibration, reports, and imports of heads."""
