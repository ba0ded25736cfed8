"""From the repository to a bundle that loads: check, compatibility, download, trial in a child process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from edge_vision import __version__
from edge_vision.backends.base import BackendRequest
from edge_vision.backends.loading import graph_for
from edge_vision.backends.registry import available_backends, make_backend
from edge_vision.backends.trial.parent import try_graph
from edge_vision.bundles.store import Bundle, load_bundle
from edge_vision.errors import EdgeVisionError, UpdateError
from edge_vision.updates.client import Offer, UpdateClient
from edge_vision.updates.release import Release, version_key
from edge_vision.updates.slots import SlotState, bundle_path, staging_path

Progress = Callable[[int, int], None]


def fetch_update(
    client: UpdateClient,
    offer: Offer,
    robot: str,
    folder: Path,
    state: SlotState,
    trial: Callable[[Bundle, Release], None],
    progress: Progress = lambda done, total: None,
) -> str:
    """Download an offer to the staging folder of a store, unless a slot has it.

    robot: its id. folder, state: of the store. trial: as `try_bundle`, for a release with a model. Returns
    the outcome: serving or downloaded if a slot has it, waiting if its stage does not include the robot,
    otherwise staged. Raises UpdateError.
    """
    if state.current and state.current.digest == offer.digest:
        return "serving"
    if not offer.release.includes(robot):
        return "waiting"
    if any(slot.digest == offer.digest for slot in state.slots.values()):
        return "downloaded"
    if reason := state.barred.get(offer.digest):
        raise UpdateError("barred", f"{offer.release}: barred on this robot: {reason}")
    check_compatible(offer.release)
    staging = staging_path(folder, offer.digest)
    reuse = [bundle_path(folder, slot) for slot in state.slots.values()]
    client.download(offer, staging, reuse, progress)
    if offer.release.has_model:
        trial(open_bundle(staging, offer.release), offer.release)
    return "staged"


def check_compatible(release: Release) -> None:
    """Raise UpdateError for a release that this installation cannot serve."""
    if version_key(release.min_software) > version_key(__version__):
        raise UpdateError(
            "incompatible",
            f"{release}: expected edge_vision {release.min_software} or later, got {__version__}; update it",
        )
    backends = _usable_backends()
    if release.required_backend and release.required_backend not in backends:
        raise UpdateError(
            "incompatible",
            f"{release}: expected the backend {release.required_backend}, got {_listed(backends)}",
        )


def open_bundle(folder: Path, release: Release) -> Bundle:
    """The verified bundle of a release. Raises UpdateError."""
    try:
        bundle = load_bundle(str(folder))
        for graph in bundle.manifest.graphs:
            bundle.verify(graph)
    except EdgeVisionError as error:
        raise UpdateError("invalid_bundle", str(error)) from None
    if (bundle.name, bundle.version) != (release.name, release.version):
        raise UpdateError("invalid_bundle", f"expected {release}, got {bundle}")
    if bundle.manifest.task != "detect":
        raise UpdateError("invalid_bundle", f"{release}: expected a detector, got {bundle.manifest.task}")
    return bundle


def try_bundle(bundle: Bundle, release: Release) -> None:
    """Load and run the bundle in a child process, on its required backend or the first that reads it.

    Raises UpdateError.
    """
    names = [release.required_backend] if release.required_backend else _usable_backends()
    formats = {graph.format for graph in bundle.manifest.graphs}
    usable = [name for name in names if formats & set(make_backend(name).formats)]
    if not usable:
        raise UpdateError(
            "incompatible",
            f"{release}: expected a graph for the backends {_listed(names)}, got {_listed(sorted(formats))}",
        )
    backend, spec = make_backend(usable[0]), bundle.manifest.input
    try:
        path, graph = graph_for(bundle, backend, BackendRequest())
        sha256 = graph.sha256 + graph.weights_sha256
        try_graph(backend, path, BackendRequest(), sha256, {spec.name: spec.shape})
    except EdgeVisionError as error:
        raise UpdateError("trial_failed", f"{release}: {error}") from None


def _usable_backends() -> list[str]:
    return [name for name, problem in available_backends().items() if problem is None]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
