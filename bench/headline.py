#!/usr/bin/env python3
"""What gate, cascade and a trained student save together: `make bench-headline`.

Prints a table, and writes out/bench/headline.json.

The clip is the last 30 % of the video, which no training used. Each row is the running pipeline on it:

stock      the SSDLite in fp32 on every frame, what the others are compared with
student    the SSDLite for person and car, cut, pruned and trained on the first 65 % of the video, in int8
guard      the stock detector beside it, which compares its detections once per second
cascade    a classifier of frames in front of the detector

process    CPU time per frame of everything, with video, transport and diagnostics, without a subscriber, one
           thread; chain: of gate, cascade, detector and tracks within it.
simulated  the chain as of `evaluate cascade`, where no frame is superseded on a machine with other load.
recall     share of the events, objects that appear, which are published within 100 and 300 ms, to a
           subscriber in another process. fidelity: F1 with the reference by the detector's own noise.

The student is trained first if out/train/ssd_student has none: some minutes, with PyTorch.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from parts.benchmark import finish, make_parser, new_result
from parts.common import REPO, Row, at_least, measured

from edge_vision.bundles.store import load_bundle
from edge_vision.core.detections import Detections
from edge_vision.evaluate.chains.chain_run import ChainsRun
from edge_vision.evaluate.condition_data import ConditionData, events_of
from edge_vision.evaluate.live.pipeline_process import PIPELINE, isolate_domain
from edge_vision.evaluate.presets import gate_settings
from edge_vision.evaluate.reference.clips import clip_condition
from edge_vision.evaluate.reference.detector import ReferenceDetector, reference_of
from edge_vision.evaluate.reference.noise_ceiling import noise_ceiling
from edge_vision.evaluate.schedule.live import LiveClip
from edge_vision.evaluate.selection import Selected
from edge_vision.offline.provenance import write_json

STOCK, TRAINED = "ssdlite_mobilenet_v2_coco", "ssd_student"
CHAIN = ("gate", "cascade", "detector", "tracks")
JUDGED_FROM = 0.7
PROCESS_RATIO, CHAIN_RATIO = 2.5, 6.0
MAX_LOST_SHARE = 0.01
"""More frames without a result: the machine was too busy for a verdict."""
SHOWN = ("recall_100ms", "recall_300ms", "fidelity", "inferred_share", "unpublished")
_EXAMPLES = """examples:
  python bench/headline.py                                about ten minutes
  python bench/headline.py --rounds 1 --only stock gate_student
  python bench/headline.py --student out/yard/int8 --backend openvino"""

Parameters = dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Configuration:
    """model: stock or student. preset: of the gate, "" = every frame. parameters: by node."""

    model: str
    preset: str = ""
    parameters: Parameters = field(default_factory=dict)

    def all_parameters(self, model: str, backend: str) -> Parameters:
        """With those of the model."""
        detector = {"model": model, "backend": backend, "threads": 1}
        if self.model == "stock":
            detector |= {"backend": "onnxruntime", "precision": "fp32"}
        every = {"publish_tracks": False, "publish_low_score": False}
        return {
            **self.parameters,
            "gate": {"preset": self.preset} if self.preset else {"enabled": False},
            "detector": detector | ({} if self.preset else every) | self.parameters.get("detector", {}),
        }


SIMULATED = {
    "stock": {"stock": "every_frame", "gate_stock": "gate_tracking"},
    "student": {"student": "every_frame", "gate_student": "gate_tracking", "economy_student": "full"},
}
"""Model -> configuration -> its chain in `evaluate cascade`."""
UNGUARDED: Parameters = {"detector": {"guard": False}}
CASCADE: Parameters = {"cascade": {"model": "person_vehicle_stage", "backend": "onnxruntime", "threads": 1}}
CONFIGURATIONS = {
    "stock": Configuration("stock"),
    "gate_stock": Configuration("stock", "balanced"),
    "student": Configuration("student", "", UNGUARDED),
    "gate_student": Configuration("student", "balanced", UNGUARDED),
    "gate_student_guard": Configuration("student", "balanced"),
    "economy_student": Configuration("student", "economy", UNGUARDED),
    "economy_student_guard": Configuration("student", "economy"),
    "economy_cascade_student_guard": Configuration("student", "economy", CASCADE),
}


def main() -> int:
    options = _parser().parse_args()
    isolate_domain()
    options.student = trained(options.student)
    result = new_result(options.video) | {"backend": options.backend, "student": str(options.student)}
    clip = last_part(options.video, options.out.with_name("headline_clip.avi"))
    models = {"stock": STOCK, "student": f"{options.student}{os.sep}"}
    live = live_clip(clip, models, options.out.with_name("headline_logs"))
    names = list(dict.fromkeys(["stock", *(options.only or CONFIGURATIONS)]))
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for number in range(options.rounds):
        for name in names[:: -1 if number % 2 else 1]:
            print(f"[{time.strftime('%H:%M:%S')}] round {number + 1}: {name}", flush=True)
            found[name].append(play(CONFIGURATIONS[name], models, options, clip, live))
            result["rounds"] = found
            write_json(options.out, result)
    result["simulated"] = simulated(models, clip)
    result["medians"] = {
        name: {key: statistics.median(one[key] for one in ones) for key in ones[0]}
        for name, ones in found.items()
    }
    return finish(options, result, rows(result["medians"], result["simulated"]))


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("headline", __doc__, _EXAMPLES)
    parser.add_argument(
        "--student",
        type=Path,
        help="bundle of a student (default: that of bench/train.py)",
    )
    parser.add_argument("--backend", default="onnxruntime", help="of the student (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="in alternating order (default: %(default)s)")
    parser.add_argument("--only", nargs="+", choices=CONFIGURATIONS, help="only these, beside stock")
    return parser


def trained(student: Path | None) -> Path:
    """The folder of the student's bundle."""
    if student:
        return student.absolute()
    folder = REPO / "out" / "train" / TRAINED
    if not (folder / "int8" / "bundle.yaml").is_file():
        from train import measured as train

        if refused := train(TRAINED, folder)["refused"]:
            raise SystemExit(f"the student was refused: {refused}")
    return folder / "int8"


