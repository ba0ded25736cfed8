"""Backends of other packages, registered as entry points."""

from __future__ import annotations

import sys
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points

ENTRY_POINT_GROUP = "edge_vision.backends"
"""A package registers its backends in this group, each as `name = "module:Class"`."""

_IMPORTED: dict[str, str] = {}


def plugins() -> dict[str, EntryPoint]:
    """Name -> entry point of every backend that another package registers."""
    return _on(tuple(sys.path))


@lru_cache(maxsize=4)
def _on(path: tuple[str, ...]) -> dict[str, EntryPoint]:
    """Cached, since `entry_points` reads a file of every installed package, which takes over 10 ms."""
    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}


def plugin_package(path: str) -> str:
    """Name and version of the package that registers "module:Class", "" if none does."""
    if path.startswith("edge_vision."):
        return ""
    return next((_package(point) for point in plugins().values() if point.value == path), "")


def plugin_distribution(name: str) -> list[str]:
    """The name of the package that registers this backend, [] for one of edge_vision's own."""
    point = plugins().get(name)
    return [point.dist.name] if point and point.dist else []


def note_import(name: str) -> None:
    """Record that the code of a plug-in runs in this process. Does nothing if `name` is no plug-in."""
    if name not in _IMPORTED and (point := plugins().get(name)) is not None:
        _IMPORTED[name] = f"backend plug-in {name} ({point.value}) of {_package(point)}"


def imported_plugins() -> tuple[str, ...]:
    """A description of each plug-in that this process has imported, in that order."""
    return tuple(_IMPORTED.values())


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown package"
