"""The model that a node's parameters request, and the log of what was loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from edge_vision.backends import BackendRequest
from edge_vision.backends.registry import check_known, imported_plugins
from edge_vision.backends.serving.loaded_model import LoadedModel, ModelRequest
from edge_vision.bundles.store import bundle_folder
from edge_vision.errors import EdgeVisionError
from edge_vision.nodes.base_node import BaseNode

R = TypeVar("R")
SERVER = "kserve"
MODEL_PARAMS = {"model", "backend", "device", "precision", "threads", "strict_backend", "fallback", "route"}


def model_request(node: BaseNode) -> ModelRequest:
    """The request in a node's parameters. With `remote_url`, backend "auto" is the server."""
    params = node.params
    return ModelRequest(
        params["model"],
        SERVER if params["backend"] == "auto" and params["remote_url"] else params["backend"],
        BackendRequest(
            params["device"] or "auto",
            delegate_folders=tuple(params["delegate_folders"]),
            **{name: params[name] for name in ("precision", "threads", "remote_url", "route")},
        ),
        params["strict_backend"],
        tuple(params["fallback"]),
    )


def check_model_params(values: Mapping[str, Any], changed: set[str]) -> None:
    """Refuse new values that cannot work: a bundle that does not exist, or an unknown backend.

    values, changed: as in `BaseNode.check_params`. Raises ValueError, which names the parameter.
    """
    checks: dict[str, Callable[[], object]] = {
        "model": lambda: bundle_folder(values["model"]),
        "classifier": lambda: values["classifier"] and bundle_folder(values["classifier"]),
        "next_models": lambda: [bundle_folder(name) for name in values["next_models"]],
        "backend": lambda: check_known([values["backend"]]),
        "fallback": lambda: check_known(values["fallback"]),
    }
    for name in checks.keys() & changed:
        try:
            checks[name]()
        except EdgeVisionError as error:
            raise ValueError(f"{name}: {error}") from None


def request_parameters(request: ModelRequest) -> dict[str, Any]:
    """The parameters that make this request: the inverse of `model_request`."""
    backend = request.request
    return {
        "model": request.model,
        "backend": request.backend,
        "device": backend.device,
        "precision": backend.precision,
        "threads": backend.threads,
        "strict_backend": request.strict,
        "fallback": list(request.fallback),
        "route": backend.route,
    }


def log_loaded_model(node: BaseNode, model: LoadedModel[R]) -> None:
    """Log a loaded model with its backend, the model that it replaces, and the reason of a fallback."""
    before, node.last_model = node.last_model, str(model.bundle)
    swap = f", replaces {before}" if before not in ("", node.last_model) else ""
    choice = f"; auto: {model.report.selection_reason}" if model.report.selection_reason else ""
    for plugin in imported_plugins():
        if plugin not in node.logged_plugins:
            node.logged_plugins.add(plugin)
            node.structured_log.log("info", f"{plugin} runs in this process", "plugin_loaded")
    if node.params["remote_url"] and (backend := model.report.requested["backend"]) != SERVER:
        text = f"remote_url has no effect with backend {backend}: set backend to {SERVER} or auto"
        node.structured_log.log("warning", text, "fallback")
    values = model.status_values()
    event = "model_swapped" if swap else "model_loaded"
    node.structured_log.log("info", f"{model}{swap}{choice}", event, before=before or None, **values)
    if model.report.fallback_reason:
        text = f"not the requested backend: {model.report.fallback_reason}"
        node.structured_log.log("warning", text, "fallback", **values)
