"""The command `python -m edge_vision evaluate schedule`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edge_vision.evaluate.conditions import QUICK_FRAMES
from edge_vision.evaluate.constructed import constructed_conditions
from edge_vision.evaluate.errors import EvaluateError
from edge_vision.evaluate.evaluation import Evaluation, Results, evaluate
from edge_vision.evaluate.metrics.builtin import METRICS
from edge_vision.evaluate.metrics.metric import load_metrics
from edge_vision.evaluate.presets import PRESETS, gate_config, gate_settings
from edge_vision.evaluate.schedule import live, report
from edge_vision.evaluate.schedule.schedule_run import ScheduleRun
from edge_vision.evaluate.schedule.verdict import verdict
from edge_vision.evaluate.selection import (
    Selected,
    add_command,
    add_run_arguments,
    add_set_argument,
    count_type,
    select_clips,
    video_argument,
)

EXAMPLES = f"""\
examples:
  edge-vision evaluate schedule                            all real clips, four of them live
  edge-vision evaluate schedule --quick --live none        {QUICK_FRAMES} frames of each, simulated
  edge-vision evaluate schedule --clips vtest bikes --live all
  edge-vision evaluate schedule --clip mine.mp4            your own clip, simulated and live
  edge-vision evaluate schedule --set max_delay_ms=200     a changed setting of both presets
  edge-vision evaluate schedule --constructed --seeds 10   constructed scenes after the clips

Chains: fixed_same_reaction (the longest fixed interval with the preset's reaction), every_second,
fixed_same_promise (the longest one that also has its fidelity, chosen with hindsight), every_frame, and the
presets of config/. The fixed intervals of the preset economy end in _economy. Process CPU is measured in the
running pipeline: --live. Detections are cached, so a second run needs no detector for them.
exit codes: 0 done, 1 the detector failed, 2 wrong arguments or no clip, 130 stopped by Ctrl-C
"""
LIVE_CLIPS = ("vtest", "tvshow_van_cuts", "segway_crowd_pan", "sports2d_park")
_NOT_LIVE = "process CPU was not measured on this clip; see --live"


def add_parser(commands: Any) -> None:
    """Add the sub-command to those of `evaluate`."""
    parser = add_command(
        commands,
        "schedule",
        run_schedule,
        "CPU, reaction and fidelity of the presets on real clips, and of fixed intervals",
        "Compare the presets with fixed intervals of the same promise on real clips, simulated and live.",
        EXAMPLES,
    )
    add = parser.add_argument
    add("--clips", nargs="+", metavar="NAME", help="only these of the known clips (default: all)")
    add(
        "--clip",
        nargs="+",
        action="extend",
        default=[],
        type=video_argument,
        metavar="FILE",
        help="your own clips, instead of the known ones unless --clips is given",
    )
    add("--constructed", action="store_true", help="also the constructed scenes, after the clips")
    add(
        "--live",
        nargs="+",
        metavar="NAME",
        help=f"clips to play in the running pipeline: names, all or none (default: {' '.join(LIVE_CLIPS)}, "
        "and your own)",
    )
    add("--seeds", type=count_type(100, "seeds"), default=1, help="seeds of the audit (default: %(default)s)")
    add_set_argument(parser, "both presets")
    add_run_arguments(parser, "out/schedule")


def run_schedule(options: argparse.Namespace) -> int:
    """Run the command. Returns the exit status. Raises EvaluateError."""
    clips, skipped = select_clips(options.clips, options.clip)
    for name, why in skipped.items():
        print(f"left out: {name}: {why}", file=sys.stderr)
    if not clips:
        raise EvaluateError(f"expected a clip, got none of {', '.join(skipped)}; see the reasons above")
    live_clips = _live_clips(options, clips)
    constructed = [Selected(one, None) for one in constructed_conditions()] if options.constructed else []
    return evaluate(ScheduleEvaluation(options, live_clips, skipped), [*clips, *constructed], options)


def _live_clips(options: argparse.Namespace, clips: Sequence[Selected]) -> list[Selected]:
    """The clips to play live. Raises EvaluateError for an unknown name."""
    names = {one.condition.name for one in clips}
    own = {str(path) for path in options.clip}
    if options.live is None:
        return [one for one in clips if one.condition.name in LIVE_CLIPS or one.video in own]
    wanted = {"all": names, "none": set()}.get(options.live[0], set(options.live))
    if unknown := wanted - names:
        raise EvaluateError(
            f"--live: expected clips out of {', '.join(sorted(names))}, got {', '.join(unknown)}"
        )
    return [one for one in clips if one.condition.name in wanted]


class ScheduleEvaluation(Evaluation):
    """The presets and fixed intervals on clips."""

    command, outputs = "schedule", ("table.md", "report.html", "live")
    run: ScheduleRun

    def __init__(
        self, options: argparse.Namespace, live_clips: Sequence[Selected], skipped: Mapping[str, str]
    ) -> None:
        """Raises EvaluateError for an unusable setting or metric."""
        configs = {name: gate_config(gate_settings(name, options.changes)) for name in PRESETS}
        self._presets = {name: asdict(config) for name, config in configs.items()}
        settings = tuple((name, tuple(one.items())) for name, one in self._presets.items())
        self.run = ScheduleRun(
            presets=settings, seeds=options.seeds, quick=options.quick, metrics=tuple(options.metric)
        )
        load_metrics(METRICS, options.metric)
        self._live, self._skipped, self._changes = live_clips, dict(skipped), options.changes
        self._logs = options.out / "live"

    def heading(self) -> str:
        return report.heading()

    def lines(self, name: str, result: Mapping[str, Any]) -> list[str]:
        return report.lines(name, result)

    def finish(self, results: Results) -> None:
        """Play the live clips; see Evaluation."""
        played = {one.condition.name: one for one in self._live if one.condition.name in results}
        for name, result in results.items():
            if name not in played and not result["constructed"]:
                result["notes"].append(_NOT_LIVE)
        for name, selected in played.items():
            try:
                live.measure(selected, results[name], self.run.quick, self._changes, self._logs)
            except EvaluateError as error:  # What was simulated is reported.
                results[name]["notes"].append(f"live: {error}")
                print(f"{name}, live: {error}", file=sys.stderr)
                continue
            print("\n".join(report.lines(f"{name}, live", results[name])), flush=True)

    def report(self, results: Results) -> dict[str, Any]:
        content = {
            "presets": self._presets,
            "seeds": self.run.seeds,
            "skipped": self._skipped,
            "verdict": verdict(results, self._presets),
            "clips": results,
        }
        return {"headline": report.headline(content), **content}

    def write(self, out: Path, content: Mapping[str, Any]) -> list[Path]:
        (out / "table.md").write_text(report.markdown(content), "utf-8")
        (out / "report.html").write_text(report.page(content), "utf-8")
        return [out / "table.md", out / "report.html"]
