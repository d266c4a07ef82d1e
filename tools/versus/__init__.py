"""Comparison of the search with other ways to kernel sizes, at equal parameters and training."""
