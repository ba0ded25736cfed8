"""The runtimes that can run a graph, one file each, and what they share."""
