"""Sequences constructed from real frames, with exact ground truth."""
