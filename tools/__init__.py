"""What `hatch run` runs: the only place that knows all four packages."""
