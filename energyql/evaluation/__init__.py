"""Judging results with networks that took no part in making them."""
