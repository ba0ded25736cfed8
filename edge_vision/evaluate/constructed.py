"""Access to the constructed sequences, which only a checkout of the source repository contains."""

from __future__ import annotations

import importlib.util

from edge_vision.evaluate.conditions import Condition
from edge_vision.evaluate.errors import EvaluateError

_PACKAGE = "edge_vision.evaluate.sequences"


def sequences_available() -> bool:
    """Whether this installation contains the constructed sequences."""
    return importlib.util.find_spec(_PACKAGE) is not None


def require_sequences(wanted: str) -> None:
    """Raise EvaluateError unless the constructed sequences are available. wanted: what needs them."""
    if not sequences_available():
        raise EvaluateError(
            f"{wanted}: constructed sequences are part of the source repository, and {_PACKAGE} is not "
            "installed; run from a checkout, or evaluate clips with --video"
        )


def constructed_conditions(split: str = "all") -> list[Condition]:
    """The constructed conditions of a split: "tune", "holdout" or "all". Raises EvaluateError."""
    require_sequences(f"--split {split}")
    from edge_vision.evaluate.sequences import recipes

    return recipes.conditions(split)


def condition_by_name(name: str) -> Condition:
    """A constructed condition by its name; see `recipes.by_name`. Raises EvaluateError."""
    require_sequences(f"'{name}'")
    from edge_vision.evaluate.sequences import recipes

    return recipes.by_name(name)
