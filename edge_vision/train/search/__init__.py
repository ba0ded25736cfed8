"""The architecture search."""
