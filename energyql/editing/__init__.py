"""Editing in sequence: each step a query, the rest as it was. Also photographs into latents, filmstrips, animations."""
