"""Which candidates a study measures, and in which order.

The searches are generators: the caller measures each candidate before it asks for the next one, so that later
candidates depend on the measurements of earlier ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from edge_vision.backends.registry import REFERENCE
from edge_vision.bundles.store import Bundle
from edge_vision.optimize.candidate import LIBRARY_DEFAULT, Candidate, Size, default_sizes
from edge_vision.optimize.candidates.pareto import NOISE, decide, misses_agreement
from edge_vision.optimize.data.dataset import Dataset
from edge_vision.optimize.device import OptimizedDevice
from edge_vision.optimize.quantization.int8_recipe import BF16_FLAGS
from edge_vision.optimize.results import CandidateResult
from edge_vision.optimize.runtimes import computes_in, onnx_backends, selected_backends
from edge_vision.optimize.settings import PRECISIONS, Settings

Results = Mapping[str, CandidateResult]
"""By candidate id."""


@dataclass(frozen=True, slots=True)
class SearchSpace:
    """All candidates of a study. sizes: the native one first. allowed: precisions. tflite_precision: of the
    bundle's TFLite graph; fp32 without one, which is then converted. has_bf16: of the CPU."""

    backends: tuple[str, ...]
    onnx: tuple[str, ...]
    sizes: tuple[Size, ...]
    threads: tuple[int, ...]
    allowed: tuple[str, ...]
    tflite_precision: str
    has_bf16: bool

    @property
    def native(self) -> Size:
        """The size that the model was made for."""
        return self.sizes[0]

    @property
    def baseline(self) -> Candidate:
        """The unmodified fp32 model, to which every candidate is compared."""
        return Candidate(self.onnx[0], "fp32", self.native, self.threads[0])

    def first_precision(self, backend: str) -> str:
        """The precision of the graph as given: fp32, or that of the TFLite graph."""
        return "fp32" if backend in self.onnx else self.tflite_precision

    def precisions(self, backend: str, size: Size) -> list[str]:
        """The precisions for a backend and size, except mixed, which needs the layer search."""
        if backend not in self.onnx:
            converted = ["int8"] if "int8" in self.allowed else []
            return list(dict.fromkeys([self.tflite_precision, *converted])) if size == self.native else []
        selected = [precision for precision in self.allowed if precision != "mixed"]
        if not (self.has_bf16 and computes_in(backend, "bf16")):
            selected = [precision for precision in selected if precision != "bf16"]
        if "int8" in selected and backend == REFERENCE and size == self.native:
            selected.append(LIBRARY_DEFAULT)
        return selected


def search_space(
    settings: Settings, bundle: Bundle, tflite: Bundle | None, dataset: Dataset, device: OptimizedDevice
) -> SearchSpace:
    """The candidates for a model on a device. Raises OptimizeError."""
    backends = selected_backends(settings.backends, device)
    reading_onnx = onnx_backends()
    selected = [name for name in PRECISIONS if name in (settings.precisions or PRECISIONS)]
    if not dataset.calibration:
        selected = [name for name in selected if name not in ("int8", "mixed")]
    return SearchSpace(
        backends,
        tuple(name for name in backends if name in reading_onnx),
        tuple(_sizes(settings, Size.of(bundle.manifest.input), bundle.manifest.task)),
        settings.threads or tuple(sorted({1, device.cores})),
        tuple(selected),
        tflite.manifest.graphs[0].precision if tflite else "fp32",
        any(flag in device.flags for flag in BF16_FLAGS),
    )


def _sizes(settings: Settings, native: Size, task: str) -> list[Size]:
    if not settings.sizes:
        return default_sizes(native, task)
    requested = {Size.parse(text, native) for text in settings.sizes} - {native}
    return [native, *sorted(requested, key=lambda size: -size.area)]


def thread_counts(space: SearchSpace) -> Iterator[Candidate]:
    """The given graph in each backend with each thread count."""
    for backend in space.backends:
        for threads in space.threads:
            yield Candidate(backend, space.first_precision(backend), space.native, threads)


def precisions(space: SearchSpace, results: Results, exhaustive: bool) -> Iterator[Candidate]:
    """All precisions except mixed: at the native size with the best thread count, or exhaustively."""
    for size, backend in _cells(space, exhaustive):
        for precision in space.precisions(backend, size):
            for threads in _thread_counts(space, results, backend, exhaustive):
                yield Candidate(backend, precision, size, threads)


def mixed(space: SearchSpace, results: Results, exhaustive: bool) -> Iterator[Candidate]:
    """Mixed precision: at the native size with the best thread count, or exhaustively."""
    for size, backend in _cells(space, exhaustive):
        if backend in space.onnx:
            for threads in _thread_counts(space, results, backend, exhaustive):
                yield Candidate(backend, "mixed", size, threads)


def sizes(space: SearchSpace, results: Results, settings: Settings) -> Iterator[Candidate]:
    """Other sizes with the precision that was best at the native size."""
    for backend in space.onnx:
        precision = _best_precision(space, results, backend, settings)
        for size in space.sizes[1:]:
            yield Candidate(backend, precision, size, _best_threads(space, results, backend))


def chosen_threads(space: SearchSpace, results: Results, settings: Settings) -> Iterator[Candidate]:
    """Other thread counts for the candidate that would be chosen now."""
    chosen = decide([one for one in results.values() if not one.trained], settings)[1].chosen
    if chosen:
        best = results[chosen]
        for threads in space.threads:
            yield Candidate(best.backend, best.precision, Size.parse(best.size, space.native), threads)


def trained(space: SearchSpace, results: Results, bundles: Mapping[str, Bundle]) -> Iterator[Candidate]:
    """Each bundle of `optimize train` in each backend with the best thread count."""
    for name, bundle in bundles.items():
        precision, size = bundle.manifest.graphs[0].precision, Size.of(bundle.manifest.input)
        for backend in space.onnx:
            yield Candidate(backend, precision, size, _best_threads(space, results, backend), name)


def _cells(space: SearchSpace, exhaustive: bool) -> list[tuple[Size, str]]:
    considered = space.sizes if exhaustive else (space.native,)
    return [(size, backend) for size in considered for backend in space.backends]


def _thread_counts(space: SearchSpace, results: Results, backend: str, exhaustive: bool) -> tuple[int, ...]:
    return space.threads if exhaustive else (_best_threads(space, results, backend),)


def _best_threads(space: SearchSpace, results: Results, backend: str) -> int:
    """The fewest threads that are within 5 % of the fastest, in fp32."""
    measured = [one for one in _measured(results, backend) if one.precision == "fp32"]
    if not measured:
        return space.threads[0]
    fastest = min(one.relative for one in measured)
    return min(one.threads for one in measured if one.relative <= 1.05 * fastest)


def _best_precision(space: SearchSpace, results: Results, backend: str, settings: Settings) -> str:
    """The fastest precision at the native size within the accuracy bound, the smallest file of those equally
    fast; if none is within the bound, the fastest of all."""
    native = [one for one in _measured(results, backend) if one.size == str(space.native)]
    considered = [one for one in native if not misses_agreement(one, settings)] or native
    if not considered:
        return "fp32"
    limit = NOISE * min(one.relative for one in considered)
    equally_fast = [one for one in considered if one.relative <= limit]
    return min(equally_fast, key=lambda one: one.file_bytes).precision


def _measured(results: Results, backend: str) -> list[CandidateResult]:
    return [one for one in results.values() if one.measurement and one.backend == backend and not one.trained]
