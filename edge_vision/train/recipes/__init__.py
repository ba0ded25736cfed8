"""The recipes of `optimize train`."""
