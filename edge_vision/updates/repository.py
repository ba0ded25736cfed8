"""The operator's side: a TUF repository of plain files, for any static HTTP server or a USB stick.

Root: 2 of 3 keys, offline. `targets` delegates to one terminating role for each group of robots. Snapshot and
timestamp: one online key, valid for a day. Files are named after their hash or version and written before
`timestamp.json`, so a robot reads the old or the new state at any instant.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any

from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api.exceptions import UnsignedMetadataError
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization import DeserializationError

from edge_vision.backends.runtimes.engine_cache import write_file
from edge_vision.bundles.store import Bundle
from edge_vision.errors import UpdateError
from edge_vision.updates.release import (
    MAIN_FILES,
    PARAMETERS_FILE,
    PROVENANCE_FILE,
    SIGNED_AT,
    TIME_FORMAT,
    Release,
    bundle_files,
    parse_provenance,
    parse_release,
    patterns_of,
    role_of,
    target_of,
)
from edge_vision.updates.signing_keys import create_key, find_signer

ROOT_KEYS, ROOT_THRESHOLD = 3, 2
ONLINE = ("snapshot", "timestamp")
TOP_ROLES = ("root", "targets", *ONLINE)
VALID_DAYS = {"root": 365, "targets": 180, "snapshot": 1, "timestamp": 1}
GROUP_VALID_DAYS = 90
MIN_SOAK_H = 24


def utc_now() -> datetime:
    return datetime.now(timezone.utc).replace(microsecond=0)


@dataclass(frozen=True, slots=True)
class RoleState:
    """One role, for display. version: 0 before a group's first release. keys: their ids."""

    name: str
    version: int
    expires: datetime | None
    threshold: int
    keys: tuple[str, ...]


