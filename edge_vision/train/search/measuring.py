"""Measures the networks of a supernet, and keeps what was measured."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edge_vision.optimize.candidate import Size
from edge_vision.optimize.quantization import ptq
from edge_vision.optimize.quantization.int8_recipe import cpu_flags, int8_recipe
from edge_vision.train.networks.supernet import Genes, Supernet
from edge_vision.train.networks.timing import installed_runtimes, layer_times, runner, time_ratio
from edge_vision.train.recipes.training_run import TrainingRun
from edge_vision.train.search.latency_model import LatencyErrors, LatencyModel

FITTED, UNSEEN = 32, 30
"""Networks that are measured for the latency model, and to judge it."""
_RANGE_IMAGES = 4
ROUNDS = 24
_STORED_S = 0.01


class Records:
    """Results by name in a file of JSON lines, each written at once: a kill loses the unfinished one."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._found: dict[str, tuple[Any, float]] = {}
        lines = file.read_text("utf-8").split("\n") if file.is_file() else []
        for line in lines[:-1]:
            self._found.update(json.loads(line))
        if lines and lines[-1]:
            file.write_text("".join(f"{line}\n" for line in lines[:-1]), "utf-8")

    @property
    def cpu_s(self) -> float:
        """Of all results together."""
        return float(sum(cpu_s for _, cpu_s in self._found.values()))

    def get(self, name: str, make: Callable[[], Any]) -> Any:
        """The stored result, or the new one, which is stored."""
        if name not in self._found:
            started = time.process_time()
            self._found[name] = make(), round(time.process_time() - started, 2)
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps({name: self._found[name]}) + "\n")
        return self._found[name][0]

    def starting(self, prefix: str) -> list[Any]:
        """The results whose names start so."""
        return [value for name, (value, _) in self._found.items() if name.startswith(prefix)]


class Measuring:
    """Times of a supernet's networks in the installed runtimes, by that of the teacher's int8."""

    def __init__(
        self, run: TrainingRun, supernet: Supernet, records: Records, show: Callable[[str], None]
    ) -> None:
        self._run, self._supernet, self._records, self._show = run, supernet, records, show
        self._recipe = int8_recipe("onnxruntime", cpu_flags())
        model = supernet.network(supernet.whole)
        self._ranges = ptq.calibrate(model, run.calibration[:_RANGE_IMAGES])
        self._teacher = ptq.quantize(run.folded, ptq.calibrate(run.folded, run.calibration[:2]), self._recipe)
        self.runtimes, image = installed_runtimes(), run.calibration[0]
        self._layer_times = {
            precision: records.get(
                f"layers {precision}",
                partial(layer_times, {"int8": self._teacher}.get(precision, model), image),
            )
            for precision in supernet.precisions
        }
        self.tensors = {size: run.calibration_tensors(supernet.spec(size))[0] for size in supernet.sizes}

    def ratios(self, model: Any, size: Size, rounds: int) -> dict[str, float]:
        """Runtime -> time of this graph.

        Both are loaded anew: one that was loaded long ago runs faster, by up to 10 % in OpenVINO.
        """
        tensors, found = (self.tensors[size], self._run.calibration[0]), {}
        for name in self.runtimes:
            ours, other = (runner(name, one) for one in (model, self._teacher))
            found[name] = round(time_ratio(ours, tensors[0], other, tensors[1], rounds), 4)
        return found

    def models(self) -> tuple[dict[str, LatencyModel], dict[str, LatencyErrors]]:
        """Of each runtime the model, fitted on all networks, and its errors on unseen ones without these."""
        rng = np.random.default_rng(self._run.request.seed)
        networks = [self._supernet.whole, *(self._supernet.random(rng) for _ in range(FITTED + UNSEEN - 1))]
        left, found = Eta(len(networks)), []
        for number, genes in enumerate(networks):
            found.append(self._records.get(genes.id, partial(self._measured, genes)))
            self._show(f"latency model: networks {left.text(number + 1)}")
        models, errors = {}, {}
        for name in self.runtimes:
            times = [one[name] for one in found]
            fitted = LatencyModel(self._supernet, self._layer_times, networks[:FITTED], times[:FITTED])
            errors[name] = fitted.errors(networks[FITTED:], times[FITTED:])
            models[name] = LatencyModel(self._supernet, self._layer_times, networks, times)
        return models, errors

    def _measured(self, genes: Genes) -> dict[str, float]:
        model = self._supernet.network(genes)
        if genes.precision == "int8":
            model = ptq.quantize(model, self._ranges, self._recipe)
        return self.ratios(model, genes.size, ROUNDS)


class Eta:
    """Done, total and time left."""

    def __init__(self, total: int) -> None:
        self._total, self._last = total, time.monotonic()
        self._taken: list[float] = []

    def text(self, done: int) -> str:
        """As `3/9, 12 s left`. Stored results, which take no time, are left out of the mean."""
        taken, self._last = time.monotonic() - self._last, time.monotonic()
        self._taken += [taken] if taken > _STORED_S else []
        left_s = (self._total - done) * sum(self._taken) / max(1, len(self._taken))
        return f"{done}/{self._total}, {left_s:.0f} s left"
