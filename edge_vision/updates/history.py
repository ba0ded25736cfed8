"""What happened to updates on this robot: history.jsonl, and the rates that a probation compares with."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge_vision.updates.durable import write_durably
from edge_vision.updates.probation import NO_RATES, Rates

MAX_LINES = 200


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """What happened to a release, 0 if to none."""

    event: str = ""
    release: int = 0
    text: str = ""


class UpdateHistory:
    """Two files in the folder of the slots. A disk that cannot be written to loses the record only."""

    def __init__(self, folder: Path) -> None:
        self._file, self._before = folder / "history.jsonl", folder / "before.json"
        self._lines = self._read()

    def _read(self) -> list[str]:
        try:
            return self._file.read_text("utf-8").splitlines()[-MAX_LINES:]
        except (OSError, ValueError):
            return []

    def add(self, event: str, text: str, evidence: Mapping[str, Any], release: int) -> None:
        """Append an event of a release; the oldest are dropped."""
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        entry = {"at": at, "event": event, "release": release, "text": text, "evidence": dict(evidence)}
        line = json.dumps(entry)
        self._lines = [*self._lines, line][-MAX_LINES:]
        with contextlib.suppress(OSError):
            write_durably(self._file, "".join(f"{line}\n" for line in self._lines).encode())

    @property
    def last(self) -> HistoryEntry:
        """The last event."""
        try:
            entry = json.loads(self._lines[-1])
            return HistoryEntry(str(entry["event"]), int(entry.get("release", 0)), str(entry["text"]))
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            return HistoryEntry()

    def set_before(self, rates: Rates) -> None:
        """Keep the rates of the model that is about to be replaced."""
        with contextlib.suppress(OSError):
            write_durably(self._before, json.dumps(asdict(rates)).encode())

    def before(self) -> Rates:
        """The rates that were kept, or none."""
        try:
            return Rates(**json.loads(self._before.read_bytes()))
        except (OSError, ValueError, TypeError):
            return NO_RATES
