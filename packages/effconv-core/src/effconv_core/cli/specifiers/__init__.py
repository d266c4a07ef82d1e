"""What the words MODEL, DATA and --counts of a command line stand for."""
