"""Attacks on a robot's updates and what must become of each. The tests and `make bench-updates` run all."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from tuf.api.metadata import Metadata, MetaFile, TargetFile
from update_cases import GROUP, Handler, Operator, World

from edge_vision.updates.release import MANIFEST_FILE, role_of, target_of
from edge_vision.updates.signing_keys import find_signer

ROLE = role_of(GROUP)


class Attack(NamedTuple):
    """reason: of the UpdateError that it must cause."""

    name: str
    reason: str
    prepare: Callable[[World], None]


class Thief:
    """Signs with stolen keys, past the rules of the repository."""

    def __init__(self, operator: Operator) -> None:
        self.metadata = operator.folder / "metadata"
        self.keys, self.root = operator.keys, operator.repository._root()
        self.targets = operator.repository._load("targets").signed
        self.load, self.targets_folder = operator.repository._load, operator.folder / "targets"

    def sign(self, role: str, metadata: Metadata[Any], key_ids: list[str] | None = None) -> None:
        delegator = self.targets if role.startswith("group.") else self.root
        metadata.signatures.clear()
        for key_id in key_ids or delegator.get_delegated_role(role).keyids:
            signer = find_signer(delegator.get_key(key_id), [self.keys])
            assert signer, key_id
            metadata.sign(signer, append=True)
        name = role if role == "timestamp" else f"{metadata.signed.version}.{role}"
        metadata.to_file(str(self.metadata / f"{name}.json"))

    def snapshot(self, **versions: Metadata[Any]) -> None:
        """New snapshot and timestamp, which list these files of metadata."""
        snapshot, timestamp = self.load("snapshot"), self.load("timestamp")
        for role, metadata in versions.items():
            name = ROLE if role == "group" else role
            snapshot.signed.meta[f"{name}.json"] = meta_of(metadata)
        snapshot.signed.version += 1
        self.sign("snapshot", snapshot)
        self.timestamp(snapshot, timestamp)

    def timestamp(self, snapshot: Metadata[Any], timestamp: Metadata[Any]) -> None:
        timestamp.signed.version += 1
        timestamp.signed.snapshot_meta = meta_of(snapshot)
        self.sign("timestamp", timestamp)

    def read(self, name: str) -> Metadata[Any]:
        return Metadata.from_file(str(self.metadata / f"{name}.json"))


def meta_of(metadata: Metadata[Any]) -> MetaFile:
    return MetaFile.from_data(metadata.signed.version, metadata.to_bytes(), ["sha256"])


def two_releases(world: World) -> bytes:
    """The robot knows the second of two releases. Returns the timestamp of the first."""
    world.operator.publish("1.0.0")
    world.update()
    first = (world.operator.folder / "metadata" / "timestamp.json").read_bytes()
    world.operator.publish("2.0.0")
    world.update()
    return first


# Old states.
def timestamp_rollback(world: World) -> None:
    first = two_releases(world)
    (world.operator.folder / "metadata" / "timestamp.json").write_bytes(first)


def timestamp_rollback_after_lost_cache(world: World) -> None:
    """A power cut has torn python-tuf's cache; the floor remembers."""
    timestamp_rollback(world)
    for file in (world.robot / "trust").glob("*/*.json"):
        if file.name != "floor.json":
            file.write_bytes(b"")


def snapshot_rollback(world: World) -> None:
    two_releases(world)
    thief = Thief(world.operator)
    thief.timestamp(thief.read("3.snapshot"), thief.load("timestamp"))


def targets_rollback(world: World) -> None:
    two_releases(world)
    world.operator.repository.renew_role("targets")
    world.update()
    Thief(world.operator).snapshot(targets=Thief(world.operator).read("2.targets"))


def group_rollback(world: World) -> None:
    two_releases(world)
    Thief(world.operator).snapshot(group=Thief(world.operator).read(f"1.{ROLE}"))


def freeze(world: World) -> None:
    world.operator.publish("1.0.0")
    world.update()
    world.operator.wait(days=2)


def freeze_of_the_snapshot(world: World) -> None:
    """A fresh timestamp for a snapshot that has expired."""
    world.operator.publish("1.0.0")
    world.operator.wait(days=2)
    world.operator.repository.renew()
    thief = Thief(world.operator)
    thief.timestamp(thief.read("3.snapshot"), thief.load("timestamp"))


def freeze_of_the_targets(world: World) -> None:
    world.operator.publish("1.0.0")
    world.operator.wait(days=181)
    world.operator.repository.renew_role(GROUP)


