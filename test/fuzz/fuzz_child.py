"""Runs one target: `python fuzz_child.py ORDER`, ORDER in JSON. Writes result.json into the order's folder.

The seeds come first, then mutants, each from a random generator of its own: mutant 17 of a seed is always the
same. Before a mutant is checked, its index and bytes are in current.bin, in case it kills this process.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path
from random import Random
from typing import Any

from targets import Target, target_class

MAX_CPU_S = 2.0
MAX_RSS_GROWTH_MB = 200.0
MAX_ERROR_CHARS = 4000
"""Of a refusal: it becomes a line of a log."""
_MAX_REPRODUCERS = 20


class Campaign:
    """Checks mutants of one target and counts what happens."""

    def __init__(self, target: Target, out: Path, seed: int) -> None:
        self._target, self._out, self._seed = target, out, seed
        self._current = os.open(out / "current.bin", os.O_RDWR | os.O_CREAT)
        self._failures: dict[str, dict[str, Any]] = {}
        self._failed = self._accepted = self._mutants = 0
        self._slowest_ms, self._start_mb = 0.0, 0.0

    def run(self, mutants: int, seconds: float) -> dict[str, Any]:
        """Check the seeds and then mutants, until both limits are reached."""
        for index in range(-len(self._target.seeds), 0):
            self._one(index, self._target.seeds[index])
        self._start_mb = peak_rss_mb()
        until_s = time.monotonic() + seconds
        while self._mutants < mutants or time.monotonic() < until_s:
            random = Random(f"{self._seed} {self._target.name} {self._mutants}")
            self._one(self._mutants, self._target.mutant(random))
            self._mutants += 1
        return self._result()

    def _one(self, index: int, data: bytes) -> None:
        block = max(index, 0).to_bytes(8, "little") + data
        os.pwrite(self._current, block, 0)
        os.ftruncate(self._current, len(block))
        started_s, cpu_s = time.perf_counter(), time.process_time()
        try:
            self._target.check(data)
            self._accepted += 1
        except self._target.refusals as error:
            if len(str(error)) > MAX_ERROR_CHARS:
                self._fail(
                    index, data, "long error", f"an error of {len(str(error))} characters: {error!s:.200}"
                )
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            text = "".join(traceback.format_exception(error))[-4000:]
            self._fail(index, data, f"{type(error).__name__} {where.filename} {where.lineno}", text)
        self._slowest_ms = max(self._slowest_ms, (time.perf_counter() - started_s) * 1e3)
        if self._target.timed and time.process_time() - cpu_s > MAX_CPU_S:
            self._fail(index, data, "slow", f"{time.process_time() - cpu_s:.1f} s of CPU time")
        if self._start_mb and (growth_mb := peak_rss_mb() - self._start_mb) > MAX_RSS_GROWTH_MB:
            error = f"the peak memory grew by {growth_mb:.0f} MB (limit {MAX_RSS_GROWTH_MB:.0f} MB)"
            self._fail(index, data, "memory", error)

    def _fail(self, index: int, data: bytes, kind: str, error: str) -> None:
        """Count a failure and keep the first mutant of each kind."""
        self._failed += 1
        if kind not in self._failures and len(self._failures) < _MAX_REPRODUCERS:
            file = self._out / f"failure_{index}.bin"
            file.write_bytes(data)
            self._failures[kind] = {"index": index, "error": error, "reproducer": str(file)}

    def _result(self) -> dict[str, Any]:
        return {
            "mutants": self._mutants,
            "accepted": self._accepted,
            "failed": self._failed,
            "failures": list(self._failures.values()),
            "slowest_ms": round(self._slowest_ms, 1),
            "rss_growth_mb": round(peak_rss_mb() - self._start_mb, 1),
            **self._target.counts,
        }


def peak_rss_mb(pid: int | str = "self") -> float:
    """The peak resident memory of a process, 0 if the kernel does not report it."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), 0.0)


def main() -> None:
    """Carry out the order."""
    order = json.loads(sys.argv[1])
    out = Path(order["out"])
    with tempfile.TemporaryDirectory(prefix="edge_vision_fuzz_") as folder:
        os.environ["EDGE_VISION_CACHE"] = str(Path(folder) / "cache")
        work = Path(folder) / "work"
        work.mkdir()
        target = target_class(order["target"])(work)
        target.timed = order["timed"]
        campaign = Campaign(target, out, order["seed"])
        try:
            result = campaign.run(order["mutants"], order["seconds"])
        finally:
            target.close()
    (out / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
