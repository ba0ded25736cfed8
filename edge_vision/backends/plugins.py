"""Backends of other packages, registered by entry points."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

ENTRY_POINT_GROUP = "edge_vision.backends"
"""A package that brings a backend of its own names it, as "module:Class", in this group of entry points."""

_IMPORTED: dict[str, str] = {}


def plugins() -> dict[str, EntryPoint]:
    """Name -> entry point of every backend that another package registers."""
    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}


def plugin_package(place: str) -> str:
    """Name and version of the package that registers "module:Class", "" where none does."""
    if place.startswith("edge_vision."):
        return ""
    return next((_package(point) for point in plugins().values() if point.value == place), "")


def note_import(name: str) -> None:
    """Remember that the code of a plug-in runs in this process; nothing where `name` is no plug-in."""
    if name not in _IMPORTED and (point := plugins().get(name)) is not None:
        _IMPORTED[name] = f"backend plug-in {name} ({point.value}) of {_package(point)}"


def imported_plugins() -> tuple[str, ...]:
    """A description of each plug-in that this process has imported, in that order."""
    return tuple(_IMPORTED.values())


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown package"