def freeze_of_a_group(world: World) -> None:
    world.operator.publish("1.0.0")
    world.operator.wait(days=91)
    world.operator.repository.renew()


def freeze_with_clock_set_back(world: World) -> None:
    """The clock is set back by ten days while the robot runs, and the old state is served on."""
    world.operator.publish("1.0.0")
    client = world.client()
    client.check()
    world.operator.wait(days=2)
    world.clock_shift_s = -10 * 86400.0
    world.client = lambda: client  # type: ignore[method-assign]


def mix_and_match(world: World) -> None:
    """The present timestamp with the snapshot of another state, under its name."""
    two_releases(world)
    world.operator.repository.renew()
    metadata = world.operator.folder / "metadata"
    newest = max(metadata.glob("*.snapshot.json"), key=lambda path: int(path.name.partition(".")[0]))
    shutil.copy(metadata / "3.snapshot.json", newest)


def expired_root(world: World) -> None:
    world.operator.publish("1.0.0")
    world.operator.wait(days=366)
    world.operator.repository.renew()


# Keys.
def wrong_group(world: World) -> None:
    """The key of fleet/a signs a release of fleet/b, which the robot belongs to."""
    world.operator.repository.add_key("fleet/b")
    world.operator.publish("1.0.0", "fleet/b", channel="beta")
    world.operator.publish("1.0.0")
    thief = Thief(world.operator)
    group = thief.load(ROLE)
    for path, target in list(group.signed.targets.items()):
        group.signed.targets[path.replace(ROLE, role_of("fleet/b"))] = target
    group.signed.version += 1
    thief.sign(ROLE, group)
    thief.snapshot(group=group)
    world.group = "fleet/b"


def revoked_key(world: World) -> None:
    """A stolen group key, revoked since, signs a release; the online key is stolen as well."""
    world.operator.publish("1.0.0")
    old, stolen = Thief(world.operator), world.operator.key_id(ROLE)
    world.operator.repository.rotate(stolen)
    world.update()
    thief = Thief(world.operator)
    group = thief.load(ROLE)
    group.signed.version += 1
    old.sign(ROLE, group)
    thief.snapshot(group=group)


def root_below_threshold(world: World) -> None:
    world.operator.publish("1.0.0")
    world.update()
    thief = Thief(world.operator)
    root = thief.load("root")
    root.signed.version += 1
    thief.sign("root", root, root.signed.roles["root"].keyids[:1])


def forged_timestamp(world: World) -> None:
    world.operator.publish("1.0.0")
    stranger = Operator(world.robot / "stranger")
    shutil.copy(
        stranger.folder / "metadata" / "timestamp.json", world.operator.folder / "metadata" / "timestamp.json"
    )


# Files and transfers.
def graph_of(world: World) -> Path:
    return next((world.operator.folder / "targets").rglob("*.model.onnx"))


def tampered(world: World) -> None:
    world.operator.publish("1.0.0")
    data = bytearray(graph_of(world).read_bytes())
    data[1000] ^= 1
    graph_of(world).write_bytes(data)


def longer(world: World) -> None:
    world.operator.publish("1.0.0")
    with graph_of(world).open("ab") as file:
        file.write(b"more")


def truncated(world: World) -> None:
    world.operator.publish("1.0.0")
    graph_of(world).write_bytes(graph_of(world).read_bytes()[:1000])


def broken_off(world: World) -> None:
    world.operator.publish("1.0.0")
    world.server.faults["model.onnx"] = lambda handler, data: handler.send_bytes(data[:9], length=len(data))


def forever(handler: Handler, data: bytes) -> None:
    handler.send_response(200)
    handler.end_headers()
    while not handler.server.stopped.is_set():
        handler.wfile.write(b"\0" * 65536)


def endless_file(world: World) -> None:
    world.operator.publish("1.0.0")
    world.server.faults["model.onnx"] = forever


def endless_metadata(world: World) -> None:
    world.operator.publish("1.0.0")
    world.server.faults["timestamp"] = forever


def drip(handler: Handler, data: bytes) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    for byte in data:
        handler.wfile.write(bytes([byte]))
        if handler.server.stopped.wait(0.05):
            return


def drip_headers(handler: Handler, data: bytes) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while not handler.server.stopped.wait(0.05):
        handler.wfile.write(b"a")


def slow_drip_file(world: World) -> None:
    world.operator.publish("1.0.0")
    world.server.faults["model.onnx"] = drip
    world.limits = replace(world.limits, metadata_s=1.0)


