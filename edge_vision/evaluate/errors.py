"""The error of the evaluation."""

from __future__ import annotations

from edge_vision.errors import EdgeVisionError


class EvaluateError(EdgeVisionError):
    """An evaluation that cannot be done as asked. Ends the command with status 2."""
