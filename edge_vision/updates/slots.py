"""Two slots for downloaded bundles, and which of them serves: state that survives a power cut at any instant.

    FOLDER/
      state.json           replaced atomically; every change is one replacement
      bundles/DIGEST/      complete bundles, named after their contents
      staging/DIGEST/      downloads

Without a bundle in a slot, the model of the detector's own parameter serves ("factory"). A new bundle serves
on trial: each start with it is counted before it is loaded. After MAX_TRIES starts that were not confirmed,
the other slot serves and the bundle is barred. A store that cannot be written to serves what is proven.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from edge_vision.bundles import schema
from edge_vision.errors import BundleError, UpdateError
from edge_vision.updates.durable import sync_folder, write_durably
from edge_vision.updates.release import Release

MAX_TRIES = 3
MAX_BARRED = 100
NAMES = ("a", "b")


@dataclass(frozen=True, slots=True)
class Slot:
    """A bundle in a slot. digest: of its contents. proven: it has passed its probation."""

    digest: str
    name: str
    version: str
    release: int
    proven: bool = False

    def __str__(self) -> str:
        return f"{self.name} {self.version} (release {self.release})"


@dataclass(frozen=True, slots=True)
class SlotState:
    """What state.json contains.

    serving: a, b, or "" for the factory model. tries: starts with an unproven bundle. barred: digest ->
    reason. factory: the detector's model before the first update. changes: counts the writes.
    """

    serving: str = ""
    slots: Mapping[str, Slot] = field(default_factory=dict)
    tries: int = 0
    security_floor: int = 0
    factory: str = ""
    barred: Mapping[str, str] = field(default_factory=dict)
    changes: int = 0

    @property
    def current(self) -> Slot | None:
        """The slot that serves, None for the factory model."""
        return self.slots.get(self.serving)

    @property
    def other(self) -> str:
        """The name of the slot for the next bundle."""
        return "a" if self.serving == "b" else "b"

    @property
    def candidate(self) -> Slot | None:
        """A downloaded bundle that has not served yet."""
        slot = self.slots.get(self.other)
        return slot if slot and not slot.proven else None

    def without_current(self, reason: str, bar: bool = True) -> SlotState:
        """The other slot serves if it is proven and allowed, otherwise the factory model."""
        current, back = self.current, self.slots.get(self.other)
        usable = back is not None and back.proven and back.release >= self.security_floor
        barred = {**self.barred, **({current.digest: reason} if current and bar else {})}
        return replace(
            self,
            serving=self.other if usable else "",
            slots={name: slot for name, slot in self.slots.items() if name != self.serving},
            tries=0,
            barred=dict(list(barred.items())[-MAX_BARRED:]),
        )


def bundle_path(folder: Path, slot: Slot) -> Path:
    """Where a store has the bundle of a slot."""
    return folder / "bundles" / slot.digest


def staging_path(folder: Path, digest: str) -> Path:
    """Where to download a bundle to."""
    return folder / "staging" / digest


def read_state(folder: Path) -> SlotState:
    """The state of a store, which another process may have open. Raises OSError, ValueError, BundleError."""
    try:
        return _parse(json.loads((folder / "state.json").read_text("utf-8")))
    except (FileNotFoundError, NotADirectoryError):
        return SlotState()


class SlotStore:
    """The slots in a folder, for one process at a time. note: what limits the store, "" if nothing does.

    Raises UpdateError if another process uses the folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.note = folder, ""
        self._file, self._bundles = folder / "state.json", folder / "bundles"
        self._lock: int | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise UpdateError(
                "busy",
                f"{folder}: expected one updater for this folder, got another that is running; stop one",
            ) from None
        except OSError as error:
            self.note = f"{folder}: cannot be created: {error.strerror}; nothing can be updated"
        self.state = self._read()

    def close(self) -> None:
        """Let another process use the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def bundle_path(self, slot: Slot) -> Path:
        return bundle_path(self.folder, slot)

    # Changes. Each writes the state once; a failed write leaves it as it was, and raises UpdateError.
    def install(self, digest: str, release: Release) -> None:
        """Move a downloaded bundle from `staging` into the slot that does not serve."""
        if reason := self.state.barred.get(digest):
            raise UpdateError("barred", f"{release}: barred on this robot: {reason}")
        state = self.state
        slot = Slot(digest, release.name, release.version, release.release)
        try:
            target = self._bundles / digest
            self._bundles.mkdir(parents=True, exist_ok=True)
            if not target.is_dir():
                os.rename(staging_path(self.folder, digest), target)
                sync_folder(self._bundles)
        except OSError as error:
            raise self._unwritable(error) from None
        floor = max(state.security_floor, release.security_floor)
        self._save(replace(state, slots={**state.slots, state.other: slot}, security_floor=floor))
        self._remove_unused()

    def promote(self, factory: str = "") -> Slot:
        """Let the candidate serve, on trial. factory: the detector's present model, if not of a slot."""
        state, slot = self.state, self.state.candidate
        if slot is None:
            raise UpdateError(
                "no_candidate", "expected a downloaded bundle to promote, got none; `check` first"
            )
        self._save(replace(state, serving=state.other, tries=0, factory=factory or state.factory))
        return slot

    def reject(self, reason: str) -> None:
        """Bar the candidate, which has not served."""
        state, slot = self.state, self.state.candidate
        if slot:
            slots = {name: one for name, one in state.slots.items() if name != state.other}
            barred = {**state.barred, slot.digest: reason}
            self._save(replace(state, slots=slots, barred=dict(list(barred.items())[-MAX_BARRED:])))

    def withdraw(self) -> None:
        """Forget the candidate, which may be downloaded again."""
        state = self.state
        if state.candidate:
            slots = {name: one for name, one in state.slots.items() if name != state.other}
            self._save(replace(state, slots=slots))
            self._remove_unused()

    def begin(self) -> Slot | None:
        """The slot to load now, None for the factory model. Counts the try of an unproven one.

        If that cannot be written, what is proven serves.
        """
        state = self.state
        while (slot := state.current) is not None and (problem := self._problem(slot, state)):
            state = state.without_current(problem, bar=state.tries >= MAX_TRIES)
        if slot and not slot.proven:
            state = replace(state, tries=state.tries + 1)
        if state != self.state:
            try:
                self._save(state)
            except UpdateError as error:
                self.note = str(error)
                self.state = state if slot is None or slot.proven else state.without_current("", bar=False)
        return self.state.current

    def confirm(self) -> None:
        """The bundle that serves has passed its probation."""
        state, slot = self.state, self.state.current
        if slot and not slot.proven:
            slots = {**state.slots, state.serving: replace(slot, proven=True)}
            self._save(replace(state, slots=slots, tries=0))

    def roll_back(self, reason: str) -> Slot | None:
        """Bar the bundle that serves. Returns the slot that serves now, None for the factory model.

        Also if that cannot be written.
        """
        if self.state.current is None:
            raise UpdateError("no_update", "expected an update to roll back, got the factory model")
        state = self.state.without_current(reason)
        try:
            self._save(state)
        except UpdateError as error:
            # On disk its tries remain counted: the next starts repeat this.
            self.state, self.note = state, str(error)
        return self.state.current

    # Files.
    def _problem(self, slot: Slot, state: SlotState) -> str:
        if not slot.proven and state.tries >= MAX_TRIES:
            return f"{MAX_TRIES} starts with it were not confirmed"
        return "" if self.bundle_path(slot).is_dir() else "its folder is missing"

    def _read(self) -> SlotState:
        try:
            return read_state(self.folder)
        except (OSError, ValueError, RecursionError, BundleError) as error:
            self.note = (
                f"{self._file}: expected the state of the slots, got: {error}; the factory model serves"
            )
            return SlotState()

    def _save(self, state: SlotState) -> None:
        state = replace(state, changes=self.state.changes + 1)
        try:
            write_durably(self._file, json.dumps(asdict(state), indent=1).encode())
        except OSError as error:
            # The new file may be in place with the folder not flushed: what is read is what counts.
            with contextlib.suppress(OSError, ValueError, BundleError):
                self.state = read_state(self.folder)
            raise self._unwritable(error) from None
        self.state, self.note = state, ""

    def _unwritable(self, error: OSError) -> UpdateError:
        return UpdateError("store", f"{self.folder}: cannot be written: {error.strerror}")

    def _remove_unused(self) -> None:
        """Remove bundles that no slot has, and other downloads."""
        used = {slot.digest for slot in self.state.slots.values()}
        for folder in (self._bundles, self.folder / "staging"):
            for path in folder.iterdir() if folder.is_dir() else ():
                if path.name not in used:
                    shutil.rmtree(path, ignore_errors=True)


def _parse(value: Any) -> SlotState:
    """The state in a document. Raises BundleError."""
    top = schema.Section(value, "state.json", "", tuple(SlotState.__dataclass_fields__))
    count = (schema.integer(0, 2**53), "a whole number")
    digest = schema.matching(r"[0-9a-f]{64}")
    slots = {}
    for name, one in top.take("slots", schema.plain_mapping, "a mapping").items():
        section = schema.Section(one, "state.json", f"slots.{name}", tuple(Slot.__dataclass_fields__))
        slots[schema.one_of(*NAMES)(name)] = Slot(
            section.take("digest", digest, "64 hex digits"),
            section.take("name", schema.text, "a text"),
            section.take("version", schema.text, "a text"),
            section.take("release", *count),
            section.take("proven", schema.one_of(True, False), "true or false"),
        )
    return SlotState(
        top.take("serving", schema.one_of("", *slots), "a slot with a bundle, or an empty text"),
        slots,
        top.take("tries", *count),
        top.take("security_floor", *count),
        top.take("factory", schema.text, "a text"),
        {digest(key): schema.text(reason) for key, reason in top.take("barred", dict, "a mapping").items()},
        top.take("changes", *count),
    )
