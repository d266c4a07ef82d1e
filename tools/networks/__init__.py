"""Networks of other packages: whether each is searched, and what comes out is what was searched."""