class Repository:
    """A repository in a folder. key_folders: searched for private keys; new keys are created in the first."""

    def __init__(
        self, folder: Path, key_folders: Sequence[Path] = (), now: Callable[[], datetime] = utc_now
    ) -> None:
        self.folder, self._now = folder, now
        self._metadata, self._targets = folder / "metadata", folder / "targets"
        self._key_folders = tuple(key_folders)
        for keys in self._key_folders:
            if keys.resolve().is_relative_to(folder.resolve()):
                raise UpdateError(
                    "keys",
                    f"{keys}: expected keys outside the published repository; choose another --keys",
                )

    # Commands.
    def init(self) -> Path:
        """Create keys and the first metadata. Returns the root file, which robots are given."""
        if self._metadata.exists():
            raise UpdateError("repository", f"{self.folder}: expected a new repository, got an existing one")
        root = Root(version=1, consistent_snapshot=True)
        for number in range(1, ROOT_KEYS + 1):
            root.add_key(self._new_key(f"root{number}"), "root")
        root.roles["root"].threshold = ROOT_THRESHOLD
        root.add_key(self._new_key("targets"), "targets")
        online = self._new_key("online")
        for role in ONLINE:
            root.add_key(online, role)
        self._metadata.mkdir(parents=True)
        self._targets.mkdir()
        self._write_root(Metadata(root), root)
        targets = Metadata(Targets(version=1, delegations=Delegations({}, {})))
        self._write("targets", targets, root)
        self._publish({"targets": targets})
        return self._metadata / "1.root.json"

    def add_key(self, role: str, key: SSlibKey | None = None) -> str:
        """Add a key to a role: root, targets, snapshot, timestamp, or a group, which is created if new.

        key: its public part; None to create it. Returns its id.
        """
        name = role if role in TOP_ROLES else role_of(role)
        key = key or self._new_key(name)
        if role in TOP_ROLES:
            self._change_root(lambda root: root.add_key(key, role))
        else:
            self._change_group(name, lambda targets: _add_group_key(targets, name, key))
        return str(key.keyid)

    def rotate(self, key_id: str) -> str:
        """Replace a key by a new one in each of its roles. Returns the new id."""
        roles, key_id = self._roles_with(key_id)
        key = self._new_key("online" if roles[0] in ONLINE else roles[0])
        self._replace(roles, key_id, key)
        return str(key.keyid)

    def revoke(self, key_id: str) -> list[str]:
        """Remove a key from each of its roles, which keep enough others. Returns the roles."""
        roles, key_id = self._roles_with(key_id)
        for state in self.roles():
            if state.name in roles and len(state.keys) <= state.threshold:
                raise UpdateError(
                    "keys",
                    f"{state.name}: expected more than {state.threshold} keys to revoke one, got "
                    f"{len(state.keys)}; `rotate` replaces a key, `add-key` adds one",
                )
        self._replace(roles, key_id, None)
        return roles

    def publish(
        self,
        bundle: Bundle | None,
        group: str,
        channel: str,
        provenance: dict[str, Any] | None,
        security_floor: int | None = None,
        min_software: str = "0.0.0",
        required_backend: str = "",
        percent: int = 100,
        min_soak_h: int = MIN_SOAK_H,
        parameters: bytes = b"",
    ) -> Release:
        """Make a bundle, parameters, or both the release of a group's channel. bundle, provenance: None for
        parameters only. security_floor: None keeps that of before. percent, min_soak_h: of its first stage.
        parameters: a ROS parameter file, empty for none."""
        role = role_of(group)
        targets = self._load("targets").signed
        if role not in _delegated(targets):
            raise UpdateError(
                "repository", f"group {group} has no key; create one: edge-vision updates add-key {group}"
            )
        metadata = self._group_metadata(group)
        signed: Targets = metadata.signed
        before = [target.custom for target in signed.targets.values() if target.custom]
        number = max((custom["release"] for custom in before), default=0) + 1
        floor = max((custom["security_floor"] for custom in before), default=0)
        floor = floor if security_floor is None else security_floor
        if not 0 <= floor <= number:
            raise UpdateError("config", f"expected a security floor of at most {number}, got {floor}")
        files: dict[str, Path | bytes] = {PARAMETERS_FILE: parameters} if parameters else {}
        name, version = "parameters", f"{number}.0.0"
        if bundle:
            name, version = bundle.name, bundle.version
            origin = parse_provenance(provenance)
            text = json.dumps(origin, indent=2, sort_keys=True) + "\n"
            files = {**dict(bundle_files(bundle)), PROVENANCE_FILE: text.encode(), **files}
        release = Release(
            name,
            version,
            channel,
            number,
            floor,
            min_software,
            required_backend,
            tuple(files),
            percent,
            self._now().strftime(TIME_FORMAT),
            min_soak_h,
        )
        own = target_of(group, channel, "")
        signed.targets = {path: t for path, t in signed.targets.items() if not path.startswith(own)}
        for file, source in files.items():
            self._add_target(signed, own + file, source)
        signed.targets[target_of(group, channel, release.main_file)].unrecognized_fields["custom"] = (
            release.custom
        )
        self._publish_signed(role, metadata)
        return release

    def release(self, group: str, channel: str) -> Release:
        """The present release of a group's channel. Raises UpdateError if there is none."""
        return parse_release(self._main_target(self._group_metadata(group).signed, group, channel).custom)

    def releases(self) -> Iterator[tuple[str, Release]]:
        """Each group's role with the release of each of its channels. Raises BundleError."""
        for role in _delegated(self._load("targets").signed):
            if self._exists(role):
                targets: Targets = self._load(role).signed
                yield from (
                    (role, parse_release(one.custom)) for one in targets.targets.values() if one.custom
                )

    def stage(self, group: str, channel: str, percent: int, min_soak_h: int | None = None) -> Release:
        """Let this share of the group's robots install its release; 0 halts it. min_soak_h: None keeps it.

        Raises UpdateError if the share is raised earlier than min_soak_h after the last change.
        """
        before, now = self.release(group, channel), self._now()
        soak_h = before.min_soak_h if min_soak_h is None else min_soak_h
        since = datetime.strptime(before.since or "1970-01-01T00:00:00Z", TIME_FORMAT)
        until = since.replace(tzinfo=timezone.utc) + timedelta(hours=soak_h)
        if percent > before.percent and now < until:
            raise UpdateError(
                "soak",
                f"{before}: expected {soak_h} h at {before.percent} %, until {until:%Y-%m-%d %H:%M} UTC, got "
                f"a request for {percent} % at {now:%Y-%m-%d %H:%M}; wait, or give --min-soak 0",
            )
        release = replace(before, percent=percent, since=now.strftime(TIME_FORMAT), min_soak_h=soak_h)
        metadata = self._group_metadata(group)
        target = self._main_target(metadata.signed, group, channel)
        target.unrecognized_fields["custom"] = release.custom
        self._publish_signed(role_of(group), metadata)
        return release

    def _group_metadata(self, group: str) -> Metadata[Any]:
        return self._load(role_of(group)) if self._exists(role_of(group)) else Metadata(Targets(version=1))

    def _main_target(self, signed: Targets, group: str, channel: str) -> TargetFile:
        for file in MAIN_FILES:
            if target := signed.targets.get(target_of(group, channel, file)):
                return target
        raise UpdateError("repository", f"expected a release of {group}, channel {channel}, got none")

    def renew(self) -> list[str]:
        """Sign snapshot and timestamp for another day. Returns warnings of roles that expire soon."""
        self._publish({})
        soon = self._now() + timedelta(days=30)
        return [
            f"{state.name} expires on {state.expires:%Y-%m-%d}; sign it again: timestamp --role {state.name}"
            for state in self.roles()
            if state.name not in ONLINE and state.expires and state.expires < soon
        ]

    def renew_role(self, role: str) -> None:
        """Sign a role again, unchanged, for another period."""
        if role == "root":
            self._change_root(lambda root: None)
        elif role in ONLINE:
            self._publish({})
        else:
            name = role if role == "targets" or role.startswith("group.") else role_of(role)
            self._publish_signed(name, self._load(name))

    def roles(self) -> Iterator[RoleState]:
        """All roles, root first."""
        root, targets = self._root(), self._load("targets").signed
        for name, role in {**root.roles, **_delegated(targets)}.items():
            signed = self._load(name).signed if self._exists(name) else None
            version, expires = (signed.version, signed.expires) if signed else (0, None)
            yield RoleState(name, version, expires, role.threshold, tuple(role.keyids))

    # Metadata.
    def _root(self) -> Root:
        signed: Root = self._load("root").signed
        return signed

    def _path(self, role: str) -> Path | None:
        """The newest file of a role."""
        if role == "timestamp":
            path = self._metadata / "timestamp.json"
            return path if path.is_file() else None
        versions = [
            int(number)
            for path in self._metadata.glob(f"*.{role}.json")
            for number, _, rest in (path.name.partition("."),)
            if number.isdigit() and rest == f"{role}.json"
        ]
        return self._metadata / f"{max(versions)}.{role}.json" if versions else None

    def _exists(self, role: str) -> bool:
        return self._path(role) is not None

    def _load(self, role: str) -> Metadata[Any]:
        path = self._path(role)
        if path is None:
            raise UpdateError(
                "repository",
                f"{self.folder}: expected a repository with {role} metadata, got none; create it: "
                "edge-vision updates init-repo",
            )
        try:
            return Metadata.from_file(str(path))
        except (DeserializationError, OSError) as error:
            raise UpdateError("repository", f"{path}: expected TUF metadata, got: {error}") from None

    def _new_key(self, label: str) -> SSlibKey:
        if not self._key_folders:
            raise UpdateError("keys", "expected a folder for the new key; give --keys FOLDER")
        return create_key(self._key_folders[0], label).public_key

    def _signers(self, role: str, delegator: Root | Targets) -> list[CryptoSigner]:
        """The private keys of a role that are at hand. Raises UpdateError if they are too few."""
        wanted = delegator.get_delegated_role(role)
        found = [find_signer(delegator.get_key(key), self._key_folders) for key in wanted.keyids]
        signers = [signer for signer in found if signer]
        if len(signers) < wanted.threshold:
            folders = ", ".join(map(str, self._key_folders)) or "no folder"
            ids = ", ".join(key[:12] for key in wanted.keyids)
            raise UpdateError(
                "keys",
                f"{role}: expected {wanted.threshold} of the private keys {ids}, got {len(signers)} in "
                f"{folders}; give each folder with --keys",
            )
        return signers

    def _prepare(self, role: str, signed: Any) -> None:
        now = self._now()
        signed.version += self._exists(role)
        signed.expires = now + timedelta(days=VALID_DAYS.get(role, GROUP_VALID_DAYS))
        signed.unrecognized_fields[SIGNED_AT] = now.strftime(TIME_FORMAT)

    def _write(self, role: str, metadata: Metadata[Any], delegator: Root | Targets) -> None:
        self._sign_and_write(role, metadata, self._signers(role, delegator))

    def _sign_and_write(self, role: str, metadata: Metadata[Any], signers: Sequence[CryptoSigner]) -> None:
        self._prepare(role, metadata.signed)
        metadata.signatures.clear()
        for signer in signers:
            metadata.sign(signer, append=True)
        name = f"{role}.json" if role == "timestamp" else f"{metadata.signed.version}.{role}.json"
        write_file(self._metadata / name, metadata.to_bytes())

    def _write_root(self, metadata: Metadata[Root], before: Root) -> None:
        """A new root is signed by the keys of the root before, and by its own."""
        signers = [*self._signers("root", before), *self._signers("root", metadata.signed)]
        unique = {signer.public_key.keyid: signer for signer in signers}
        self._sign_and_write("root", metadata, list(unique.values()))

    def _change_root(self, change: Callable[[Root], None]) -> None:
        """Sign a new root, and again what its change leaves without valid signatures."""
        before, metadata = self._root(), self._load("root")
        change(metadata.signed)
        stale = [role for role in TOP_ROLES[1:] if not _is_signed(metadata.signed, role, self._load(role))]
        # Every key is found before the first file is written.
        for role in {*stale, *ONLINE} if stale else ():
            self._signers(role, metadata.signed)
        self._write_root(metadata, before)
        if "targets" in stale:
            self._publish_signed("targets", self._load("targets"))
        elif stale:
            self._publish({})

    def _change_group(self, role: str, change: Callable[[Targets], None]) -> None:
        """Change the delegation to a group, and sign its metadata again if that leaves it unsigned."""
        targets = self._load("targets")
        change(targets.signed)
        changed: dict[str, Metadata[Any]] = {"targets": targets}
        for name in {"targets", *ONLINE}:
            self._signers(name, self._root())
        if self._exists(role) and not _is_signed(targets.signed, role, group := self._load(role)):
            self._write(role, group, targets.signed)
            changed[role] = group
        self._write("targets", targets, self._root())
        self._publish(changed)

    def _publish_signed(self, role: str, metadata: Metadata[Any]) -> None:
        delegator = self._root() if role in TOP_ROLES else self._load("targets").signed
        for online in ONLINE:
            self._signers(online, self._root())
        self._write(role, metadata, delegator)
        self._publish({role: metadata})

    def _publish(self, changed: dict[str, Metadata[Any]]) -> None:
        """Sign snapshot and timestamp, which make the changed roles visible."""
        root = self._root()
        snapshot = self._load("snapshot") if self._exists("snapshot") else Metadata(Snapshot(version=1))
        timestamp = self._load("timestamp") if self._exists("timestamp") else Metadata(Timestamp(version=1))
        for role, metadata in changed.items():
            snapshot.signed.meta[f"{role}.json"] = _meta_of(metadata)
        self._write("snapshot", snapshot, root)
        timestamp.signed.snapshot_meta = _meta_of(snapshot)
        self._write("timestamp", timestamp, root)

    # Keys.
    def _roles_with(self, key_id: str) -> tuple[list[str], str]:
        found = {key for state in self.roles() for key in state.keys if key.startswith(key_id)}
        if len(found) != 1:
            raise UpdateError(
                "keys",
                f"expected the id of a key, or its first digits, got {key_id!r:.80}, which "
                f"{len(found)} keys have; `edge-vision updates show` lists them",
            )
        key = found.pop()
        return [state.name for state in self.roles() if key in state.keys], key

    def _replace(self, roles: Sequence[str], key_id: str, key: SSlibKey | None) -> None:
        def replace_key(delegator: Root | Targets, role: str) -> None:
            delegator.revoke_key(key_id, role)
            if key is not None:
                delegator.add_key(key, role)

        def replace_top(root: Root) -> None:
            for role in roles:
                if role in TOP_ROLES:
                    replace_key(root, role)

        if set(roles) & set(TOP_ROLES):
            self._change_root(replace_top)
        for role in set(roles) - set(TOP_ROLES):
            self._change_group(role, partial(replace_key, role=role))

    # Targets.
    def _add_target(self, signed: Targets, path: str, source: Path | bytes) -> None:
        """Add a file's target and copy the file, under its hash."""
        if isinstance(source, bytes):
            target = TargetFile.from_data(path, source, ["sha256"])
        else:
            target = TargetFile.from_file(path, str(source), ["sha256"])
        signed.targets[path] = target
        for name in target.get_prefixed_paths():
            file = self._targets / name
            file.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(source, bytes):
                write_file(file, source)
            else:
                copy = file.with_name(f".writing-{file.name}")
                shutil.copyfile(source, copy)
                copy.replace(file)


def _meta_of(metadata: Metadata[Any]) -> MetaFile:
    return MetaFile.from_data(metadata.signed.version, metadata.to_bytes(), ["sha256"])


def _is_signed(delegator: Root | Targets, role: str, metadata: Metadata[Any]) -> bool:
    try:
        delegator.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
    except UnsignedMetadataError:
        return False
    return True


def _delegated(targets: Targets) -> dict[str, DelegatedRole]:
    return dict((targets.delegations and targets.delegations.roles) or {})


def _add_group_key(targets: Targets, role: str, key: SSlibKey) -> None:
    delegations = targets.delegations or Delegations({}, {})
    roles = _delegated(targets)
    if role not in roles:
        roles[role] = DelegatedRole(role, [], 1, terminating=True, paths=patterns_of(role))
    targets.delegations = Delegations(delegations.keys, roles)
    targets.add_key(key, role)
