"""Measures candidates and keeps their results: the table of a study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edge_vision.optimize.candidate import Candidate
from edge_vision.optimize.data.dataset import EVALUATION, LABELS, Dataset
from edge_vision.optimize.device import OptimizedDevice
from edge_vision.optimize.quantization.variants import Variants
from edge_vision.optimize.results import CandidateResult, failure_reason
from edge_vision.optimize.settings import Settings
from edge_vision.optimize.trials.build_only import BuildTask, BuiltEngine
from edge_vision.optimize.trials.executor import Trial
from edge_vision.optimize.trials.measure import Measurement, MeasureTask
from edge_vision.optimize.trials.runner import TrialRunner
from edge_vision.optimize.trials.worker import WorkerSetup


class CandidateTable:
    """results: by candidate id, in the order of measurement. task: of the model, detect or classify."""

    def __init__(
        self,
        baseline: Candidate,
        task: str,
        settings: Settings,
        dataset: Dataset,
        device: OptimizedDevice,
        variants: Variants,
        runner: TrialRunner,
    ) -> None:
        self.results: dict[str, CandidateResult] = {}
        self._baseline, self._task, self._settings = baseline, task, settings
        self._dataset, self._device, self._variants, self._runner = dataset, device, variants, runner

    def prepare(self, candidates: Sequence[Candidate], fp32_nodes: tuple[str, ...] = ()) -> None:
        """Run the trials of several candidates at once, if the executor can, so that `measure` finds them.

        A candidate whose parent may be another one of them is left to `measure`. Raises DiskFull, TimeSpent.
        """
        if not self._runner.parallel:
            return
        new = [one for one in candidates if one.id not in self.results]
        self._runner.prepare(
            [trial for one in new if (trial := self._variants.trial_of(one, fp32_nodes)) is not None]
        )
        found = {one: self._with_graph(one, fp32_nodes) for one in new}
        self._runner.prepare(
            [
                self._measurement(one, result)
                for one, result in found.items()
                if result.graph is not None and not set(self._parents(one)) & set(new) - {one}
            ]
        )

    def measure(self, candidate: Candidate, fp32_nodes: tuple[str, ...] = ()) -> CandidateResult:
        """Measure a candidate and add its result. fp32_nodes: left in fp32 by `mixed`. Raises DiskFull,
        TimeSpent."""
        result = self._with_graph(candidate, fp32_nodes)
        if result.graph is not None:
            outcome = self._runner.run(self._measurement(candidate, result))
            if outcome.result is None:
                result = replace(result, status="failed", reason=failure_reason(outcome))
            else:
                parent = self.results.get(result.parent)
                relative = outcome.result.timing.ratio_to_parent * (parent.relative if parent else 1.0)
                result = replace(result, measurement=outcome.result, relative=round(relative, 4))
        self.results[candidate.id] = result
        return result

    def build(self, candidate: Candidate, fp32_nodes: tuple[str, ...] = ()) -> CandidateResult:
        """Build the engine of a candidate without running it, and add its result. Raises DiskFull,
        TimeSpent."""
        result = replace(self._with_graph(candidate, fp32_nodes), parent="")
        if result.graph is not None:
            task = BuildTask(result.folder, candidate.backend)
            inputs = (result.graph.sha256, *self._device.backends.get(candidate.backend, ()))
            outcome = self._runner.run(Trial("build", candidate.id, task, BuiltEngine, inputs))
            if outcome.result is None:
                result = replace(result, status="failed", reason=failure_reason(outcome))
            else:
                size_mb = outcome.result.engine_bytes / 1e6
                reason = (
                    f"built in {outcome.result.build_s:.1f} s, engine of {size_mb:.1f} MB, not run: without "
                    f"a measurement it cannot be chosen"
                )
                result = replace(result, status="built", reason=reason, engine=outcome.result)
        self.results[candidate.id] = result
        return result

    def _with_graph(self, candidate: Candidate, fp32_nodes: tuple[str, ...]) -> CandidateResult:
        """The result with the graph, or with the status failed."""
        outcome = self._variants.graph_of(candidate, fp32_nodes)
        return CandidateResult(
            candidate.id,
            candidate.backend,
            candidate.precision,
            str(candidate.size),
            candidate.threads,
            self._parent(candidate).id,
            self._variants.folder_of(candidate),
            "failed" if outcome.result is None else "measured",
            failure_reason(outcome) if outcome.result is None else "",
            graph=outcome.result,
            trained=candidate.trained,
            classes=self._variants.classes(candidate),
        )

    def _measurement(self, candidate: Candidate, result: CandidateResult) -> Trial[Measurement]:
        assert result.graph is not None
        parent, class_ids = self._parent(candidate), self._variants.class_ids(candidate)
        task = MeasureTask(
            self._setup(candidate),
            None if candidate == self._baseline else self._setup(parent),
            self._task,
            self._settings.measure_s,
            predictions_file(candidate.id),
            predictions_file(self._baseline.id),
            result.graph.exact,
            LABELS if self._settings.labels and not class_ids else "",
            class_ids,
        )
        data = (result.graph.sha256, self._dataset.evaluation, self._dataset.labels)
        machine = (self._device.identity, *self._device.backends.get(candidate.backend, ()))
        return Trial("measure", candidate.id, task, Measurement, (*data, *machine))

    def _setup(self, candidate: Candidate) -> WorkerSetup:
        precision = "bf16" if candidate.precision == "bf16" else "auto"
        folder = self._variants.folder_of(candidate)
        return WorkerSetup(folder, candidate.backend, precision, candidate.threads, EVALUATION)

    def _parent(self, candidate: Candidate) -> Candidate:
        """The fp32 model of native size in the same backend with the same thread count; for that one, the
        same in the baseline's backend; for that one, the baseline. Candidates that failed are skipped."""
        for parent in self._parents(candidate):
            known = self.results.get(parent.id)
            if parent != candidate and known and known.measurement:
                return parent
        return self._baseline

    def _parents(self, candidate: Candidate) -> tuple[Candidate, Candidate]:
        """The preferred ones."""
        own = replace(candidate, precision="fp32", size=self._baseline.size, trained="")
        return own, replace(own, backend=self._baseline.backend)


def predictions_file(candidate: str) -> str:
    """The file with the predictions of a candidate, within the study's folder."""
    return f"predictions/{candidate}.npz"
