"""Ways to learn kernel sizes beside each other: at equal parameters, data and epochs."""
