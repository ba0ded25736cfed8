"""The robot's side: verifies the repository, finds the release of its group, downloads it.

python-tuf refuses rollback, mix-and-match, forged and endless metadata. Added here: what it has seen survives
power cuts, and time never runs backwards. TUF's expiry needs a clock, and a robot's may be wrong by years, so
metadata expires at the later of the clock and the latest time that signed metadata proved. Expired metadata
stops updates; it never stops the model.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from tuf.api import exceptions
from tuf.api.metadata import Metadata, Root, Snapshot, TargetFile
from tuf.api.serialization import DeserializationError
from tuf.ngclient import Updater, UpdaterConfig

from edge_vision.bundles.store import sha256_of
from edge_vision.core.redaction import redact_text
from edge_vision.errors import BundleError, UpdateError
from edge_vision.updates.durable import sync_folder, write_durably
from edge_vision.updates.release import (
    MAIN_FILES,
    SIGNED_AT,
    TIME_FORMAT,
    Release,
    parse_release,
    role_of,
    target_of,
)
from edge_vision.updates.transport import TransferFailed, Transport

RESERVE_BYTES = 16 << 20
"""Left free on the disk."""
CLOCK_SLACK = timedelta(hours=1)
PART = ".part"
_EXPIRED = (
    "nothing is updated, the present model serves; if the date is right, the operator must run: edge-vision "
    "updates timestamp"
)


def _running_s() -> float:
    """Time that passes while the machine sleeps, too, and that no clock change moves."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class Offer:
    """A verified release. files: file in the bundle -> its target."""

    release: Release
    files: Mapping[str, TargetFile]

    @property
    def digest(self) -> str:
        """Identifies the contents: the sha256 of all names and hashes."""
        lines = [f"{target.hashes['sha256']}  {file}\n" for file, target in sorted(self.files.items())]
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    @property
    def size_bytes(self) -> int:
        return sum(target.length for target in self.files.values())


@dataclass(frozen=True, slots=True)
class _Floor:
    """What must not go back. time_s: since 1970. timestamp: highest version seen that these keys signed; with
    another key it starts again, as a thief may have signed any number."""

    time_s: float
    timestamp: int = 0
    keys: str = ""
    security_floor: int = 0


