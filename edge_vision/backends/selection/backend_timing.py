"""Measures backends against each other on one bundle, and ranks them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import median, quantiles
from typing import TYPE_CHECKING

import numpy as np

from edge_vision.backends.base import Session
from edge_vision.backends.selection.parity import sample_image, sqnr_db
from edge_vision.errors import BackendError

if TYPE_CHECKING:
    from edge_vision.bundles.store import Bundle

MIN_SQNR_DB = 15.0
"""Least signal-to-noise ratio against the reference: fp16 and bf16 have 30 to 60 dB, saturating int8 2."""
MIN_GAIN = 0.05
"""A backend must be faster than one before it in the list by this share, and by more than the spread."""
MAX_SPREAD = 0.15
WARM_UP, MIN_ROUNDS, MAX_ROUNDS, MEASURE_S = 3, 9, 60, 3.0
MAX_ATTEMPTS = 3
"""On a machine that is always busy, the third measurement is final."""


@dataclass(frozen=True, slots=True)
class BackendTiming:
    """One backend on this device. failure: why there are no figures, else "".

    rounds_ms: time of a run in each round. sqnr_db: outputs against the reference's, see `parity`.
    """

    backend: str
    rounds_ms: tuple[float, ...] = ()
    sqnr_db: float = 0.0
    failure: str = ""

    @property
    def p50_ms(self) -> float:
        return median(self.rounds_ms)

    @property
    def agrees(self) -> bool:
        return not self.failure and self.sqnr_db >= MIN_SQNR_DB

    def is_valid(self) -> bool:
        """Whether the figures can come from a measurement: the cache may be damaged."""
        times = all(one_ms > 0 and isfinite(one_ms) for one_ms in self.rounds_ms)
        return (
            isinstance(self.failure, str)
            and times
            and self.sqnr_db < float("inf")
            and (bool(self.rounds_ms) != bool(self.failure))
        )

    def __str__(self) -> str:
        if self.failure:
            return f"{self.backend} failed: {self.failure}"
        disagrees = "" if self.agrees else ", disagrees"
        return f"{self.backend} {self.p50_ms:.1f} ms ({self.sqnr_db:.0f} dB{disagrees})"


@dataclass(frozen=True, slots=True)
class TimeRatio:
    """Time of a backend divided by another's in the same round: median, half of the interquartile range."""

    value: float
    spread: float

    @classmethod
    def of(cls, timing: BackendTiming, baseline: BackendTiming) -> TimeRatio:
        ratios = [a / b for a, b in zip(timing.rounds_ms, baseline.rounds_ms, strict=False)]
        low, middle, high = quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        return cls(middle, (high - low) / 2)

    @property
    def is_faster(self) -> bool:
        return self.value + max(self.spread, MIN_GAIN) < 1.0

    def __str__(self) -> str:
        return f"{self.value:.2f} ± {self.spread:.2f}"


@dataclass(frozen=True, slots=True)
class Timings:
    """Backends measured together. busy: why the figures may be wrong, else "". attempts: pooled ones."""

    rows: tuple[BackendTiming, ...]
    busy: str = ""
    attempts: int = 1

    @property
    def provisional(self) -> bool:
        return bool(self.busy) and self.attempts < MAX_ATTEMPTS

    def is_valid_for(self, names: Sequence[str]) -> bool:
        """Whether these can be the timings of these backends."""
        lengths = {len(row.rounds_ms) for row in self.rows if not row.failure}
        named = sorted(row.backend for row in self.rows) == sorted(names)
        return named and len(lengths) <= 1 and self.attempts > 0 and all(row.is_valid() for row in self.rows)

    def pooled(self, earlier: Timings) -> Timings:
        """These with the rounds of an earlier measurement of the same backends."""
        before = {row.backend: row for row in earlier.rows}
        if any(bool(row.failure) != bool(before[row.backend].failure) for row in self.rows):
            return Timings(self.rows, self.busy, earlier.attempts + 1)
        rows = (
            BackendTiming(
                row.backend, before[row.backend].rounds_ms + row.rounds_ms, row.sqnr_db, row.failure
            )
            for row in self.rows
        )
        return Timings(tuple(rows), self.busy, earlier.attempts + 1)

    def ranked(self) -> tuple[BackendTiming, ...]:
        """The best first, then the others in their order; those that failed or disagree last.

        The best is the first that agrees, unless a later one is faster by more than the spread.
        """
        good = [row for row in self.rows if row.agrees]
        best = good[0] if good else None
        for row in good[1:]:
            if best and TimeRatio.of(row, best).is_faster:
                best = row
        return tuple(sorted(self.rows, key=lambda row: (row is not best, not row.agrees)))

    def __str__(self) -> str:
        first, *others = self.ranked()
        parts = [str(first)]
        for row in others:
            compared = f", {TimeRatio.of(row, first)} times as long" if row.agrees and first.agrees else ""
            parts.append(f"{row}{compared}")
        return ", ".join(parts)


