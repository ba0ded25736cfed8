"""Recognises the head that reads the outputs of a graph.

Each head has one rule that returns a guess with its reason, or None. The first guess wins. Shapes decide; if
two heads share a shape, the values of one run on noise decide.
"""

from __future__ import annotations

from collections.abc import Callable

from edge_vision.importer import grid_rules, list_rules, shape_rules
from edge_vision.importer.head_evidence import HeadEvidence, HeadGuess

RULES: tuple[Callable[[HeadEvidence], HeadGuess | None], ...] = (
    grid_rules.yolov8,
    grid_rules.yolov8_rows,
    grid_rules.yolov5,
    grid_rules.nanodet,
    grid_rules.yolox,
    list_rules.end_to_end,
    list_rules.detr_rows,
    list_rules.decoded,
    grid_rules.centernet,
    list_rules.ssd,
    list_rules.detr,
    list_rules.classifier,
)


def recognise_head(evidence: HeadEvidence, head: str | None = None) -> HeadGuess | None:
    """The first head that fits the outputs; if `head` is given, that one or None.

    Raises BundleError for the outputs of another task, and for those that several heads read differently.
    """
    if shaped := shape_rules.recognise(evidence, head):
        return shaped
    if head == "yolov8":
        return grid_rules.yolov8(evidence) or grid_rules.yolov8_rows(evidence, requested=True)
    rules = (rule for rule in RULES if head is None or rule is not grid_rules.yolov8_rows)
    guesses = (rule(evidence) for rule in rules)
    return next((guess for guess in guesses if guess and head in (None, guess.spec.type)), None)
