"""Job: times a candidate in turns with its parent, each in a fresh process, and judges what it finds.

A machine's speed drifts, so that only what was measured at the same time compares: the ratio to the parent is
the median over rounds of the ratio of their medians, with the band in which that median lies at 95 %.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from edge_vision.backends.parity import sqnr_db
from edge_vision.diagnostics.sensors.power import PowerMeter
from edge_vision.diagnostics.sensors.tree import Tree
from edge_vision.errors import BackendError
from edge_vision.optimize import reference
from edge_vision.optimize.agreement import agreement, read_detections
from edge_vision.optimize.worker import WorkerProcess

WARM_UP, PER_ROUND, MIN_ROUNDS, MAX_ROUNDS = 3, 5, 8, 40
TIMED_PICTURES = 4


def run(args: Mapping[str, Any]) -> dict[str, Any]:
    """args: candidate and parent (None for the one that all is compared with), each with bundle, backend,
    precision, threads; task, measure_s, pictures, found, reference, exact, truth (None = neither).

    Raises BackendError, HeadError, BundleError.
    """
    common = {"pictures": args["pictures"], "timed": TIMED_PICTURES}
    with ExitStack() as stack:
        parent = None
        if args["parent"]:
            parent = stack.enter_context(WorkerProcess("the parent", {**args["parent"], **common}))
        worker = stack.enter_context(WorkerProcess("the candidate", {**args["candidate"], **common}))
        row = {"actual": worker.actual, "cold_start_s": round(worker.cold_start_s, 3)}
        row.update(timed(worker, parent, args["measure_s"]))
        row["rss_mb"] = round(worker.ask("rss"), 1)
        worker.ask("judge", pictures=args["pictures"], out=args["found"])
        if args.get("truth"):
            row.update(_mean_ap(worker, args))
        if args.get("exact"):
            row["saturation_db"] = _saturation_db(worker, Path(args["exact"]))
    found, reference = Path(args["found"]), Path(args["reference"])
    row["agreement"] = asdict(agreement(args["task"], found, reference))
    return row


def timed(worker: WorkerProcess, parent: WorkerProcess | None, measure_s: float) -> dict[str, Any]:
    """Percentiles of a look at a picture, of its inference, the ratio to the parent, and energy."""
    for one in filter(None, (parent, worker)):
        one.ask("time", n=WARM_UP)
    meter, energy_j = PowerMeter(Tree()), 0.0
    runs: list[tuple[float, float, float]] = []
    medians: list[float] = []
    ratios: dict[str, list[float]] = {"look": [], "inference": []}
    until_s = time.monotonic() + measure_s * (2 if parent else 1)
    for number in range(MAX_ROUNDS):
        if number >= MIN_ROUNDS and time.monotonic() > until_s:
            break
        # In turns, and in turns first: a drift within a round then favours neither.
        theirs = parent.ask("time", n=PER_ROUND) if parent and number % 2 == 0 else None
        spent = meter.read(time.monotonic())
        ours = worker.ask("time", n=PER_ROUND)
        energy_j += _spent_j(meter, spent)
        if parent and theirs is None:
            theirs = parent.ask("time", n=PER_ROUND)
        runs += ours
        medians.append(median(look for look, _, _ in ours))
        for at, what in enumerate(ratios):
            if theirs:
                ratios[what].append(median(one[at] for one in ours) / median(one[at] for one in theirs))
    looks, inferences, cpu = zip(*runs, strict=True)
    return {
        **{f"p{p}_ms": round(float(np.percentile(looks, p)), 3) for p in (50, 95, 99)},
        "p50_band_ms": [round(value, 3) for value in median_band(medians)],
        "inference_p50_ms": round(median(inferences), 3),
        "ratio_to_parent": round(median(ratios["look"]), 4) if parent else 1.0,
        "ratio_band": [round(value, 4) for value in median_band(ratios["look"])] if parent else [1.0, 1.0],
        "inference_ratio": round(median(ratios["inference"]), 4) if parent else 1.0,
        "cpu_p50_ms": round(median(cpu), 3),
        "looks": len(looks),
        "energy_mj": round(1e3 * energy_j / len(looks), 1) if energy_j > 0 else "unavailable",
    }


def median_band(values: Sequence[float]) -> tuple[float, float]:
    """Between these two the median lies with 95 %: order statistics by the binomial, no law assumed.

    Source of the method: Conover, "Practical Nonparametric Statistics" (1999), 3.2, its normal approximation.
    """
    ordered = sorted(values)
    n = len(ordered)
    low = max(0, math.floor(n / 2 - 1.96 * math.sqrt(n) / 2))
    return ordered[low], ordered[n - 1 - low]


def _spent_j(meter: PowerMeter, before: Mapping[str, Any]) -> float:
    after = meter.read(time.monotonic())
    values = [reading.get("energy_j") for reading in (before, after)]
    if all(isinstance(value, float) for value in values) and before["power_source"] == after["power_source"]:
        return float(values[1] - values[0])  # type: ignore[operator]
    return 0.0


def _mean_ap(worker: WorkerProcess, args: Mapping[str, Any]) -> dict[str, float]:
    """Against labels, over all scores."""
    found = f"{args['found'].removesuffix('.npz')}.all.npz"
    worker.ask("judge", pictures=args["pictures"], out=found, score_threshold=reference.SCORE_THRESHOLD)
    return reference.mean_ap(read_detections(Path(found)), json.loads(Path(args["truth"]).read_text("utf-8")))


def _saturation_db(worker: WorkerProcess, exact: Path) -> float:
    """How much worse than exact arithmetic the runtime's own is, in dB, on the same tensors: see `graph`."""
    out = exact.with_name("outputs.npz")
    worker.ask("raw", tensors=str(exact.with_name("tensors.npz")), out=str(out))
    with np.load(exact) as kept, np.load(out) as outputs:
        return round(saturation_db(_named(kept, "fp32."), _named(kept, "exact."), _named(outputs, "")), 2)


def saturation_db(
    reference: Mapping[str, np.ndarray], exact: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]
) -> float:
    """SQNR of exact QDQ arithmetic less that of a runtime's, both against the fp32 outputs. Rounding alone
    gives some hundredths. Raises BackendError where outputs are missing or not finite."""
    missing = set(exact) - set(outputs)
    if missing:
        raise BackendError(f"expected the outputs {', '.join(sorted(exact))}, the runtime lacks {missing}")
    return _mean_db(reference, exact) - _mean_db(reference, outputs)


def _mean_db(reference: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]) -> float:
    return float(np.mean([sqnr_db({name: reference[name]}, {name: outputs[name]}) for name in reference]))


def _named(arrays: Any, prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): arrays[name] for name in arrays.files if name.startswith(prefix)}