def last_part(video: Path, target: Path) -> Path:
    """The end of a video as a file of its own, encoded like the whole."""
    capture = cv2.VideoCapture(str(video))
    size = tuple(int(capture.get(p)) for p in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    count, fps_hz = capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FPS)
    target.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(target), cv2.VideoWriter.fourcc(*"XVID"), fps_hz, size)
    number = 0
    while (read := capture.read())[0]:
        if number >= JUDGED_FROM * count:
            writer.write(read[1])
        number += 1
    writer.release()
    return target


def live_clip(clip: Path, models: Mapping[str, str], logs: Path) -> dict[str, LiveClip]:
    """By model, the clip with the stock detector as the reference, of the student's classes."""
    logs.mkdir(parents=True, exist_ok=True)
    stock, student = (load_bundle(models[name]).labels for name in ("stock", "student"))
    mapped = mapping({i: student.index(label) for i, label in enumerate(stock) if label in student})
    condition, detector = clip_condition(clip), ReferenceDetector(STOCK)
    reference = reference_of(condition, condition.n_frames, detector, lambda _: None)
    ceiling = noise_ceiling(condition, reference, detector, lambda _: None)
    reference = replace(
        reference,
        detections=[mapped(one) for one in reference.detections],
        low_score=[mapped(one) for one in reference.low_score],
    )
    events, boxes, _ = events_of(condition, reference)
    print(f"{len(reference)} frames, {len(events)} events of {', '.join(student)}")
    data = ConditionData(reference, events, boxes, ceiling)
    one = LiveClip(Selected(condition, str(clip)), data, [], logs)
    return {
        "stock": replace(one, model=models["stock"], compared=mapped),
        "student": replace(one, model=models["student"]),
    }


