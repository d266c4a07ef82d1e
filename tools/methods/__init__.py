"""Comparison of ways to learn kernel sizes at equal parameters, data and epochs."""
