"""Runs a recipe by its name; PyTorch is imported only then."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_vision.train.recipes.training_run import TrainingReport, TrainingRequest

_MODULES = {
    "qat": "recipes.qat",
    "prune": "recipes.prune_run",
    "student": "recipes.student_run",
    "search": "search.search_run",
}


def run_recipe(
    folder: Path, request: TrainingRequest, log: Callable[[str], None], show: Callable[[str], None]
) -> TrainingReport:
    """The report of a run, which continues an interrupted one. log, show, errors: as of TrainingRun."""
    module = importlib.import_module(f"edge_vision.train.{_MODULES[request.recipe]}")
    report: TrainingReport = getattr(module, f"run_{request.recipe}")(folder, request, log, show)
    return report
