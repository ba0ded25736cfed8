"""The command-line arguments of the evaluations, and the conditions that they select."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from edge_vision.core.command_line import number_type, with_examples
from edge_vision.evaluate.condition_jobs import default_jobs
from edge_vision.evaluate.conditions import QUICK_FRAMES, SPLITS, Condition
from edge_vision.evaluate.constructed import (
    condition_by_name,
    constructed_conditions,
    require_sequences,
    sequences_available,
)
from edge_vision.evaluate.errors import EvaluateError
from edge_vision.evaluate.reference.clips import CLIPS, clip_condition, clip_path, known_clips
from edge_vision.offline.executor import Executor
from edge_vision.offline.executor_arguments import add_executor_arguments, is_local
from edge_vision.offline.process_pool import ProcessPool
from edge_vision.offline.ray_cluster import RayCluster
from edge_vision.source.uri import SourceError, video_path


class Selected(NamedTuple):
    """A condition of an evaluation. video: path of a clip, None if constructed."""

    condition: Condition
    video: str | None


def add_command(
    commands: Any,
    name: str,
    run: Callable[[argparse.Namespace], int],
    summary: str,
    description: str = "",
    examples: str = "",
) -> argparse.ArgumentParser:
    """Add a sub-command to those of `evaluate`, and return its parser. summary: for the list of commands."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, **with_examples(description, examples)
    )
    parser.set_defaults(run=run)
    return parser


def add_run_arguments(parser: argparse.ArgumentParser, out: str) -> None:
    """Add the arguments that all evaluations share. out: default of --out."""
    add = parser.add_argument
    add(
        "--metric",
        action="append",
        default=[],
        metavar="MODULE:CLASS",
        help="a metric beside the built-in ones; may be repeated",
    )
    add("--quick", action="store_true", help=f"only the first {QUICK_FRAMES} frames of each")
    add_executor_arguments(parser)
    add(
        "--jobs",
        type=count_type(4096, "jobs"),
        help=f"conditions at once (default: {default_jobs()}, or all processors of a cluster)",
    )
    add("--resume", action="store_true", help="reuse conditions that an earlier run finished")
    add("--out", type=Path, default=Path(out), help="folder for the results (default: %(default)s)")


def executor_of(options: argparse.Namespace) -> Executor:
    """What runs the conditions. options: executor, address, jobs. Raises EdgeVisionError."""
    if is_local(options.executor, options.address):
        return ProcessPool(options.jobs or default_jobs())
    return RayCluster(options.address, options.jobs)


def add_condition_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that select constructed conditions and clips."""
    add = parser.add_argument
    add(
        "--video",
        action="append",
        type=video_argument,
        metavar="V",
        help="a clip to evaluate instead of the default conditions; may be repeated",
    )
    add(
        "--conditions",
        nargs="+",
        metavar="NAME",
        help="only these conditions, by name or kind; NAME@SEED: another sequence of that kind",
    )
    add("--split", choices=[*SPLITS, "all"], default="all", help="default: %(default)s")


def add_set_argument(parser: argparse.ArgumentParser, what: str) -> None:
    """Add --set. what: whose settings it changes."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        dest="changes",
        help=f"a setting of the gate in {what}; may be repeated",
    )


def video_argument(text: str) -> Path:
    """A video's absolute path, as an argparse type."""
    try:
        return video_path(text)
    except SourceError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def count_type(most: int, what: str) -> Callable[[str], int]:
    """The type of an argument that is a number from 1 to `most`. what: of what, for the message."""
    number = number_type(lambda value: 1 <= value <= most, f"1 to {most} {what}")
    return lambda text: int(number(str(int(text))))


def select_conditions(
    names: Sequence[str] | None, split: str, videos: Sequence[Path] | None
) -> list[Selected]:
    """The conditions with these names or kinds; without names, all of the split.

    videos: clips that replace the known ones. Raises EvaluateError.
    """
    clips = videos if videos is not None else (known_clips() if split == "all" else [])
    clip_conditions = _with_unique_names([(clip_condition(path), str(path)) for path in clips])
    if videos is not None and not names:
        return clip_conditions
    if not names:
        return [*_constructed(split, needed=not clip_conditions), *clip_conditions]
    plain = [name for name in names if "@" not in name]
    available = {name for one, _ in clip_conditions for name in (one.name, one.kind)}
    constructed = _constructed(split, needed=not set(names) <= available)
    found = [*constructed, *clip_conditions]
    seeded = [Selected(condition_by_name(name), None) for name in names if "@" in name]
    known = {name for condition, _ in found for name in (condition.name, condition.kind)}
    if unknown := [name for name in plain if name not in known]:
        raise EvaluateError(
            f"expected conditions out of {', '.join(one.name for one, _ in found)}, or NAME@SEED for another "
            f"sequence, got {', '.join(unknown)}"
        )
    return [*(pair for pair in found if {pair.condition.name, pair.condition.kind} & set(plain)), *seeded]


def select_clips(names: Sequence[str] | None, files: Sequence[Path]) -> tuple[list[Selected], dict[str, str]]:
    """The known clips with these names, else all unless files are given; then the files.

    Also returns why a clip is left out, by name. Raises EvaluateError for an unknown name.
    """
    known = {Path(clip).stem: clip_path(clip) for clip in CLIPS}
    if unknown := [name for name in names or () if name not in known]:
        raise EvaluateError(f"expected clips out of {', '.join(known)}, got {', '.join(unknown)}")
    wanted = [known[name] for name in names or ([] if files else known)]
    opened, skipped = [], {}
    for path in [*wanted, *files]:
        if path in wanted and not path.is_file():
            skipped[path.stem] = f"not downloaded; run .venv/bin/python scripts/fetch_data.py {path.stem}"
            continue
        try:
            opened.append((clip_condition(path), str(path)))
        except EvaluateError as error:
            skipped[path.stem] = str(error)
    return _with_unique_names(opened), skipped


def _constructed(split: str, needed: bool) -> list[Selected]:
    """The constructed conditions; without them in this installation, none unless they are needed."""
    if needed:
        require_sequences(f"--split {split}")
    elif not sequences_available():
        return []
    return [Selected(condition, None) for condition in constructed_conditions(split)]


def _with_unique_names(clips: list[tuple[Condition, str]]) -> list[Selected]:
    """The clips; a name that is already taken gets a number."""
    taken = {condition.name for condition, _ in _constructed("all", needed=False)}
    unique: list[Selected] = []
    for condition, video in clips:
        number, name = 1, condition.name
        while name in taken:
            number += 1
            name = f"{condition.name}_{number}"
        taken.add(name)
        unique.append(Selected(replace(condition, name=name), video))
    return unique
