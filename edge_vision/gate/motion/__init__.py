"""What changed between two images of a moving camera."""
