"""Lists of runs: what is to be done, who does it, and how it stands."""
