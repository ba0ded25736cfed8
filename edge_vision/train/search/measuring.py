"""Measures the networks of a supernet, and keeps what was measured."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edge_vision.backends.runtimes.engine_cache import write_file
from edge_vision.offline.progress import Count, no_count
from edge_vision.optimize.candidate import Size
from edge_vision.optimize.errors import OptimizeError
from edge_vision.optimize.processor import cpu_flags
from edge_vision.optimize.quantization import ptq
from edge_vision.optimize.quantization.int8_recipe import int8_recipe
from edge_vision.optimize.records import decoded
from edge_vision.train.networks.supernet import Genes, Supernet
from edge_vision.train.networks.timing import installed_runtimes, layer_times, time_ratio
from edge_vision.train.recipes.training_run import TrainingRun
from edge_vision.train.search.latency_model import LatencyErrors, LatencyModel

FITTED, UNSEEN = 32, 30
"""Networks that are measured for the latency model, and to judge it."""
REFINEMENTS = 2
"""How often networks that the search proposes are measured as well."""
_RANGE_IMAGES = 4
ROUNDS, FINAL_LOADS = 24, 3
"""Of a network for the latency model; of one that is reported."""
_STORED_S = 0.01


class Records:
    """Results by name in a file of JSON lines, each written at once: a kill loses the unfinished one."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._found: dict[str, tuple[Any, float]] = {}
        lines = file.read_bytes().split(b"\n") if file.is_file() else []
        for number, line in enumerate(lines[:-1], 1):
            try:
                self._found |= {
                    name: (value, float(cpu_s)) for name, (value, cpu_s) in json.loads(line).items()
                }
            except (ValueError, TypeError, AttributeError, RecursionError):
                raise OptimizeError(
                    f"{file}: expected a stored result in line {number}, got a damaged one: delete the line, "
                    f"and the same command measures it again"
                ) from None
        if lines and lines[-1]:
            write_file(file, b"".join(line + b"\n" for line in lines[:-1]))

    def get(self, name: str, make: Callable[[], Any], kind: Any = Any) -> Any:
        """The stored result, or the new one, which is stored. kind: see `decoded`. Raises OptimizeError if
        the stored one is another."""
        if name not in self._found:
            started = time.process_time()
            self._found[name] = make(), round(time.process_time() - started, 2)
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps({name: self._found[name]}) + "\n")
        try:
            return decoded(kind, self._found[name][0], strict=True)
        except (AttributeError, KeyError, TypeError):
            raise OptimizeError(
                f"{self._file}: expected a stored result for {name!r}, got a damaged one: delete its line, "
                f"and the same command measures it again"
            ) from None

    def __contains__(self, name: str) -> bool:
        return name in self._found

    def starting(self, prefix: str) -> list[Any]:
        """The results whose names start so."""
        return [value for name, (value, _) in self._found.items() if name.startswith(prefix)]


class Measuring:
    """Times of a supernet's networks in the installed runtimes, by that of the teacher's int8."""

    def __init__(self, run: TrainingRun, supernet: Supernet, records: Records) -> None:
        self._run, self._supernet, self._records = run, supernet, records
        self._recipe = int8_recipe(run.request.runtime, cpu_flags())
        model = supernet.network(supernet.whole)
        self._ranges = ptq.calibrate(model, run.calibration[:_RANGE_IMAGES])
        self._teacher = ptq.quantize(run.folded, ptq.calibrate(run.folded, run.calibration[:2]), self._recipe)
        self.runtimes, image = installed_runtimes(), run.calibration[0]
        self._times: dict[Genes, dict[str, float]] = {}

        def times(runtime: str, precision: str) -> Any:
            run.show(f"times of the layers, {runtime}, {precision}")
            # Of the supernet, which may be a network of our family instead of the teacher.
            timed = ptq.quantize(model, self._ranges, self._recipe) if precision == "int8" else model
            return layer_times(timed, image, runtime)

        self._layer_times = {
            runtime: {
                precision: records.get(
                    f"layers {runtime} {precision}", partial(times, runtime, precision), Mapping[str, float]
                )
                for precision in supernet.precisions
            }
            for runtime in self.runtimes
        }
        self.tensors = {size: run.calibration_tensors(supernet.spec(size))[0] for size in supernet.sizes}

    def ratios(
        self, model: Any, size: Size, rounds: int, show: Count = no_count, loads: int = FINAL_LOADS
    ) -> dict[str, float]:
        """Runtime -> time of this graph. show, loads: see `time_ratio`."""
        tensors, found = (self.tensors[size], self._run.calibration[0]), {}
        for name in self.runtimes:
            ratio = time_ratio(name, model, tensors[0], self._teacher, tensors[1], rounds, show, loads)
            found[name] = round(ratio, 4)
        return found

    def errors(self) -> dict[str, LatencyErrors]:
        """Of each runtime, on unseen random networks; the model is fitted on others."""
        rng = np.random.default_rng(self._run.request.seed)
        fitted = [self._supernet.whole, *self._supernet.spread(FITTED - 1, rng)]
        networks = [*fitted, *(self._supernet.random(rng) for _ in range(UNSEEN))]
        self._measure(networks, "latency model")
        return {
            name: self._model(name, networks[:FITTED]).errors(
                networks[FITTED:], [self._times[one][name] for one in networks[FITTED:]]
            )
            for name in self.runtimes
        }

    def model(self, runtime: str, proposed: Callable[[LatencyModel], Iterable[Genes]]) -> LatencyModel:
        """Fitted on all networks, and on those that a search proposes with it: a search finds the networks
        whose time is predicted too low."""
        for number in range(REFINEMENTS):
            what = f"latency model, refined {number + 1}/{REFINEMENTS}"
            self._measure(list(proposed(self._model(runtime, list(self._times)))), what)
        return self._model(runtime, list(self._times))

    def _model(self, runtime: str, networks: Sequence[Genes]) -> LatencyModel:
        times = [self._times[one][runtime] for one in networks]
        return LatencyModel(self._supernet, self._layer_times[runtime], networks, times)

    def _measure(self, networks: Sequence[Genes], what: str) -> None:
        left = Eta(len(networks))
        for number, genes in enumerate(networks):
            self._times[genes] = self._records.get(genes.id, partial(self._measured, genes))
            self._run.show(f"{what}: networks {left.text(number + 1)}")

    def _measured(self, genes: Genes) -> dict[str, float]:
        model = self._supernet.network(genes)
        if genes.precision == "int8":
            model = ptq.quantize(model, self._ranges, self._recipe)
        return self.ratios(model, genes.size, ROUNDS, loads=1)


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
