"""Errors of collected pictures."""

from __future__ import annotations

from edge_vision.errors import EdgeVisionError


class DatasetError(EdgeVisionError):
    """A folder of pictures, or one of its files, is not as expected."""


class ReviewConflict(DatasetError):
    """Another reviewer has saved the picture meanwhile."""
