"""Boxes, homographies, rotations and non-maximum suppression."""
