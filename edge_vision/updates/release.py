"""Names in the repository, and what is signed about a release: the `custom` field of its bundle.yaml, or of
its parameters.yaml if it has no model."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge_vision.bundles import schema
from edge_vision.bundles.manifest import MANIFEST_FILE
from edge_vision.bundles.store import Bundle, load_bundle
from edge_vision.errors import UpdateError
from edge_vision.updates.durable import sync_folder

PROVENANCE_FILE = "provenance.json"
PARAMETERS_FILE = "parameters.yaml"
"""Values for the parameters of nodes, as a ROS parameter file."""
MAIN_FILES = (MANIFEST_FILE, PARAMETERS_FILE)
"""The first of these that a release has carries what is signed about it."""
MAX_FILES = 64
MAX_FOLDERS = 4
"""Levels of folders within a bundle: in TUF, `*` matches within one level only."""
SIGNED_AT = "x-edge-vision-signed-at"
"""Signed field of a metadata file: when it was signed, in UTC."""
TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
_GROUP = re.compile(r"[a-z0-9_-]{1,32}(/[a-z0-9_-]{1,32}){0,3}")
_CHANNEL = re.compile(r"[a-z0-9_-]{1,32}")
_TIME = r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)?"
_VERSION = r"\d{1,9}(\.\d{1,9}){2}"


def role_of(group: str) -> str:
    """The TUF role that signs for a group: fleet/a -> group.fleet.a. Raises UpdateError."""
    if not _GROUP.fullmatch(group):
        raise UpdateError(
            "config", f"group: expected names of a-z, 0-9, _ and - as in fleet/a, got {group!r:.80}"
        )
    return "group." + group.replace("/", ".")


def patterns_of(role: str) -> list[str]:
    """The target paths that a group's role may sign: the first level is its own name."""
    return [f"{role}/*" + "/*" * depth for depth in range(1, MAX_FOLDERS + 2)]


def target_of(group: str, channel: str, file: str = MANIFEST_FILE) -> str:
    """The TUF target of a bundle's file. Raises UpdateError."""
    if not _CHANNEL.fullmatch(channel):
        raise UpdateError("config", f"channel: expected a name of a-z, 0-9, _ and -, got {channel!r:.80}")
    return f"{role_of(group)}/{channel}/{file}"


@dataclass(frozen=True, slots=True)
class Release:
    """What a group's key signs about a bundle.

    release: counts the releases of a group, 1 for the first. security_floor: robots neither install nor go
    back to releases with a lower number. min_software: of edge_vision. required_backend: "" for any.
    percent: of the robots that may install it now, 0 = halted. since: when that was signed. min_soak_h: until
    it is raised; for the operator's tool only.
    """

    name: str
    version: str
    channel: str
    release: int
    security_floor: int
    min_software: str
    required_backend: str
    files: tuple[str, ...]
    percent: int = 100
    since: str = ""
    min_soak_h: int = 0

    @property
    def has_model(self) -> bool:
        """False for parameters only."""
        return MANIFEST_FILE in self.files

    @property
    def main_file(self) -> str:
        """The file whose target carries this."""
        return MANIFEST_FILE if self.has_model else PARAMETERS_FILE

    def includes(self, robot: str) -> bool:
        """Whether a robot is in the present stage, by a hash of its id.

        It remains in the stage when the percentage is raised; the next release begins with other robots.
        """
        digest = hashlib.sha256(f"{self.name} {self.version} {self.release} {robot}".encode()).digest()
        return int.from_bytes(digest[:8], "big") * 100 < self.percent << 64

    @property
    def custom(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "files": list(self.files)}

    def __str__(self) -> str:
        return f"{self.name} {self.version} (release {self.release})"


def parse_release(custom: Any) -> Release:
    """The release in a signed `custom` field. Raises BundleError."""
    keys = tuple(Release.__dataclass_fields__)
    section = schema.Section(custom, "release", "", keys)
    whole = (schema.integer(0, 2**53), "a whole number")
    return Release(
        name=section.take("name", schema.matching(r"[a-z0-9_]{1,64}"), "the name of a bundle"),
        version=section.take("version", schema.matching(_VERSION), "a version like 1.0.0"),
        channel=section.take("channel", schema.matching(_CHANNEL.pattern), "the name of a channel"),
        release=section.take("release", *whole),
        security_floor=section.take("security_floor", *whole),
        min_software=section.take("min_software", schema.matching(_VERSION), "a version like 1.0.0"),
        required_backend=section.take("required_backend", schema.matching(r"[a-z0-9_]{0,64}"), "a backend"),
        files=section.take("files", _files, "the files of a bundle"),
        percent=section.take("percent", schema.integer(0, 100), "0 to 100", 100),
        since=section.take("since", schema.matching(_TIME), "a time", ""),
        min_soak_h=section.take("min_soak_h", schema.integer(0, 10**5), "whole hours", 0),
    )


def _files(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_FILES or len(set(value)) != len(value):
        raise ValueError
    files = tuple(schema.relative_file(file) for file in value)
    if not set(MAIN_FILES) & set(files):
        raise ValueError
    return files


def bundle_files(bundle: Bundle) -> Iterator[tuple[str, Path]]:
    """The files of a bundle with their paths, verified. Raises BundleError, UpdateError."""
    manifest = bundle.manifest
    names = [MANIFEST_FILE, manifest.labels_file]
    for graph in manifest.graphs:
        bundle.verify(graph)
        names += [file for file, _ in graph.files]
    if (bundle.folder / "LICENSE").is_file():
        names.append("LICENSE")
    for name in dict.fromkeys(names):
        if name.count("/") > MAX_FOLDERS:
            raise UpdateError("bundle", f"{name}: expected at most {MAX_FOLDERS} levels of folders")
        if name in (PROVENANCE_FILE, PARAMETERS_FILE):
            raise UpdateError("bundle", f"{name}: expected another name, this one is the release's own")
        yield name, bundle.folder / name


def add_model(model: Path, folder: Path) -> None:
    """Complete the folder of a release without a model with the files of a bundle: links where possible.

    Raises BundleError, UpdateError.
    """
    files = dict(bundle_files(load_bundle(str(model))))
    try:
        for name, source in files.items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)  # Of an earlier attempt.
            with contextlib.suppress(OSError):
                os.link(source.resolve(), target)
                continue
            shutil.copyfile(source, target)  # From another file system.
            with target.open("rb") as copy:
                os.fsync(copy.fileno())
        for changed in {(folder / name).parent for name in files}:
            sync_folder(changed)
    except OSError as error:
        raise UpdateError("store", f"{folder}: cannot be written: {error.strerror}") from None


def version_key(version: str) -> tuple[int, ...]:
    """For comparing versions like 1.10.0."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def parse_provenance(value: Any) -> Mapping[str, Any]:
    """Check a provenance document: `trained_by` and `data` are required texts. Raises BundleError."""
    section = schema.Section(value, PROVENANCE_FILE, "", tuple(value) if isinstance(value, dict) else ())
    for key, expected in (("trained_by", "who trained the model"), ("data", "which data it was trained on")):
        section.take(key, schema.matching(r"(?s).*\S.*"), f"{expected}, as text")
    return dict(value)