def slow_drip_metadata(world: World) -> None:
    world.operator.publish("1.0.0")
    world.server.faults["timestamp"] = drip
    world.limits = replace(world.limits, metadata_s=1.0)


def slow_drip_headers(world: World) -> None:
    world.operator.publish("1.0.0")
    world.server.faults["timestamp"] = drip_headers
    world.limits = replace(world.limits, metadata_s=1.0)


# Circumstances.
def captive_portal(world: World) -> None:
    world.operator.publish("1.0.0")
    world.server.faults["metadata"] = lambda handler, data: handler.send_bytes(b"<!doctype html><p>Log in")


def captive_portal_redirect(world: World) -> None:
    world.operator.publish("1.0.0")
    world.server.faults["metadata"] = lambda handler, data: handler.send_bytes(
        b"", 302, Location="http://login.example/"
    )


def no_repository(world: World) -> None:
    world.url = world.server.url + "/elsewhere"


def unreachable(world: World) -> None:
    world.server.close()


def no_channel(world: World) -> None:
    world.operator.publish("1.0.0")
    world.channel = "nightly"


def no_space(world: World) -> None:
    """A signed file larger than any disk."""
    world.operator.publish("1.0.0")
    thief = Thief(world.operator)
    group = thief.load(ROLE)
    path = target_of(GROUP, "stable", "model.onnx")
    group.signed.targets[path] = TargetFile(2**50, group.signed.targets[path].hashes, path)
    group.signed.version += 1
    thief.sign(ROLE, group)
    thief.snapshot(group=group)


def below_the_security_floor(world: World) -> None:
    """The group's key, stolen, signs an old release again after the floor was raised."""
    world.operator.publish("1.0.0")
    world.operator.publish("2.0.0", security_floor=2)
    world.update()
    thief = Thief(world.operator)
    group = thief.load(ROLE)
    fields = group.signed.targets[target_of(GROUP, "stable", MANIFEST_FILE)].unrecognized_fields
    fields["custom"] = {**fields["custom"], "release": 1, "security_floor": 1}
    group.signed.version += 1
    thief.sign(ROLE, group)
    thief.snapshot(group=group)


def clock_in_2100(world: World) -> None:
    world.operator.publish("1.0.0")
    world.clock_shift_s = 74 * 365.25 * 86400


ATTACKS = (
    Attack("rollback of the timestamp", "rollback", timestamp_rollback),
    Attack("the same, after a torn cache", "rollback", timestamp_rollback_after_lost_cache),
    Attack("rollback of the snapshot", "rollback", snapshot_rollback),
    Attack("rollback of the targets", "rollback", targets_rollback),
    Attack("rollback of a group's targets", "rollback", group_rollback),
    Attack("release below the security floor", "rollback", below_the_security_floor),
    Attack("freeze of the timestamp", "expired", freeze),
    Attack("freeze of the snapshot", "expired", freeze_of_the_snapshot),
    Attack("freeze of the targets", "expired", freeze_of_the_targets),
    Attack("freeze of a group's targets", "expired", freeze_of_a_group),
    Attack("freeze, with the clock set back", "expired", freeze_with_clock_set_back),
    Attack("mix and match", "mismatch", mix_and_match),
    Attack("expired root", "expired", expired_root),
    Attack("signed by another group's key", "no_release", wrong_group),
    Attack("signed by a revoked key", "signature", revoked_key),
    Attack("root below its threshold", "signature", root_below_threshold),
    Attack("timestamp of a stranger", "signature", forged_timestamp),
    Attack("tampered file", "tampered", tampered),
    Attack("longer file", "too_long", longer),
    Attack("truncated file", "truncated", truncated),
    Attack("connection that breaks off", "truncated", broken_off),
    Attack("endless file", "too_long", endless_file),
    Attack("endless metadata", "too_long", endless_metadata),
    Attack("slow drip of a file", "too_slow", slow_drip_file),
    Attack("slow drip of metadata", "too_slow", slow_drip_metadata),
    Attack("slow drip of headers", "too_slow", slow_drip_headers),
    Attack("captive portal with a page", "captive_portal", captive_portal),
    Attack("captive portal with a redirect", "moved", captive_portal_redirect),
    Attack("no repository at the address", "not_found", no_repository),
    Attack("server down", "unreachable", unreachable),
    Attack("no release in the channel", "no_release", no_channel),
    Attack("no space", "no_space", no_space),
    Attack("clock in 2100", "expired", clock_in_2100),
)
