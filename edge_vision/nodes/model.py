"""A node's model as its parameters say, and what really runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from edge_vision.backends import BackendRequest, Session
from edge_vision.backends.keeper import LoadedModel, ModelWish, load_model
from edge_vision.bundles import Bundle
from edge_vision.nodes.base import EdgeNode

R = TypeVar("R")
MODEL_PARAMS = {"model", "backend", "device", "precision", "threads", "strict_backend", "fallback"}


def wish_of(node: EdgeNode) -> ModelWish:
    """What a node's parameters ask for. Raises BackendError for a precision that there is not."""
    params = node.params
    return ModelWish(
        params["model"],
        params["backend"],
        BackendRequest(params["device"], params["precision"], params["threads"]),
        params["strict_backend"],
        tuple(params["fallback"]),
    )


def params_of(wish: ModelWish) -> dict[str, Any]:
    """The parameters that ask for it."""
    request = wish.request
    return {
        "model": wish.model,
        "backend": wish.backend,
        "device": request.device,
        "precision": request.precision,
        "threads": request.threads,
        "strict_backend": wish.strict,
        "fallback": list(wish.fallback),
    }


def load_for(node: EdgeNode, make: Callable[[Bundle, Session], R]) -> LoadedModel[R]:
    """Load what a node's parameters ask for, and tell. Raises BundleError, BackendError, HeadError."""
    model = load_model(wish_of(node), make)
    tell_loaded(node, model)
    return model


def tell_loaded(node: EdgeNode, model: LoadedModel[R]) -> None:
    """Log what runs; that it is not what was asked for is a warning."""
    node.get_logger().info(f"{model}" + (f"; auto: {model.report.choice}" if model.report.choice else ""))
    if model.report.fallback_reason:
        node.get_logger().warning(f"not what was asked for: {model.report.fallback_reason}")
