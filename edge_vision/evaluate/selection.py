"""Which conditions an evaluation runs on: the arguments that say so, and the conditions that they mean."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edge_vision.evaluate import process_pool
from edge_vision.evaluate.conditions import SPLITS, Condition, by_name, conditions
from edge_vision.evaluate.errors import EvaluateError
from edge_vision.evaluate.reference.clips import clip_condition, known_clips
from edge_vision.source.capture import SourceError, video_path


def add_what(parser: argparse.ArgumentParser, names: str, out: str) -> None:
    """The arguments that all evaluations share. names: the option that lists conditions."""
    parser.add_argument(
        "--video",
        action="append",
        type=video_argument,
        metavar="V",
        help=f"a clip instead of the {names[2:]}; may be repeated",
    )
    parser.add_argument(
        names, nargs="+", metavar="NAME", help="only these, by name or kind; NAME@SEED: another sequence"
    )
    parser.add_argument("--split", choices=[*SPLITS, "all"], default="all", help="default: %(default)s")
    parser.add_argument(
        "--quick", action="store_true", help=f"only the first {process_pool.QUICK_FRAMES} frames of each"
    )
    parser.add_argument(
        "--jobs", type=_jobs, default=process_pool.default_jobs(), help="processes (default: %(default)s)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path(out), help="folder for the results (default: %(default)s)"
    )


def video_argument(text: str) -> Path:
    """A video's path, absolute, as argparse takes it."""
    try:
        return video_path(text)
    except SourceError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _jobs(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 64:
        raise argparse.ArgumentTypeError(f"expected 1 to 64 processes, got {text}")
    return value


def picked(
    names: Sequence[str] | None, split: str, videos: Sequence[Path] | None
) -> list[tuple[Condition, str | None]]:
    """The conditions of these names or kinds, all where none is given, each with its video file.

    videos: clips in place of the known ones. Raises EvaluateError.
    """
    clips = videos if videos is not None else (known_clips() if split == "all" else [])
    named = _named_apart([(clip_condition(path), str(path)) for path in clips])
    built = [(condition, None) for condition in conditions(split)]
    if videos is not None and not names:
        return [*named]
    if not names:
        return [*built, *named]
    more: list[tuple[Condition, str | None]] = [(by_name(name), None) for name in names if "@" in name]
    found = [*built, *named, *more]
    known = {name for condition, _ in found for name in (condition.name, condition.kind)}
    unknown = [name for name in names if name not in known]
    if unknown:
        there = ", ".join(condition.name for condition, _ in found)
        raise EvaluateError(
            f"expected conditions out of {there}, or one of them with a number behind an @, "
            f"got {', '.join(unknown)}"
        )
    plain = [pair for pair in [*built, *named] if {pair[0].name, pair[0].kind} & set(names)]
    return [*plain, *more]


def _named_apart(clips: list[tuple[Condition, str]]) -> list[tuple[Condition, str | None]]:
    """Two clips of one name, or one with that of a condition, get numbers."""
    taken = {condition.name for condition in conditions()}
    named: list[tuple[Condition, str | None]] = []
    for condition, video in clips:
        number, name = 1, condition.name
        while name in taken:
            number += 1
            name = f"{condition.name}_{number}"
        taken.add(name)
        named.append((replace(condition, name=name), video))
    return named
