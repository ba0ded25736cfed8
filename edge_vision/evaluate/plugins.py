"""Third-party gates and metrics, named as "module:Class"."""

from __future__ import annotations

import importlib
from typing import Any

from edge_vision.evaluate.errors import EvaluateError


def load_attribute(path: str, kind: str) -> Any:
    """The attribute at a "module:Class" path. kind: for the message. Raises EvaluateError."""
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute:
        raise EvaluateError(
            f"expected a {kind} as module:Class, such as my_package.my_{kind}:Mine, got '{path}'"
        )
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except Exception as error:  # Third-party code may raise anything.
        raise EvaluateError(
            f"{kind} '{path}' cannot be imported: {type(error).__name__}: {error}; is it on PYTHONPATH?"
        ) from error
