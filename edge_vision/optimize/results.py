"""The result of one candidate: a row of the report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from edge_vision.optimize.quantization.make_variant import VariantGraph
from edge_vision.optimize.trials.build_only import BuiltEngine
from edge_vision.optimize.trials.executor import TrialOutcome
from edge_vision.optimize.trials.measure import Measurement

Status = Literal["measured", "chosen", "rejected", "failed", "built"]


@dataclass(frozen=True, slots=True)
class CandidateResult:
    """id, backend, precision, size, threads, trained: of the candidate. parent: id of the candidate it is
    compared with.

    folder: of its bundle within the study's folder. status: failed and built have no measurement; the
    decision turns measured into chosen or rejected. reason: one line; detail: the comparison behind it.
    classes: labels of a trained bundle that has fewer than the model.
    relative: time as a share of the baseline's, multiplied up from parent to parent; 0 without a measurement.
    """

    id: str
    backend: str
    precision: str
    size: str
    threads: int
    parent: str
    folder: str
    status: Status
    reason: str = ""
    detail: str = ""
    relative: float = 0.0
    graph: VariantGraph | None = None
    measurement: Measurement | None = None
    engine: BuiltEngine | None = None
    trained: str = ""
    classes: tuple[str, ...] = ()

    @property
    def measured(self) -> Measurement:
        """The measurement. Raises ValueError if there is none."""
        if self.measurement is None:
            raise ValueError(f"{self.id} has no measurement")
        return self.measurement

    @property
    def agreement(self) -> float:
        """With the fp32 model at its native size. Raises ValueError without a measurement."""
        return self.measured.agreement.value

    @property
    def p95_ms(self) -> float:
        """Of a pass. Raises ValueError without a measurement."""
        return self.measured.timing.p95_ms

    @property
    def file_bytes(self) -> int:
        """Size of the graph file; 0 if it could not be made."""
        return self.graph.bytes if self.graph else 0


def only_classes(result: CandidateResult) -> str:
    """That it detects fewer classes than the model, to be appended; "" if it does not."""
    if not result.classes:
        return ""
    more = f" and {len(result.classes) - 3} more" if len(result.classes) > 3 else ""
    return f"; only {', '.join(result.classes[:3])}{more}"


def failure_reason(outcome: TrialOutcome[Any]) -> str:
    """Why a trial has no result, in one line."""
    return f"{outcome.status}: {outcome.reason}"


def summary_line(result: CandidateResult) -> str:
    """One line for the terminal, written as soon as the candidate is measured."""
    if result.measurement is None:
        return f"{result.id:38} {result.reason}"
    timing = result.measurement.timing
    return (
        f"{result.id:38} p50 {timing.p50_ms:7.2f} ms, {timing.ratio_to_parent:.2f} of its parent's, "
        f"agreement {result.agreement:.3f}, {result.measurement.rss_mb:.0f} MB, "
        f"file {result.file_bytes / 1e6:.1f} MB{only_classes(result)}"
    )
