"""CPU time of a run over all its parts, stored in its folder, as a part may end at any time."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from edge_vision.train.same_options import read_stored

_PERIOD_S = 1.0
"""CPU time between writes: a kill loses about so much."""


def stored_cpu_s(file: Path) -> float:
    """The time in a file of a CpuClock; 0 without a complete one."""
    found = read_stored(file).get("cpu_s")
    return float(found) if isinstance(found, (int, float)) else 0.0


class CpuClock:
    """Counts the CPU time of this process as that of a run."""

    def __init__(self, file: Path, finished_s: float | None = None) -> None:
        """file: has the time of earlier parts. finished_s: of a finished run, which is not counted any
        further."""
        self._file = file
        self._finished_s = finished_s if isinstance(finished_s, (int, float)) else None
        self._before_s = stored_cpu_s(file)
        self._began_s = self._written_s = time.process_time()

    @property
    def cpu_s(self) -> float:
        """Of all parts."""
        if self._finished_s is not None:
            return self._finished_s
        return self._before_s + time.process_time() - self._began_s

    def update(self) -> None:
        """Write the time if the last write was long ago."""
        if time.process_time() - self._written_s >= _PERIOD_S:
            self.write()

    def write(self) -> None:
        """Write the time, unless the run was finished before. Raises OSError."""
        if self._finished_s is not None:
            return
        self._written_s = time.process_time()
        unfinished = self._file.with_suffix(".unfinished")
        unfinished.write_text(json.dumps({"cpu_s": round(self.cpu_s, 2)}), "utf-8")
        os.replace(unfinished, self._file)
