"""Neural architecture search on a trained teacher: latency model, searches, short tuning, re-measured rows.

At each budget three networks are tuned alike: of uniform width, of the evolutionary search, and of the
differentiable one. How much an untuned network regains is a rule of thumb, which differs between precisions
and sizes: so the best ones of the two most promising of these are tuned for half of the steps before one is
chosen. The rows have the times that are measured at the end, not the predicted ones.

Source of the choice: Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter
Optimization" (2016).
"""

from __future__ import annotations

import copy
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch

from edge_vision.backends.runtimes.engine_cache import write_file
from edge_vision.core.model_spec import InputSpec
from edge_vision.errors import HeadError
from edge_vision.offline.output_folder import remove_path
from edge_vision.optimize.candidate import Size, default_sizes
from edge_vision.optimize.errors import OptimizeError
from edge_vision.optimize.quantization import graph_edit, graph_session
from edge_vision.optimize.quantization.decoding_tail import tail_inputs
from edge_vision.optimize.quantization.input_moments import input_moments
from edge_vision.optimize.quantization.quantization_loss import QuantizationLoss
from edge_vision.optimize.quantization.stored_graph import stored_bytes
from edge_vision.train.graph.batch_norm import BATCHED, NormalisedConvolutions
from edge_vision.train.graph.torch_graph import written_back
from edge_vision.train.networks.family import student
from edge_vision.train.networks.pruning import array, chains, find_node
from edge_vision.train.networks.supernet import Genes, Supernet
from edge_vision.train.recipes.detection_loss import detector_loss, loss_near_teacher
from edge_vision.train.recipes.distillation import ParameterGroup, Progress, noise_ratio
from edge_vision.train.recipes.prune_run import MIN_AGREEMENT, RATE, least_agreement
from edge_vision.train.recipes.run_folder import BUNDLE, BUNDLES, INT8, SEARCH
from edge_vision.train.recipes.student_run import groups_of_new, start_rare
from edge_vision.train.recipes.training_report import Quality, TrainingReport
from edge_vision.train.recipes.training_request import TrainingRequest
from edge_vision.train.recipes.training_run import Log, TrainingRun
from edge_vision.train.search.gates import GatedGraph, time_loss
from edge_vision.train.search.latency_model import LatencyModel
from edge_vision.train.search.measuring import Eta, Measuring, Records
from edge_vision.train.search.network_search import NetworkSearch

PRECISIONS = ("int8", "fp32")
CHILDREN = 24
"""Networks that the evolution evaluates at each budget, after its starts."""
SCORED_IMAGES = 12
"""Validation images by which the best state of a tuning is chosen; networks are compared on all."""
RECOVERED = 0.6
"""Share of the disagreement with the teacher of the same size that a short tuning removes, about."""
FINALISTS = 2
"""Networks of different precision or size that are tuned for half of the steps before one is chosen."""
FINAL_ROUNDS = 36
GATE_STEPS = 60
_WIDTH_RATE = 0.06
_GATES = f"{SEARCH}/gates.pt"
FAMILY_WIDTH, FAMILY_DEPTH = 1.5, 3
TEACHER = "teacher int8"


def run_search(
    folder: Any, request: TrainingRequest, log: Log, show: Callable[[str], None]
) -> TrainingReport:
    """Search, tune, judge, and write a bundle for each budget and report.json. Raises as TrainingRun does."""
    return _Search(TrainingRun(folder, request, log, show), log).report()


