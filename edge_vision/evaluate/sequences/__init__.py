"""Sequences constructed from real frames, with exact ground truth. Part of the source repository only."""
