"""The error of the evaluation."""

from __future__ import annotations

from edge_vision.errors import EdgeVisionError


class EvaluateError(EdgeVisionError):
    """The evaluation cannot run with these arguments. Ends the command with status 2."""
