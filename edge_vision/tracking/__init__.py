"""Known objects between inferences."""
