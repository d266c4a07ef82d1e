"""Several processes that make one search."""