class UpdateClient:
    """One robot's view of a repository. folder: for trusted metadata, which persists.

    bootstrap: the first root file, from a trusted place. clock: seconds since 1970. running: monotonic.
    Raises UpdateError for invalid arguments.
    """

    def __init__(
        self,
        url: str,
        group: str,
        channel: str,
        bootstrap: bytes,
        folder: Path,
        transport: Transport | None = None,
        clock: Callable[[], float] = time.time,
        running: Callable[[], float] = _running_s,
    ) -> None:
        if urlsplit(url).scheme not in ("http", "https", "file"):
            raise UpdateError(
                "config", f"repository_url: expected http, https or file, got {redact_text(url)!r:.80}"
            )
        self._url = url.rstrip("/") + "/"
        self._group, self._channel, self._bootstrap = group, channel, bootstrap
        target_of(group, channel)  # Raises UpdateError for an invalid one.
        self._transport, self._clock = transport or Transport(), clock
        self._running = running
        # Another root is another repository: its versions start again.
        self._folder = folder / hashlib.sha256(bootstrap).hexdigest()[:16]
        self._floor_file = self._folder / "floor.json"
        self._floor = self._read_floor()
        self._floor_read_s = self._running()
        self.clock_note = ""

    # Check.
    def check(self) -> Offer:
        """Refresh the metadata, and return the release of this group and channel. Raises UpdateError."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            updater = self._updater()
            updater.refresh()
            self._raise_floor()
            offer = self._offer(updater)
        except (exceptions.DownloadError, exceptions.RepositoryError, DeserializationError) as error:
            raise _as_update_error(error, self._now()) from error
        except BundleError as error:
            raise UpdateError("invalid_metadata", str(error)) from None
        except OSError as error:
            raise UpdateError("store", f"{self._folder}: cannot be written: {error.strerror}") from None
        return offer

    def _updater(self) -> Updater:
        updater = Updater(
            str(self._folder),
            self._url + "metadata",
            fetcher=self._transport,
            config=UpdaterConfig(max_delegations=4),
            bootstrap=self._bootstrap,
        )
        # python-tuf 7 has no public way to set the time at which metadata expires.
        updater._trusted_set.reference_time = self._now()
        return updater

    def _offer(self, updater: Updater) -> Offer:
        snapshot = Metadata[Snapshot].from_file(str(self._folder / "snapshot.json")).signed
        signed = f"{role_of(self._group)}.json" in snapshot.meta
        names = [target_of(self._group, self._channel, file) for file in MAIN_FILES if signed]
        target = next(filter(None, map(updater.get_targetinfo, names)), None)
        if target is None:
            raise UpdateError(
                "no_release",
                f"expected a release for group {self._group}, channel {self._channel}, got none in the "
                "repository; check both parameters",
            )
        release = parse_release(target.custom)
        if release.channel != self._channel or release.release < self._floor.security_floor:
            raise UpdateError("rollback", f"{release}: below the security floor {self._floor.security_floor}")
        files: dict[str, TargetFile] = {}
        for file in release.files:
            found = updater.get_targetinfo(target_of(self._group, self._channel, file))
            if found is None or "sha256" not in found.hashes:
                raise UpdateError("invalid_metadata", f"{release}: expected a target for {file}, got none")
            files[file] = found
        self._save_floor(security_floor=max(self._floor.security_floor, release.security_floor))
        return Offer(release, files)

    # Time.
    def _now(self) -> datetime:
        """The later of the clock and the floor, which runs on while this process does."""
        floor_s = self._floor.time_s + self._running() - self._floor_read_s
        return datetime.fromtimestamp(max(self._clock(), floor_s), timezone.utc)

    def _read_floor(self) -> _Floor:
        first = _Floor(_signed_at(self._bootstrap).timestamp())
        try:
            found = json.loads(self._floor_file.read_bytes())
            numbers = {name: max(0, found[name]) for name in ("time_s", "timestamp", "security_floor")}
            read = _Floor(**numbers, keys=str(found["keys"]))
        except (OSError, ValueError, TypeError, KeyError):
            return first
        return replace(read, time_s=max(first.time_s, read.time_s))

    def _raise_floor(self) -> None:
        """Keep what the present timestamp proves. Raises UpdateError for one older than seen before."""
        data = (self._folder / "timestamp.json").read_bytes()
        version, signed_at = Metadata.from_bytes(data).signed.version, _signed_at(data)
        root = Metadata[Root].from_file(str(self._folder / "root.json")).signed
        keys = " ".join(sorted(root.roles["timestamp"].keyids))
        if keys == self._floor.keys and version < self._floor.timestamp:
            raise UpdateError(
                "rollback", f"timestamp: expected version {self._floor.timestamp} or later, got {version}"
            )
        now = datetime.fromtimestamp(self._clock(), timezone.utc)
        behind = max(self._now(), signed_at) - now
        self.clock_note = f"the clock is {_duration(behind)} behind" if behind > CLOCK_SLACK else ""
        # The metadata is valid at `_now`, so the clock is at most its period of validity ahead.
        self._save_floor(time_s=max(self._now(), signed_at).timestamp(), timestamp=version, keys=keys)

    def _save_floor(self, **changes: Any) -> None:
        floor = replace(self._floor, **changes)
        if "time_s" in changes:
            self._floor_read_s = self._running()
        self._floor = floor
        write_durably(self._floor_file, json.dumps(asdict(floor)).encode())

    # Download.
    def download(
        self,
        offer: Offer,
        folder: Path,
        reuse: Iterable[Path] = (),
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        """Complete a folder with an offer's files, verified and on disk. What is there already is kept.

        reuse: folders of bundles whose files may be the same. progress: called with bytes done and in total.
        Raises UpdateError; then the next call continues.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._check_space(offer, folder)
            done = 0
            for file, target in offer.files.items():
                path = folder / file
                path.parent.mkdir(parents=True, exist_ok=True)
                if not _is_complete(path, target) and not _link_from(reuse, file, path, target):
                    self._download_file(target, path, partial(_report, progress, done, offer.size_bytes))
                done += target.length
                progress(done, offer.size_bytes)
            sync_folder(folder)
        except exceptions.DownloadError as error:
            raise _as_update_error(error, self._now()) from error
        except OSError as error:
            reason = "no_space" if error.errno in _NO_SPACE else "store"
            raise UpdateError(reason, f"{folder}: cannot be written: {error.strerror}") from None

    def _check_space(self, offer: Offer, folder: Path) -> None:
        there = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        needed = offer.size_bytes - there + RESERVE_BYTES
        free = shutil.disk_usage(folder).free
        if free < needed:
            raise UpdateError(
                "no_space",
                f"{folder}: expected {needed / 1e6:.0f} MB of free space for {offer.release}, got "
                f"{free / 1e6:.0f} MB; free some",
            )

    def _download_file(self, target: TargetFile, path: Path, progress: Callable[[int], None]) -> None:
        (prefixed,) = target.get_prefixed_paths()
        url = f"{self._url}targets/{quote(prefixed)}"
        part = path.with_name(path.name + PART)
        resumed = part.is_file() and part.stat().st_size > 0
        try:
            self._receive(url, target, part, progress)
        except UpdateError as error:
            if error.reason != "tampered" or not resumed:
                raise
            # The part was of another transfer, or damaged.
            self._receive(url, target, part, progress)
        os.replace(part, path)
        sync_folder(path.parent)

    def _receive(self, url: str, target: TargetFile, part: Path, progress: Callable[[int], None]) -> None:
        start = part.stat().st_size if part.is_file() else 0
        start = start if start <= target.length else 0
        missing, shown = target.length - start, redact_text(url)
        with part.open("r+b" if part.is_file() else "wb") as file:
            if missing:
                offset, blocks = self._transport.open(url, start, self._transport.limits.deadline_s(missing))
                file.seek(offset)
                file.truncate()
                for block in blocks:
                    file.write(block)
                    if file.tell() > target.length:
                        file.truncate(0)
                        raise UpdateError("too_long", f"{shown}: expected {target.length} bytes, got more")
                    progress(file.tell())
            file.flush()
            os.fsync(file.fileno())
        if (size := part.stat().st_size) < target.length:
            raise UpdateError("truncated", f"{shown}: expected {target.length} bytes, got {size}")
        if not _is_complete(part, target):
            part.unlink()
            raise UpdateError("tampered", f"{shown}: expected sha256 {target.hashes['sha256']}, got another")


