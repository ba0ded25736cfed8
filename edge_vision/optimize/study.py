"""The order of the work. Each step is a job; what a job came to is kept, so that a second run goes on."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edge_vision.backends import make_backend
from edge_vision.backends.host import usable_cores
from edge_vision.backends.registry import REFERENCE
from edge_vision.bundles.store import load_bundle
from edge_vision.optimize import dataset, results
from edge_vision.optimize.build_only import built_rows
from edge_vision.optimize.candidate import Candidate, Size, default_sizes
from edge_vision.optimize.errors import OptimizeError
from edge_vision.optimize.pareto import ALIKE, UNMEASURED, decide, misses
from edge_vision.optimize.quantization import int8_recipe
from edge_vision.optimize.quantization.variants import NAIVE, Graphs
from edge_vision.optimize.report.report_file import wall_before, write_report
from edge_vision.optimize.results import Row, device, failure, figures, kept_layers, line, runtime_version
from edge_vision.optimize.runtimes import first_precision, usable_backends
from edge_vision.optimize.settings import PRECISIONS, Settings, onnx_backends
from edge_vision.optimize.source import TFLITE
from edge_vision.optimize.trial import Trial, TrialExecutor, TrialOutcome, keep, kept_outcome

Say = Callable[[str], None]


class Study:
    """One model, its clips and its table, in a folder.

    say: takes a line for people. Raises OptimizeError, BundleError where the work cannot begin.
    """

    def __init__(self, folder: Path, settings: Settings, engine: TrialExecutor, say: Say) -> None:
        self._folder, self._settings, self._engine, self._say = folder, settings, engine, say
        self._started = time.monotonic() - wall_before(folder)
        self._prepared = dataset.prepared(folder, settings, say)
        self._bundle = load_bundle(f"{folder / 'source'}{os.sep}")
        has_tflite = (folder / TFLITE).is_dir()
        self._tflite = load_bundle(f"{folder / TFLITE}{os.sep}") if has_tflite else None
        self._native = Size.of(self._bundle.manifest.input)
        self._task = self._bundle.manifest.task
        self._flags = int8_recipe.cpu_flags()
        self._backends = usable_backends(settings, self._tflite)
        self._sizes = self._wanted_sizes()
        self._threads = list(settings.threads) or sorted({1, usable_cores()})
        self._graphs = Graphs(self._bundle, self._tflite, self._prepared["pictures"], self._flags, self._job)
        self._rows: dict[str, Row] = {}
        self._notes: list[str] = list(filter(None, [results.busy(results.load(), usable_cores())]))
        self._sensitivity: Mapping[str, Any] | None = None

    # The work.
    def run(self) -> dict[str, Any]:
        """Measure, choose, and write report.json after each row. Raises OptimizeError where the fp32 model
        itself does not run."""
        base = self.measure(self.baseline)
        if base["status"] == "failed":
            raise OptimizeError(f"the fp32 model does not run on {self.baseline.backend}: {base['reason']}")
        self._write(complete=False)
        firsts = [(b, first_precision(b, self._tflite)) for b in self._backends]
        self._measure_all(Candidate(b, p, self._native, t) for b, p in firsts for t in self._threads)
        if self._settings.exhaustive:
            self._every_cell()
        else:
            self._search()
        args = self._wanted_precisions(), self._native, self._graphs, self._kept_nodes(), self._job
        for row in built_rows(self._settings.built, *args):
            self._rows[row["id"]] = row
            self._say(line(row))
        return self._write(complete=True)

    def _every_cell(self) -> None:
        for mixed in (False, True):
            cells = [(size, backend) for size in self._sizes for backend in self._backends]
            for size, backend in cells:
                for precision in self._mixed(backend) if mixed else self._precisions(backend, size):
                    self._measure_all(Candidate(backend, precision, size, t) for t in self._threads)

    def _search(self) -> None:
        """Precisions at the native size with each runtime's best thread count; sizes with what was good
        there; other thread counts for the best cell."""
        threads = {backend: self._best_threads(backend) for backend in self._backends}
        for mixed in (False, True):
            for backend in self._backends:
                precisions = self._mixed(backend) if mixed else self._precisions(backend, self._native)
                self._measure_all(Candidate(backend, p, self._native, threads[backend]) for p in precisions)
        for backend in self._read_onnx:
            best = self._fastest(backend)
            for size in self._sizes[1:]:
                self._measure_all([Candidate(backend, best, size, threads[backend])])
        chosen = self._decide().chosen
        if chosen:
            one = self._rows[chosen]
            size = Size.parse(one["size"], self._native)
            self._measure_all(Candidate(one["backend"], one["precision"], size, t) for t in self._threads)

    def _measure_all(self, candidates: Iterable[Candidate]) -> None:
        for candidate in candidates:
            if candidate.id not in self._rows:
                self.measure(candidate)
                self._write(complete=False)

    @property
    def baseline(self) -> Candidate:
        """What all is compared with: the fp32 model as it came."""
        return Candidate(self._read_onnx[0], "fp32", self._native, self._threads[0])

    @property
    def _read_onnx(self) -> list[str]:
        return [backend for backend in self._backends if backend in onnx_backends()]

    def measure(self, candidate: Candidate) -> Row:
        """The row of a candidate, measured now or before."""
        graph = self._graphs.made(candidate, self._kept_nodes())
        row: Row = {
            "id": candidate.id,
            "backend": candidate.backend,
            "precision": candidate.precision,
            "size": str(candidate.size),
            "threads": candidate.threads,
            "parent": self._parent(candidate).id,
            "graph": self._graphs.folder_of(candidate),
        }
        outcome = graph
        if graph.status == "done":
            row.update(bytes=graph.result["bytes"], graph_sha256=graph.result["sha256"])
            row.update(quantized=graph.result.get("effective"), graph_why=graph.result.get("why", ""))
            outcome = self._job(self._measure_job(candidate, graph))
        row.update(figures(outcome, self._task) if outcome.status == "done" else failure(outcome))
        if outcome.status == "done":
            above = self._rows.get(row["parent"], {}).get("relative", 1.0)
            row["relative"] = round(row["ratio_to_parent"] * above, 4)
        self._rows[candidate.id] = row
        self._say(line(row))
        return row

    def _measure_job(self, candidate: Candidate, graph: TrialOutcome) -> Trial:
        parent = self._parent(candidate)
        asked: dict[str, Any] = {
            "candidate": self._load(candidate),
            "parent": None if candidate == self.baseline else self._load(parent),
            "task": self._task,
            "measure_s": self._settings.measure_s,
            "pictures": "pictures/evaluation",
            "found": f"found/{candidate.id}.npz",
            "reference": f"found/{self.baseline.id}.npz",
            "exact": graph.result.get("exact"),
            "truth": "truth.json" if self._settings.labels else None,
            "hashes": [graph.result["sha256"], self._prepared["pictures"]["evaluation"]],
            "labels": self._prepared.get("truth", ""),
            "runtime": runtime_version(candidate.backend),
        }
        return Trial("measure", candidate.id, asked)

    def _load(self, candidate: Candidate) -> dict[str, Any]:
        precision = "bf16" if candidate.precision == "bf16" else "auto"
        return {
            "bundle": self._graphs.folder_of(candidate),
            "backend": candidate.backend,
            "precision": precision,
            "threads": candidate.threads,
        }

    def _parent(self, candidate: Candidate) -> Candidate:
        """The fp32 native model in the same runtime with as many threads; for that one, the baseline's
        runtime with as many threads; for that one, the baseline."""
        own = Candidate(candidate.backend, "fp32", self._native, candidate.threads)
        first = Candidate(self.baseline.backend, "fp32", self._native, candidate.threads)
        for parent in (own, first):
            known = self._rows.get(parent.id)
            if parent != candidate and known and known["status"] != "failed":
                return parent
        return self.baseline

    # Layers that stay in fp32.
    def _mixed(self, backend: str) -> list[str]:
        """["mixed"] where it is wanted and there are layers to keep in fp32: searched once, after int8 was
        measured."""
        if "mixed" not in self._wanted_precisions() or backend not in onnx_backends():
            return []
        if self._sensitivity is None:
            recipe = int8_recipe.int8_recipe(self._read_onnx[0], self._flags)
            args = {
                "source": "source",
                "recipe": asdict(recipe),
                "calibration": "pictures/calibration",
                "tuning": "pictures/tuning",
                "ranges": f"ranges/{self._native}.json",
                "share": self._share(),
                "hashes": [self._bundle.manifest.graphs[0].sha256, *self._prepared["pictures"].values()],
            }
            outcome = self._job(Trial("sensitivity", "sensitivity", args))
            self._sensitivity = outcome.result if outcome.status == "done" else {"failure": outcome.reason}
            self._note(kept_layers(self._sensitivity))
        return ["mixed"] if self._sensitivity.get("kept") else []

    def _kept_nodes(self) -> list[str]:
        return list((self._sensitivity or {}).get("nodes", ()))

    def _share(self) -> float:
        """Of int8's loss that may stay: half, or less where the bound asks for it, with a fifth to spare.

        This one number is all that the search knows of the clips to judge on.
        """
        losses = [1.0 - row["agreement"] for row in self._measured() if row["precision"] == "int8"]
        allowed = 0.8 * self._settings.max_accuracy_loss
        return round(max(0.05, min([0.5, *(allowed / loss for loss in losses if loss > 0)])), 2)

    def _note(self, text: str) -> None:
        self._notes.append(text)
        self._say(text)

    # Jobs and choices.
    def _job(self, job: Trial) -> TrialOutcome:
        known = kept_outcome(job, self._folder)
        if known is not None:
            return known
        for folder in ("jobs", "found", "graphs"):
            (self._folder / folder).mkdir(exist_ok=True)
        outcome = self._engine.run(job, self._folder, self._settings.timeout_s)
        keep(job, outcome, self._folder)
        return outcome

    def _wanted_sizes(self) -> list[Size]:
        """Native first: it is the parent of the others."""
        if not self._settings.sizes:
            return default_sizes(self._native, self._task)
        asked = [Size.parse(text, self._native) for text in self._settings.sizes]
        return [
            self._native,
            *sorted({size for size in asked if size != self._native}, key=lambda s: -s.area),
        ]

    def _wanted_precisions(self) -> list[str]:
        """Those asked for, fp32 first; int8 needs a clip to calibrate on."""
        wanted = [p for p in PRECISIONS if p in (self._settings.precisions or PRECISIONS)]
        if not self._prepared["pictures"].get("calibration"):
            wanted = [p for p in wanted if p not in ("int8", "mixed")]
        return wanted

    def _precisions(self, backend: str, size: Size) -> list[str]:
        """Those that make sense for a runtime here, but for mixed."""
        if backend not in onnx_backends():
            return [first_precision(backend, self._tflite)] if size == self._native else []
        wanted = [p for p in self._wanted_precisions() if p != "mixed"]
        if "bf16" not in make_backend(backend).computes_in or not any(
            flag in self._flags for flag in int8_recipe.BF16_FLAGS
        ):
            wanted = [p for p in wanted if p != "bf16"]
        if "int8" in wanted and backend == REFERENCE and size == self._native:
            wanted.append(NAIVE)
        return wanted

    def _best_threads(self, backend: str) -> int:
        rows = [r for r in self._measured() if r["backend"] == backend and r["precision"] == "fp32"]
        if not rows:
            return self._threads[0]
        fastest = min(row["relative"] for row in rows)
        return min(row["threads"] for row in rows if row["relative"] <= 1.05 * fastest)

    def _fastest(self, backend: str) -> str:
        """The precision that was fastest at the native size and held the accuracy, the smallest of those
        alike; where none held it, the fastest."""
        native = str(self._native)
        rows = [r for r in self._measured() if r["backend"] == backend and r["size"] == native]
        only_accuracy = Settings("", (), max_accuracy_loss=self._settings.max_accuracy_loss)
        good = [r for r in rows if not misses(r, only_accuracy)] or rows
        if not good:
            return "fp32"
        alike = ALIKE * min(row["relative"] for row in good)
        return str(
            min((r for r in good if r["relative"] <= alike), key=lambda row: row["bytes"])["precision"]
        )

    def _measured(self) -> list[Row]:
        return [row for row in self._rows.values() if row["status"] not in UNMEASURED]

    def _decide(self) -> Any:
        return decide(list(self._rows.values()), self._settings)

    def _write(self, complete: bool) -> dict[str, Any]:
        return write_report(
            self._folder,
            {
                "complete": complete,
                "model": {"name": self._bundle.name, "task": self._task, "given": self._settings.model},
                "device": device(self._flags),
                "settings": asdict(self._settings),
                "baseline": self.baseline.id,
                "rows": list(self._rows.values()),
                "decision": asdict(self._decide()),
                "sensitivity": dict(self._sensitivity or {}),
                "notes": self._notes,
                "hashes": {**self._prepared, "source_graph": self._bundle.manifest.graphs[0].sha256},
                "wall_s": round(time.monotonic() - self._started, 1),
            },
        )
