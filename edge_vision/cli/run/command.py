"""`edge-vision run`: without `--out` the pipeline of nodes, with it a bag in and a bag out."""

from __future__ import annotations

import argparse
import contextlib
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from edge_vision.backends import known_backends, open_session
from edge_vision.backends.base import Session
from edge_vision.bundles.store import Bundle, load_bundle
from edge_vision.cascade.cascade import Cascade
from edge_vision.cascade.stages import stage_from_bundle
from edge_vision.cli.run.frame_chain import FrameChain
from edge_vision.cli.run.result_bag import TOPICS, ResultTopics, check_result, result_file
from edge_vision.core.command_line import run_command, with_examples
from edge_vision.core.geometry.zones import Zones
from edge_vision.core.printable import printable, printable_output
from edge_vision.detect.classifier import Classifier
from edge_vision.detect.detector import Detector
from edge_vision.errors import EdgeVisionError
from edge_vision.gate.frame_gate import DEFAULT_PRESET, PRESETS, GateConfig
from edge_vision.source.bag import BagCapture
from edge_vision.source.uri import SourceError, bag_files, source_kind

_EXAMPLES = """examples:
  edge-vision run drive.mcap --out result.mcap
  edge-vision run drive.bag#/cam/image_raw --out result.mcap --preset recall --backend openvino
  edge-vision run drive.mcap --out result.mcap --zone 'include road 0,0.5 1,0.5 1,1 0,1'
  edge-vision run drive.mcap --out result.mcap --cascade person_vehicle_stage

exit codes: 0 the bag was written, 1 not, 2 wrong arguments, 130 and 143 stopped by
a signal"""


def main(args: Sequence[str] | None = None) -> int:
    """Run the pipeline, or write a bag. Returns the exit code."""
    argv = list(sys.argv[1:] if args is None else args)
    if any(one == "--out" or one.startswith("--out=") for one in argv):
        return to_bag(argv)
    from edge_vision.nodes.pipeline import command

    if {"-h", "--help"} & set(argv):
        print("With a bag and --out FILE.mcap: see `edge-vision run --out FILE.mcap --help`.\n")
    elif argv and not argv[0].startswith("-"):
        print(
            f"run: expected --source {printable(argv[0])} to play it, or --out FILE.mcap to write a copy of "
            "a bag with the results, got neither",
            file=sys.stderr,
        )
        return 2
    return command(argv)


