"""Teaching attributes in a browser: a wall of pictures, readers that learn from each click, and queries on the way."""