_NO_SPACE = (28, 122)
"""ENOSPC, EDQUOT."""


def _duration(time: timedelta) -> str:
    hours = time.total_seconds() / 3600
    return f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.0f} days"


def _signed_at(data: bytes) -> datetime:
    """When a metadata file was signed, 1970 if it does not say. Raises UpdateError for other files."""
    try:
        text = Metadata.from_bytes(data).signed.unrecognized_fields.get(SIGNED_AT, "1970-01-01T00:00:00Z")
        return datetime.strptime(text, TIME_FORMAT).replace(tzinfo=timezone.utc)
    except (DeserializationError, ValueError, TypeError) as error:
        raise UpdateError(
            "config", f"bootstrap root: expected TUF metadata such as 1.root.json, got: {error}"
        ) from None


def _is_complete(path: Path, target: TargetFile) -> bool:
    try:
        same_size = path.is_file() and path.stat().st_size == target.length
    except OSError:
        return False
    return same_size and sha256_of(path) == target.hashes["sha256"]


def _link_from(folders: Iterable[Path], file: str, path: Path, target: TargetFile) -> bool:
    """Link an identical file of another bundle. False if there is none, or the file system has no links."""
    for folder in folders:
        if _is_complete(folder / file, target):
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                os.link(folder / file, path)
                return True
    return False


def _report(progress: Callable[[int, int], None], before: int, total: int, done: int) -> None:
    progress(before + done, total)


_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (exceptions.UnsignedMetadataError, "signature"),
    (exceptions.ExpiredMetadataError, "expired"),
    (exceptions.BadVersionNumberError, "rollback"),
    (exceptions.LengthOrHashMismatchError, "mismatch"),
    (exceptions.DownloadLengthMismatchError, "too_long"),
    (exceptions.DownloadHTTPError, "not_found"),
    (exceptions.RepositoryError, "invalid_metadata"),
    (DeserializationError, "invalid_metadata"),
)


def _as_update_error(error: Exception, now: datetime) -> UpdateError:
    if isinstance(error, TransferFailed):
        return UpdateError(error.reason, str(error))
    reason = next((reason for kind, reason in _REASONS if isinstance(error, kind)), "unreachable")
    text = f"{error}" or type(error).__name__
    if reason == "expired":
        text = f"{text} at {now:%Y-%m-%d %H:%M} UTC: {_EXPIRED}"
    return UpdateError(reason, f"the repository is refused: {text}"[:500])
