"""The variants of a model in a study: their folders, and the trials that make them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from edge_vision.backends.registry import REFERENCE
from edge_vision.bundles.store import Bundle
from edge_vision.optimize.candidate import LIBRARY_DEFAULT, Candidate, Size
from edge_vision.optimize.data.dataset import CALIBRATION, Dataset
from edge_vision.optimize.device import OptimizedDevice
from edge_vision.optimize.quantization import int8_recipe
from edge_vision.optimize.quantization.make_variant import VariantGraph, VariantTask
from edge_vision.optimize.runtimes import build_only_backends, onnx_backends
from edge_vision.optimize.source import TFLITE
from edge_vision.optimize.trials.executor import Trial, TrialOutcome
from edge_vision.optimize.trials.runner import TrialRunner


class Variants:
    """Makes the graph of a candidate, or finds it among those made before.

    source: the fp32 bundle. tflite: the bundle with the model's own TFLite graph, or None. device: that
    runs the graphs.
    """

    def __init__(
        self,
        source: Bundle,
        tflite: Bundle | None,
        dataset: Dataset,
        device: OptimizedDevice,
        runner: TrialRunner,
        trained: Mapping[str, Bundle] = {},
    ) -> None:
        """trained: by name, in folders of the study."""
        self._trained = trained
        self._source, self._tflite, self._dataset = source, tflite, dataset
        self._device, self._runner = device, runner

    def folder_of(self, candidate: Candidate) -> str:
        """Within the study's folder. Thread counts share a graph, and runtimes with the same recipe."""
        given = self._given(candidate)
        if given is not None:
            return given.folder.name
        prefix = f"{TFLITE}-" if self._converted(candidate) else ""
        recipe = self._recipe(candidate)
        if candidate.backend in build_only_backends() and recipe:
            prefix = "tensorrt-"  # It needs int8 of another recipe.
        elif recipe and not prefix and recipe.fp32_stem != self._reference().fp32_stem:
            prefix = "" if recipe.library_default else "all_int8-"
        return f"variants/{prefix}{candidate.graph_precision}-{candidate.size}"

    def classes(self, candidate: Candidate) -> tuple[str, ...]:
        """The labels of a trained bundle; empty if they are the source's."""
        labels = self._trained.get(candidate.trained, self._source).labels
        return () if labels == self._source.labels else tuple(labels)

    def class_ids(self, candidate: Candidate) -> tuple[int, ...]:
        """The source's ids of a trained bundle's labels; empty if they are the same."""
        return tuple(map(self._source.labels.index, self.classes(candidate)))

    def graph_of(self, candidate: Candidate, fp32_nodes: Sequence[str] = ()) -> TrialOutcome[VariantGraph]:
        """The graph of a candidate. fp32_nodes: nodes that `mixed` leaves in fp32."""
        given = self._given(candidate)
        if given is not None:
            graph = given.manifest.graphs[0]
            size_bytes = (given.folder / graph.file).stat().st_size
            return TrialOutcome("done", result=VariantGraph(size_bytes, graph.sha256))
        return self._runner.run(self._trial(candidate, fp32_nodes))

    def trial_of(self, candidate: Candidate, fp32_nodes: Sequence[str] = ()) -> Trial[VariantGraph] | None:
        """The trial that makes the graph of a candidate; None if it is given."""
        return None if self._given(candidate) is not None else self._trial(candidate, fp32_nodes)

    def _trial(self, candidate: Candidate, fp32_nodes: Sequence[str]) -> Trial[VariantGraph]:
        folder, recipe = self.folder_of(candidate), self._recipe(candidate)
        source = self._source.manifest.graphs[0].sha256
        task = VariantTask("source", folder, candidate.graph_precision, candidate.size)
        if self._converted(candidate):
            task = replace(task, graph_format=TFLITE)
        inputs: tuple[str, ...] = (source,)
        if recipe:
            mixed_nodes = tuple(fp32_nodes) if candidate.precision == "mixed" else ()
            ranges = f"ranges/{candidate.size}.json"
            task = replace(
                task, recipe=recipe, calibration=CALIBRATION, ranges=ranges, fp32_nodes=mixed_nodes
            )
            inputs = (source, self._dataset.calibration)
        name = folder.replace("variants/", "variant-")
        return Trial("variant", name, task, VariantGraph, inputs)

    def _given(self, candidate: Candidate) -> Bundle | None:
        """The bundle whose own graph the candidate runs, if any."""
        if candidate.trained:
            return self._trained[candidate.trained]
        if self._converted(candidate):
            own = self._tflite and self._tflite.manifest.graphs[0].precision == candidate.precision
            return self._tflite if own else None
        native = candidate.size == Size.of(self._source.manifest.input)
        return self._source if native and candidate.graph_precision == "fp32" else None

    @staticmethod
    def _converted(candidate: Candidate) -> bool:
        return candidate.backend not in (*onnx_backends(), *build_only_backends())

    def _recipe(self, candidate: Candidate) -> int8_recipe.Int8Recipe | None:
        if candidate.precision == LIBRARY_DEFAULT:
            return int8_recipe.LIBRARY_DEFAULT_RECIPE
        if candidate.precision == "mixed" and candidate.backend in onnx_backends():
            return self._reference()  # The layer search is for its graph.
        if candidate.precision in ("int8", "mixed"):
            return int8_recipe.int8_recipe(candidate.backend, self._device.flags, self._device.architecture)
        return None

    def _reference(self) -> int8_recipe.Int8Recipe:
        return int8_recipe.int8_recipe(REFERENCE, self._device.flags, self._device.architecture)
