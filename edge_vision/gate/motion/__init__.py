"""The change between two images of a moving camera."""
