"""From a generator without attributes to labels of its pictures: drawing, choosing and labelling them."""
