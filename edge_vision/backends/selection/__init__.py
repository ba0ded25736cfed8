"""Which backend runs a graph: the fastest that agrees with the reference, or the next best."""
