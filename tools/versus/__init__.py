"""The search beside other ways to kernel sizes, at equal parameters and equal training."""