def measure(names: Sequence[str], load: Callable[[str], Session], bundle: Bundle) -> Timings:
    """Run the same image on each backend, interleaved. The first that can be loaded is the reference.

    load: opens the bundle on a backend, may raise BackendError.
    """
    from edge_vision.core.preprocess import Preprocessor  # Imports OpenCV.

    load_average = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    spec = bundle.manifest.input
    tensor, _ = Preprocessor(spec).prepare(sample_image(spec.width_px, spec.height_px))
    inputs = {spec.name: tensor}
    sessions: dict[str, Session] = {}
    failures: dict[str, str] = {}
    for name in names:
        try:
            sessions[name] = _warmed_up(load(name), inputs)
        except BackendError as error:
            failures[name] = str(error)
    outputs = {name: _copied(session.run(inputs)) for name, session in sessions.items()}
    rounds_ms = _interleaved_ms(sessions, inputs)
    for session in sessions.values():
        session.close()
    reference = next(iter(outputs.values()), {})
    rows = tuple(
        BackendTiming(name, failure=failures[name])
        if name in failures
        else BackendTiming(name, rounds_ms[name], round(sqnr_db(reference, outputs[name]), 1))
        for name in names
    )
    return Timings(rows, _busy(load_average, rows))


def _warmed_up(session: Session, inputs: Mapping[str, np.ndarray]) -> Session:
    try:
        for _ in range(WARM_UP):
            session.run(inputs)
    except BackendError:
        session.close()
        raise
    return session


def _interleaved_ms(
    sessions: Mapping[str, Session], inputs: Mapping[str, np.ndarray]
) -> dict[str, tuple[float, ...]]:
    """Times of a run, by backend and round. Each round starts with another backend."""
    times_ms: dict[str, list[float]] = {name: [] for name in sessions}
    names = list(sessions)
    for number in _rounds():
        start = number % len(names) if names else 0
        for name in names[start:] + names[:start]:
            started_s = time.perf_counter()
            sessions[name].run(inputs)
            times_ms[name].append(round((time.perf_counter() - started_s) * 1e3, 3))
    return {name: tuple(times) for name, times in times_ms.items()}


def _rounds() -> Iterator[int]:
    end_s = time.monotonic() + MEASURE_S
    for number in range(MAX_ROUNDS):
        if number >= MIN_ROUNDS and time.monotonic() > end_s:
            return
        yield number


def _copied(outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: value.copy() for name, value in outputs.items()}


def _busy(load_average: float, rows: Sequence[BackendTiming]) -> str:
    """Why the figures may be wrong: others used the processor, or the ratios varied. "" if neither."""
    cores = os.cpu_count() or 1
    if load_average > cores / 2:
        return f"the machine was busy, load average {load_average:.1f} on {cores} cores"
    good = [row for row in rows if row.agrees]
    spread = max((TimeRatio.of(row, good[0]).spread for row in good[1:]), default=0.0)
    return f"the ratios of times varied by {spread:.0%}" if spread > MAX_SPREAD else ""
