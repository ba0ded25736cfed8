"""The cascade of an evaluation, from bundles that are fitted stages."""

from __future__ import annotations

from collections.abc import Sequence

from edge_vision.backends import open_session
from edge_vision.backends.base import BackendRequest
from edge_vision.bundles.store import load_bundle
from edge_vision.cascade.cascade import Cascade
from edge_vision.cascade.stages import CascadeStage, stage_from_bundle
from edge_vision.detect.classifier import Classifier
from edge_vision.errors import EdgeVisionError
from edge_vision.evaluate.errors import EvaluateError
from edge_vision.evaluate.reference.detector import BACKEND


def cascade_of(bundles: Sequence[str]) -> Cascade:
    """A cascade of these stages, in this order, on one thread; without bundles, one that passes everything.

    bundles: names or folders. Raises EvaluateError for a bundle that is missing or not a fitted stage.
    """
    return Cascade([_stage(name) for name in bundles])


def _stage(name: str) -> CascadeStage:
    try:
        bundle = load_bundle(name)
        session, _ = open_session(bundle, BACKEND, BackendRequest(threads=1), strict=True)
        classifier = Classifier.from_bundle(bundle, session)
        stage = stage_from_bundle(bundle, classifier)
    except (EdgeVisionError, ValueError) as error:
        raise EvaluateError(f"--cascade {name}: {error}") from None
    classifier.warm_up()
    return stage


def hashes(bundles: Sequence[str]) -> dict[str, str]:
    """The hash of each stage's bundle. Raises BundleError."""
    return {name: load_bundle(name).sha256 for name in bundles}
