"""Boxes, homographies and non-maximum suppression."""
