"""The commands of `hatch run`: the only place that knows all four packages."""