def mapping(class_ids: Mapping[int, int]) -> Callable[[Detections], Detections]:
    """Keeps the detections of these classes, with their new ids."""

    def mapped(found: Detections) -> Detections:
        keep = np.array([int(one) in class_ids for one in found.class_ids], bool)
        ids = [class_ids[int(one)] for one in found.class_ids[keep]]
        return Detections(found.xyxy_px[keep], found.scores[keep], np.array(ids, found.class_ids.dtype))

    return mapped


def play(
    configuration: Configuration,
    models: Mapping[str, str],
    options: argparse.Namespace,
    clip: Path,
    live: Mapping[str, LiveClip],
) -> dict[str, float]:
    """CPU time per frame in ms by share, and what a subscriber receives."""
    model = models[configuration.model]
    parameters = configuration.all_parameters(model, options.backend)
    given = ("--video", clip, "--preset", configuration.preset, "--parameters", json.dumps(parameters))
    shares = measured("pipeline/cpu_shares.py", *given)
    one = live[configuration.model]
    backend = parameters["detector"].pop("backend")
    overrides = [
        text
        for node, values in parameters.items()
        for name, value in values.items()
        if name != "model" or node != "detector"
        for text in ("-p", f"{node}:{name}:={json.dumps(value) if not isinstance(value, str) else value}")
    ]
    received = replace(one, backend=backend).play(
        configuration.model, (list(PIPELINE), overrides), lambda *_: None
    )
    return {
        **{name: shares[name] for name in CHAIN},
        "chain": sum(shares[name] for name in CHAIN),
        "process": shares["total"],
        "superseded": shares["superseded"],
        "received_process": received["process_cpu_s_per_1000"],
        **{name: received[name] for name in SHOWN},
    }


def simulated(models: Mapping[str, str], clip: Path) -> dict[str, float]:
    """CPU time per frame of the chains without the guard, in ms, by configuration."""
    found, economy = {}, tuple(gate_settings("economy").items())
    for model, entries in SIMULATED.items():
        run = ChainsRun(settings=economy)
        entry = run.evaluate(clip_condition(clip), ReferenceDetector(models[model]), lambda _: None)
        found |= {name: entry["chains"][chain]["cpu_s_per_1000"] for name, chain in entries.items()}
    return found


def rows(medians: Mapping[str, Mapping[str, float]], simulated_ms: Mapping[str, float] = {}) -> list[Row]:
    """Stock by each configuration; targets for those with its recall, if the machine was not busy."""
    stock, table = medians["stock"], []
    idle = all(one["superseded"] <= MAX_LOST_SHARE for one in medians.values())
    for name, one in medians.items():
        same = one["recall_300ms"] >= stock["recall_300ms"]
        note = (
            f"{one['process']:.1f} ms; recall {one['recall_100ms']:.2f}, {one['recall_300ms']:.2f}, fidelity "
            f"{one['fidelity']:.2f}, inferred {one['inferred_share']:.2f}, lost {one['unpublished']:.0f}"
        )
        parts = ", ".join(f"{part} {one[part]:.1f}" for part in CHAIN)
        for what, least, text in (("process", PROCESS_RATIO, note), ("chain", CHAIN_RATIO, f"ms: {parts}")):
            ratio, label = stock[what] / one[what], f"{name}: stock's CPU by it, {what}"
            targeted = idle and same and "student" in name
            row = at_least(label, ratio, least, "", text) if targeted else Row(label, ratio, "", note=text)
            table.append(row)
    for name, value in simulated_ms.items():
        ratio, label = simulated_ms["stock"] / value, f"{name}: stock's CPU by it, simulated chain"
        same = name in medians and medians[name]["recall_300ms"] >= stock["recall_300ms"]
        targeted = idle and same and "student" in name
        text = f"{value:.1f} ms"
        row = at_least(label, ratio, CHAIN_RATIO, "", text) if targeted else Row(label, ratio, "", note=text)
        table.append(row)
    if not idle:
        print("frames were superseded, as the machine was busy: only the simulated chains can be compared")
    return table


if __name__ == "__main__":
    sys.exit(main())
