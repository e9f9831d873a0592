"""Labels by people for the pictures of a generator: drawing the pictures, choosing some of them, labelling them."""
