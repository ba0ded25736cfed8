"""Loads a node's model as its parameters say, and tells what really runs."""

from __future__ import annotations

from typing import Any

from edge_vision.backends import BackendReport, BackendRequest, Session, open_session
from edge_vision.bundles import Bundle, load_bundle
from edge_vision.nodes.base import EdgeNode


class LoadedModel:
    """A bundle on a backend."""

    def __init__(self, bundle: Bundle, session: Session, report: BackendReport) -> None:
        self.bundle = bundle
        self.session = session
        self.report = report

    def status_values(self) -> dict[str, Any]:
        """Requested and actual, side by side."""
        actual = self.report.actual
        return {
            "model": f"{self.bundle.manifest.name} {self.bundle.manifest.version}",
            "model_sha256": self.bundle.sha256,
            **{f"backend.requested.{key}": value for key, value in self.report.requested.items()},
            "backend.actual.backend": f"{actual.backend} {actual.version}",
            "backend.actual.device": actual.device,
            "backend.actual.provider": actual.provider,
            "backend.actual.precision": actual.precision,
            "backend.actual.threads": actual.threads or None,
            "backend.notes": "; ".join(actual.notes),
            "backend.fallback_reason": self.report.fallback_reason or "",
        }


def load_model(node: EdgeNode) -> LoadedModel:
    """The model of a node with the parameters model, backend, device, precision, threads, strict_backend.

    Raises BundleError, BackendError. A fallback is logged as a warning.
    """
    params = node.params
    bundle = load_bundle(params["model"])
    request = BackendRequest(params["device"], params["precision"], params["threads"])
    session, report = open_session(bundle, params["backend"], request, params["strict_backend"])
    model = LoadedModel(bundle, session, report)
    _tell(node, model)
    return model


def _tell(node: EdgeNode, model: LoadedModel) -> None:
    """Log the model with what really runs it, the one that it replaces, and a fallback."""
    actual, before = model.report.actual, node.last_model
    node.last_model = f"{model.bundle}"
    swap = f", instead of {before}" if before not in ("", node.last_model) else ""
    text = (
        f"{model.bundle} on {actual.backend} {actual.version}, {actual.device} ({actual.provider}), "
        f"{actual.precision}, {actual.threads or 'untold'} threads{swap}"
    )
    values = model.status_values()
    node.journal.say(
        "info", text, "model_swapped" if swap else "model_loaded", before=before or None, **values
    )
    if model.report.fallback_reason:
        text = f"not what was asked for: {model.report.fallback_reason}"
        node.journal.say("warning", text, "fallback", **values)