class _Search:
    """The state of a search. sized: of each size, the teacher's loss on validation and judge images."""

    def __init__(self, run: TrainingRun, log: Log) -> None:
        self._run, self._log = run, log
        self._folder = run.folder / SEARCH
        self._folder.mkdir(exist_ok=True)
        self._records = Records(self._folder / "records.jsonl")
        self._teachers: dict[Size, Any] = {}
        self._sized: dict[Size, tuple[QuantizationLoss, QuantizationLoss]] = {}
        spec = run.source.manifest.input
        given = dict.fromkeys(default_sizes(Size.of(spec), run.source.manifest.task))
        sizes = [one for one in given if self._add_size(one)]
        model = run.folded
        if run.request.hours:
            run.outputs = list(run.source.manifest.head.outputs.values())
            self._loss: Callable[..., Any] | None = detector_loss(run.source)
            model = self._family()
            sizes = [one for one in sizes if accepts(model, self._teachers[one], spec, one)]
        else:
            self._loss = loss_near_teacher(run, features=True)
        log("ordering the channels")
        moments = input_moments(model, run.calibration, {}, run.counter("inputs of the layers: images"))
        show = run.counter("ordering channels:")
        self._supernet = Supernet(model, moments, spec, sizes, PRECISIONS, show)
        self._measuring = Measuring(run, self._supernet, self._records)

    def _add_size(self, size: Size) -> bool:
        """Whether the teacher runs at this size and detects something."""
        run, spec = self._run, self._run.source.manifest.input
        if size == Size.of(spec):
            self._teachers[size], self._sized[size] = run.folded, (run.validation, run.judge)
            return True
        sized = replace(spec, width_px=size.width_px, height_px=size.height_px)
        bundle = replace(run.source, manifest=replace(run.source.manifest, input=sized))
        teacher = copy.deepcopy(run.folded)
        try:
            graph_edit.resize(teacher, spec.name, spec.layout, size)
            validation, judge = (
                QuantizationLoss(
                    bundle, teacher, run.tensors(images, sized), show=run.counter(f"{what} at {size}:")
                )
                for what, images in (
                    ("validation images", run.validation_images),
                    ("judge images", run.judge_images),
                )
            )
        except (HeadError, OptimizeError):
            return False
        self._teachers[size], self._sized[size] = teacher, (validation, judge)
        return True

    def report(self) -> TrainingReport:
        run, budgets = self._run, self._run.request.budgets
        teacher_int8 = run.ptq(run.folded, "teacher")
        errors = self._measuring.errors()
        for name, one in errors.items():
            self._log(
                f"latency model, {name}: mean error {one.mean:.1%}, worst {one.worst:.1%}, rank correlation "
                f"{one.spearman:.2f} on {one.networks} unseen networks"
            )
        latency = self._measuring.model(run.request.runtime, self._proposed)
        int8 = run.validation.of(teacher_int8)[0]
        retained = {"int8": int8, "fp32": 1.0}
        search = NetworkSearch(self._supernet, latency, lambda genes: self._score(genes, retained))
        snapshots = self._snapshots(latency)
        chosen = {
            (budget, method): genes
            for number, budget in enumerate(budgets)
            for method, genes in self._chosen(search, snapshots, budget, number).items()
        }
        networks = list(dict.fromkeys(chosen.values()))
        results, stops = {}, []
        for number, genes in enumerate(networks):
            what = f"tuning {number + 1}/{len(networks)}"
            results[genes], stopped = self._tuned(genes, what)
            stops += [f"{genes.id}: {stopped}"] if stopped else []
        rows = [
            {
                "budget": budget,
                "method": method,
                "network": genes.id,
                "predicted": round(latency.of(genes), 4),
                "untuned": self._untuned(genes),
                **results[genes],
            }
            for (budget, method), genes in chosen.items()
        ]
        return self._finished(
            rows, dict(zip(chosen.values(), chosen, strict=True)), errors, teacher_int8, stops
        )

    def _proposed(self, latency: LatencyModel) -> dict[Genes, None]:
        """Networks of the native size that satisfy the budgets by this model."""
        search = NetworkSearch(self._supernet, latency, lambda genes: 0.0)
        found = (
            genes
            for budget in self._run.request.budgets
            for genes in (*search.lagrangian(budget), *search.uniform(budget))
        )
        return dict.fromkeys(one for one in found if one.size == self._supernet.sizes[0])

    def _chosen(
        self, search: NetworkSearch, snapshots: Sequence[np.ndarray], budget: float, number: int
    ) -> dict[str, Genes]:
        starts = search.lagrangian(budget)
        if not starts or not (uniform := search.uniform(budget)):
            raise OptimizeError(
                f"expected budgets that the narrowest network satisfies, got {budget:g}: raise it"
            )
        what = f"evolution at {budget:g}"
        left = Eta(CHILDREN)
        ranked = {
            "uniform": search.ranked(uniform),
            "evolved": search.evolved(
                [*starts, *uniform],
                budget,
                CHILDREN,
                self._run.request.seed + number,
                lambda done: self._run.show(f"{what}: networks {left.text(done)}"),
            ),
            "differentiable": search.ranked(search.from_widths(snapshots, budget) or starts),
        }
        chosen: dict[str, Genes] = {}
        for method, networks in ranked.items():
            # The evolution starts with the uniform networks too: without training they rank too low.
            others = [chosen["uniform"]] if method == "evolved" else []
            chosen[method] = self._finalist(f"{method} at {budget:g}", networks, others)
        return chosen

    def _finalist(self, what: str, ranked: Sequence[Genes], others: Sequence[Genes]) -> Genes:
        """The best network after half of the tuning: of the first ones that differ in precision or size, and
        of others."""
        kinds: dict[tuple[Size, str], Genes] = {}
        for one in ranked:
            kinds.setdefault((one.size, one.precision), one)
        finalists = list(dict.fromkeys([*list(kinds.values())[:FINALISTS], *others]))
        if len(finalists) == 1:
            return finalists[0]
        return max(finalists, key=lambda one: self._after_half(one, f"{what}: trying {one.precision}"))

    def _after_half(self, genes: Genes, what: str) -> float:
        """Agreement on the validation images after half of the tuning."""

        def agreement() -> float:
            steps = max(1, self._run.request.steps // 2)
            final, _ = self._trained(genes, f"half_{_short(genes)}", steps, what)
            return round(self._agreement(final, genes.size, 0), 4)

        found: float = self._records.get(f"half {genes.id}", agreement)
        return found

    def _score(self, genes: Genes, retained: Mapping[str, float]) -> float:
        """The agreement that is expected after tuning: of what was cut away a share comes back, of what a
        smaller image lacks nothing. retained: share that each precision keeps."""
        untuned = self._untuned(genes)
        most = self._untuned(replace(self._supernet.whole, size=genes.size))
        return (untuned + RECOVERED * max(0.0, most - untuned)) * retained[genes.precision]

    def _untuned(self, genes: Genes) -> float:
        """Agreement in fp32 without training, on the validation images."""

        def agreement() -> float:
            return round(self._agreement(self._supernet.network(genes), genes.size, 0), 4)

        found: float = self._records.get(f"score {replace(genes, precision='fp32').id}", agreement)
        return found

    def _agreement(self, model: Any, size: Size, part: int, images: int = 0) -> float:
        """With the teacher of the native size. part: 0 validation, 1 judge."""
        native = self._sized[self._supernet.sizes[0]][part]
        if size == self._supernet.sizes[0]:
            return native.of(model, images)[0]
        return self._sized[size][part].of_other_size(model, native, images)

    def _verdict(self, model: Any, size: Size) -> dict[str, float]:
        """On the judge images. sqnr_db: against the teacher of the same size."""
        agreement, sqnr = self._sized[size][1].of(model)
        if size != self._supernet.sizes[0]:
            agreement = self._agreement(model, size, 1)
        return {"agreement": round(agreement, 4), "sqnr_db": round(sqnr, 2)}

    def _snapshots(self, latency: LatencyModel) -> list[np.ndarray]:
        """The widths of the differentiable search, at each evaluation."""
        run, supernet = self._run, self._supernet
        model = supernet.network(supernet.whole)
        orders = {c.projections: order for c, order in zip(supernet.chains, supernet.orders, strict=True)}
        gated = GatedGraph(model, orders, run.outputs, BATCHED)
        whole, precision = latency.of(supernet.whole), supernet.precisions[0]
        counts = np.array([one[-1] for one in supernet.choices])
        loss = time_loss(
            gated,
            (self._loss if run.request.hours else None) or noise_ratio,
            (latency.slopes(precision) * counts).tolist(),
            whole,
            min(run.request.budgets),
            GATE_STEPS,
        )

        def snapshot() -> float:
            self._records.get(f"widths {int(gated.steps)}", gated.widths.tolist)
            return float(gated.steps)  # The last state is the best one.

        groups = [
            ParameterGroup(list(gated.graph.weights.values()), RATE),
            ParameterGroup([gated.widths], _WIDTH_RATE),
            ParameterGroup([gated.steps, gated.price], 0.0),
        ]
        progress = run.distil(
            gated,
            groups,
            snapshot,
            loss,
            checkpoint=_GATES,
            steps=GATE_STEPS,
            what="differentiable search",
            averages=False,
        )
        steps = (0, *(step for step, _, _ in progress.curve))
        if missing := [step for step in steps if f"widths {step}" not in self._records]:
            # The checkpoint is finished, but a damaged line was deleted, as its error says.
            self._log(f"widths of step {missing[0]} are missing: the differentiable search is repeated")
            remove_path(run.folder / _GATES)
            return self._snapshots(latency)
        return [np.array(one) for one in self._records.starting("widths ")]

    def _tuned(self, genes: Genes, what: str) -> tuple[dict[str, Any], str]:
        """Results of a network after tuning, and why that was stopped. Its graph is stored."""

        def results() -> list[Any]:
            final, progress = self._trained(genes, _short(genes), self._run.request.steps, what)
            write_file(self._file(genes), stored_bytes(final))
            found = {
                "validation": round(self._agreement(final, genes.size, 0), 4),
                **self._verdict(final, genes.size),
                "ratios": self._measuring.ratios(
                    final, genes.size, FINAL_ROUNDS, self._run.counter(f"{what}, measuring times: loads")
                ),
                "bytes": self._file(genes).stat().st_size,
            }
            return [found, progress.stopped]

        found, stopped = self._records.get(f"tuned {genes.id}", results)
        return found, stopped

    def _trained(self, genes: Genes, name: str, steps: int, what: str) -> tuple[Any, Progress]:
        """The graph in its precision after so many steps. name: of its files."""
        run, spec = self._run, self._supernet.spec(genes.size)
        samples = None
        if genes.size != self._supernet.sizes[0]:
            samples = run.samples(f"{SEARCH}/samples_{genes.size}", self._teachers[genes.size], spec)
        final, progress = run.tuned(
            self._supernet.network(genes),
            RATE,
            self._loss,
            self._sized[genes.size][0],
            SCORED_IMAGES,
            samples=samples,
            checkpoint=f"{SEARCH}/{name}.pt",
            steps=steps,
            what=what,
        )
        return run.ptq(final, f"search_{name}", spec) if genes.precision == "int8" else final, progress

    def _file(self, genes: Genes) -> Any:
        return self._folder / f"{_short(genes)}.onnx"

    def _finished(
        self,
        rows: list[dict[str, Any]],
        networks: Mapping[Genes, Any],
        errors: Mapping[str, Any],
        teacher_int8: Any,
        stops: Sequence[str],
    ) -> TrainingReport:
        run, runtime = self._run, self._run.request.runtime
        qualities = {TEACHER: run.quality(teacher_int8)}
        qualities |= {
            f"{one['method']} {one['budget']:g}": Quality(one["agreement"], one["sqnr_db"]) for one in rows
        }
        # The best of a budget is chosen on other images than those of the verdict.
        best = [
            max((one for one in rows if one["budget"] == budget), key=lambda one: float(one["validation"]))
            for budget in run.request.budgets
        ]
        ceiling = run.noise_ceiling() if run.source.manifest.task == "detect" else None
        least, words = least_agreement(ceiling, MIN_AGREEMENT)
        good = [one for one in best if one["agreement"] >= least and one["ratios"][runtime] < 1]
        figures: dict[str, Any] = {
            "latency_errors": {name: asdict(one) for name, one in errors.items()},
            "rows": rows,
            "front": pareto_front(rows, runtime),
            "expected_agreement": least,
        }
        if ceiling is not None:
            figures["ceiling"] = ceiling
        by_id = {genes.id: genes for genes in networks}
        figures[BUNDLES] = [
            f"budget_{row['budget']:g}/{INT8 if by_id[row['network']].precision == 'int8' else BUNDLE}"
            for row in good
        ]
        fastest = min(good or best, key=lambda one: float(one["ratios"][runtime]))
        progress = Progress(0, [], 0.0, [], [], stopped="; ".join(stops))
        refused = _refusal(best, good, runtime, words)
        report = run.report(qualities, fastest["ratios"], progress, refused, figures)
        for row, folder in zip(good, figures[BUNDLES], strict=True):
            genes = by_id[row["network"]]
            own = replace(report, time_ratios=row["ratios"], figures=row, qualities={})
            model = graph_edit.load_model(self._file(genes))
            run.write_bundle(folder, model, genes.precision, own, spec=self._supernet.spec(genes.size))
        run.write(report, {}, teacher_int8)
        return report

    def _family(self) -> Any:
        """A supernet of our own family, trained from random weights for the given hours."""
        run = self._run
        model = student(run.folded, FAMILY_WIDTH, FAMILY_DEPTH, run.request.seed)
        orders = {
            one.projections: np.arange(len(array(model, find_node(model, one.first), 1)))[::-1]
            for one in chains(model)
        }
        batches = NormalisedConvolutions(model, tail_inputs(model))
        gated = GatedGraph(model, orders, run.outputs, batches.operators, random=True)
        start_rare(model, run, gated.graph)
        groups = [*groups_of_new(gated.graph, batches), ParameterGroup([gated.steps], 0.0)]

        def trained() -> Any:
            return written_back(model, batches.folded(gated.graph.trained()))

        each: float = self._records.get("seconds of a step", lambda: self._step_s(gated))
        steps = max(1, int(3600 * run.request.hours / each))
        score = run.validated(trained, self._loss)
        what = "training the supernet"
        run.distil(gated, groups, score, self._loss, checkpoint=f"{SEARCH}/family.pt", steps=steps, what=what)
        return trained()

    def _step_s(self, gated: Any) -> float:
        inputs, _ = self._run.samples().batch(range(self._run.request.batch))
        before = [one.detach().clone() for one in gated.parameters()]
        started = time.monotonic()
        sum(one.square().mean() for one in gated(torch.as_tensor(inputs)).values()).backward()
        taken = time.monotonic() - started
        for one, value in zip(gated.parameters(), before, strict=True):
            one.grad, one.data = None, value
        return round(taken, 4)


def accepts(model: Any, teacher: Any, spec: InputSpec, size: Size) -> bool:
    """Whether a graph can be resized, with the outputs of the teacher of this size. One of our family whose
    maps are added may not, where they round; or its maps have other sides than the teacher's."""
    if size == Size.of(spec):
        return True
    resized = copy.deepcopy(model)
    try:
        graph_edit.resize(resized, spec.name, spec.layout, size)
    except OptimizeError:
        return False
    ours, theirs = (
        {out.name: out.shape for out in graph_session.session(one).get_outputs()}
        for one in (resized, teacher)
    )
    return ours == theirs


def pareto_front(rows: Sequence[Mapping[str, Any]], runtime: str) -> list[str]:
    """Networks than which none is faster and agrees more, fastest first."""
    front: list[Mapping[str, Any]] = []
    for row in sorted(rows, key=lambda one: (one["ratios"][runtime], -one["agreement"])):
        if not front or row["agreement"] > front[-1]["agreement"]:
            front.append(row)
    return [str(one["network"]) for one in front]


def _short(genes: Genes) -> str:
    return hashlib.sha256(genes.id.encode()).hexdigest()[:12]


def _refusal(
    best: Sequence[Mapping[str, Any]], good: Sequence[Mapping[str, Any]], runtime: str, least: str
) -> str:
    """Why there is no bundle; "" = there is one. least: see `least_agreement`."""
    if good:
        return ""
    highest = max(best, key=lambda one: float(one["agreement"]))
    return (
        f"expected an agreement of {least} and less than the teacher's int8 time at one of the budgets, got "
        f"{highest['agreement']:.4f} at {highest['ratios'][runtime]:.2f}: raise --budgets, "
        f"--steps, or pass more varied clips"
    )
