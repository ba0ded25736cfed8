"""Makes the known bundles in the store: fetch packages, convert, write, verify, then rename."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from edge_vision.bundles.schema import nearest
from edge_vision.bundles.store import Bundle, bundles_dir, cache_dir, load_bundle
from edge_vision.errors import BundleError
from edge_vision.model_zoo.packages import Report, fetch_package
from edge_vision.model_zoo.recipes import RECIPES, BundleRecipe
from edge_vision.offline.bundle_folder import BUILDING, put, store_lock, write_folder


def fetch_bundle(name: str, force: bool = False, report: Report = print) -> Bundle:
    """Make a known bundle in the store, unless it exists and verifies.

    Needs a network only for packages that are not in the cache. If interrupted, it leaves no incomplete
    bundle, and the next call uses the completed downloads. Raises BundleError.
    """
    recipe = find_recipe(name)
    try:
        # Without the lock first: a read-only store suffices if the bundle exists.
        present = None if force else _present(recipe, _silent)
        if present is None:
            with store_lock(report):
                present = None if force else _present(recipe, report)
                return present or _make(recipe, report)
    except OSError as error:
        raise BundleError(f"{cache_dir()}: expected a folder to write to, got an error: {error}") from None
    report(f"{present}: already in {present.folder}, verified")
    return present


def find_recipe(name: str) -> BundleRecipe:
    """The recipe of a known bundle. Raises BundleError with the nearest name."""
    if name not in RECIPES:
        raise BundleError(
            f"expected one of {', '.join(RECIPES)}, got {name!r}{nearest(name, RECIPES)}; "
            "open other bundles by their folder"
        )
    return RECIPES[name]


def _silent(_line: str) -> None:
    """Discards a report."""


def _present(recipe: BundleRecipe, report: Report) -> Bundle | None:
    """The bundle in the store if it is valid and has the recipe's version."""
    name = recipe.manifest.name
    if not (bundles_dir() / name).is_dir():
        return None
    try:
        bundle = load_bundle(name)
        for graph in bundle.manifest.graphs:
            bundle.verify(graph)
    except BundleError as error:
        report(f"{name}: the bundle in the store is not usable, making it again: {error}")
        return None
    if bundle.version != recipe.manifest.version:
        report(f"{name}: version {bundle.version} in the store, making {recipe.manifest.version}")
        return None
    return bundle


def _make(recipe: BundleRecipe, report: Report) -> Bundle:
    name = recipe.manifest.name
    packages = [fetch_package(package, cache_dir() / "downloads", report) for package in recipe.packages]
    report(f"{name}: converting")
    manifest, files = recipe.files(*packages)
    with tempfile.TemporaryDirectory(prefix=BUILDING, dir=bundles_dir()) as temporary:
        folder = Path(temporary) / name
        write_folder(folder, manifest, files)
        bundle = load_bundle(f"{folder}{os.sep}")
        for graph in bundle.manifest.graphs:
            bundle.verify(graph)
        put(folder, bundles_dir() / name, Path(temporary) / "old")
    bundle = load_bundle(name)
    report(f"{bundle}: made in {bundle.folder}")
    return bundle
