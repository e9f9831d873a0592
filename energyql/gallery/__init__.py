"""Many queries on one page: each with its pictures, what holds of them, and the circuit that made them."""