@printable_output()
def to_bag(argv: Sequence[str]) -> int:
    """Write a bag with the results beside the input's topics. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="edge-vision run BAG --out",
        usage="edge-vision run BAG --out FILE [options]",
        **with_examples(
            f"Write a copy of a bag with {', '.join(TOPICS)} beside its topics, under the images' stamps, as "
            "fast as the machine can, without ROS.",
            _EXAMPLES,
        ),
    )
    add = parser.add_argument
    add("bag", help=".mcap, .db3, .bag or a folder; BAG#/TOPIC if it has several image topics")
    add("--out", type=Path, required=True, metavar="FILE", help="new file, .mcap or .db3")
    add("--model", default="nanodet", help="detector bundle, a name or a folder (default: %(default)s)")
    add("--backend", default="auto", help=f"auto (default), {', '.join(known_backends())}")
    add("--preset", choices=tuple(PRESETS), default=DEFAULT_PRESET, help="default: %(default)s")
    add(
        "--zone",
        action="append",
        default=[],
        metavar="TEXT",
        help="as in the parameter zones; may be repeated",
    )
    add(
        "--cascade", default="", metavar="MODEL", help="classifier bundle that rejects frames (default: none)"
    )
    add(
        "--wanted-label", action="append", default=[], metavar="LABEL", help="of the cascade; may be repeated"
    )
    add("--namespace", type=_namespace, default="", help="of the results' topics, as in /front")
    parser.set_defaults(run=_run)
    return run_command(parser.parse_args(argv), "run", "run: stopped, nothing was written")


def _namespace(text: str) -> str:
    name = text.strip("/")
    if name and not re.fullmatch(r"[A-Za-z_]\w*(/[A-Za-z_]\w*)*", name, re.ASCII):
        raise argparse.ArgumentTypeError(f"expected a namespace as in /front, got '{text}'")
    return f"/{name}" if name else ""


def _run(options: argparse.Namespace) -> int:
    # Temporary files are removed first.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    check_result(options.out)
    if source_kind(options.bag).name != "bag":
        raise SourceError(
            f"expected a bag (.mcap, .db3, .bag or a folder), got '{options.bag}'; play a video or a camera "
            "with --source, and record it with --ros-args -p record:=true"
        )
    with contextlib.closing(BagCapture(options.bag, skip_unreadable=False)) as capture:
        bundle, session = _opened(options.model, options.backend)
        detector = Detector.from_bundle(bundle, session)
        promise: dict[str, Any] = PRESETS[options.preset]
        chain = FrameChain(detector, GateConfig(**promise), *_cascade_and_zones(options))
        started_s = time.monotonic()
        with _copied_messages(options.bag) as source, result_file(options.out) as writer:
            copy = source.into(writer, [f"{options.namespace}/{name}" for name in TOPICS])
            results = ResultTopics(
                writer, options.namespace, bundle.labels, detector.thresholds.score_threshold
            )
            fates = _write(capture, chain, copy, results)
        counts = ", ".join(f"{n} {fate}" for fate, n in fates.items() if fate != "detections")
        took_s, length_s = time.monotonic() - started_s, capture.time_s
    print(
        f"{options.out}: {fates.total() - fates['detections']} frames ({counts}), {fates['detections']} "
        f"detections; {length_s:.1f} s of recording in {took_s:.1f} s"
    )
    return 0


def _opened(model: str, name: str) -> tuple[Bundle, Session]:
    bundle = load_bundle(model)
    session, report = open_session(bundle, name)
    print(f"{bundle.name} on {report.actual.backend} {report.actual.version}, {report.actual.device}")
    if report.fallback_reason:
        print(f"run: not the requested backend: {printable(report.fallback_reason)}", file=sys.stderr)
    return bundle, session


def _cascade_and_zones(options: argparse.Namespace) -> tuple[Cascade | None, Zones]:
    if options.wanted_label and not options.cascade:
        raise EdgeVisionError("expected --wanted-label with --cascade, got it alone: name the classifier")
    try:
        zones = Zones.parse(options.zone)
        if not options.cascade:
            return None, zones
        bundle, session = _opened(options.cascade, options.backend)
        stage = stage_from_bundle(bundle, Classifier.from_bundle(bundle, session), options.wanted_label)
    except ValueError as error:
        raise EdgeVisionError(str(error)) from None
    return Cascade([stage]), zones


def _write(
    capture: BagCapture, chain: FrameChain, copy: Iterator[tuple[str, int]], results: ResultTopics
) -> Counter[str]:
    """Copy the messages, with the results after each image. Returns the frames by fate, and `detections`."""
    fates: Counter[str] = Counter()
    for topic, time_ns in copy:
        if topic != capture.topic:
            continue
        frame = capture.frame() if capture.grab() else None
        if frame is None:
            raise SourceError(capture.damage or f"the bag ended before its images of {topic}")
        if not fates:
            results.write_labels(time_ns)
        result = chain.process(frame, int(capture.time_s * 1e9))
        results.write(result, time_ns)
        fates[result.event.fate] += 1
        fates["detections"] += 0 if result.detections is None else len(result.detections)
    return fates


class _Messages:
    """All messages of an open bag, as ROS 2 messages."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader

    def into(self, writer: Any, reserved: Sequence[str]) -> Iterator[tuple[str, int]]:
        """Copies one message per step: its topic and time in ns. reserved: topics that the results need."""
        from rosbags.convert.converter import create_connections_converters
        from rosbags.typesys import Stores, get_typestore

        taken = sorted({one.topic for one in self._reader.connections} & set(reserved))
        if taken:
            raise SourceError(
                f"expected a bag without the topics of the results, got one with {printable(taken[0])}: "
                "choose another --namespace"
            )
        # ROS 1 types become those of ROS 2; unknown ones keep their definition.
        store = None if self._reader.is2 else get_typestore(Stores.ROS2_JAZZY)
        with contextlib.redirect_stdout(sys.stderr):
            connections, converters = create_connections_converters(
                self._reader.connections, store, self._reader, writer
            )
        return self._steps(writer, connections, converters)

    def _steps(self, writer: Any, connections: Any, converters: Any) -> Iterator[tuple[str, int]]:
        messages = self._reader.messages()
        while True:
            try:
                message = next(messages, None)
                if message is None:
                    return
                source, time_ns, data = message
                data = converters[source.msgtype](data)
            except Exception as error:  # rosbags raises many types of errors about damaged files.
                raise SourceError(
                    f"the bag cannot be read to its end: {printable(str(error)[:300])}"
                ) from None
            writer.write(connections[source.id, source.owner], time_ns, data)
            yield source.topic, time_ns


@contextlib.contextmanager
def _copied_messages(uri: str) -> Iterator[_Messages]:
    from rosbags.highlevel import AnyReader, AnyReaderError
    from rosbags.typesys import Stores, get_typestore

    files = bag_files(Path(str(source_kind(uri).target)))
    try:
        reader = AnyReader(files, default_typestore=get_typestore(Stores.ROS2_JAZZY))
        reader.open()
    except (AnyReaderError, OSError) as error:
        raise SourceError(f"bag '{uri}' cannot be copied: {printable(str(error)[:300])}") from None
    try:
        yield _Messages(reader)
    finally:
        reader.close()
