"""Debian packages and their sources without root: apt uses temporary state and cache folders."""

from __future__ import annotations

import gzip
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from bootstrap.paths import SetupError, cache_dir
from bootstrap.progress import Report, run_client


def download(package: str, folder: Path, report: Report) -> Path:
    """Download a .deb into `folder`. Downloads temporary package lists if the system's do not contain it."""
    for tool in ("apt-get", "dpkg"):
        if not shutil.which(tool):
            raise SetupError(f"{package} needs {tool}, which is not installed")
    try:
        return _download(package, folder, [], report)
    except SetupError:
        report(f"{package}: not in the system's package lists, downloading temporary lists")
    with _temporary_lists([], report) as options:
        return _download(package, folder, options, report)


def download_source(package: str, archive: str, folder: Path, report: Report) -> Path:
    """Download the upstream tarball of a source package into `folder`. archive: a pattern of its name.

    Systems rarely list source packages, so the lists are downloaded from the archives that the system uses.
    Raises SetupError.
    """
    if not shutil.which("apt-get"):
        raise SetupError(f"the source package {package} needs apt-get, which is not installed")
    parts = folder / "sources"
    _write_source_lists(Path("/etc/apt"), parts)
    with _temporary_lists(
        ["Dir::Etc::SourceList=/dev/null", f"Dir::Etc::SourceParts={parts}"], report
    ) as options:
        argv = ["apt-get", *_options(options), "source", "--download-only", "--tar-only", package]
        run_client(argv, folder, package, report)
    found = sorted(folder.glob(archive))
    if not found:
        raise SetupError(f"expected {archive} from apt-get source {package}, got no such file")
    return found[0]


def _write_source_lists(etc: Path, parts: Path) -> None:
    """Write apt sources with the source packages of the system's Debian and Ubuntu archives."""
    parts.mkdir()
    for file in [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*"))]:
        if not file.is_file() or file.suffix not in (".list", ".sources"):
            continue
        text = file.read_text()
        if file.suffix == ".list":
            lines = [line for line in text.splitlines() if re.match(r"deb\s.*(debian|ubuntu)", line)]
            text = "".join(f"deb-src{line[3:]}\n" for line in lines)
        else:
            stanzas = [one for one in re.split(r"\n\s*\n", text) if re.search("debian|ubuntu", one)]
            text = re.sub(r"(?m)^Types:.*$", "Types: deb-src", "\n\n".join(stanzas) + "\n")
        (parts / file.name).write_text(text)


@contextmanager
def _temporary_lists(more: list[str], report: Report) -> Iterator[list[str]]:
    """Options for apt to use temporary package lists. Raises SetupError."""
    # The user chooses the cache, which may contain a folder `apt` of another program.
    with tempfile.TemporaryDirectory(prefix=".apt-", dir=cache_dir()) as temporary:
        own = Path(temporary)
        for part in ("lists/partial", "archives/partial"):
            (own / part).mkdir(parents=True)
        options = [f"Dir::State::Lists={own / 'lists'}", f"Dir::Cache={own}", "Acquire::Languages=none"]
        options += more
        run_client(["apt-get", *_options(options), "update"], own, "package lists", report)
        yield options


def _download(package: str, folder: Path, options: list[str], report: Report) -> Path:
    run_client(["apt-get", *_options(options), "download", package], folder, package, report)
    found = sorted(folder.glob("*.deb"))
    if not found:
        raise SetupError(f"expected {package} from apt, got no file")
    return found[0]


def _options(options: list[str]) -> list[str]:
    # As root, apt switches to a user that cannot write below a home folder.
    always = ["APT::Sandbox::User=root", "Acquire::Retries=2", "Acquire::http::Timeout=20"]
    return ["-q", *(word for option in [*always, *options] for word in ("-o", option))]


@contextmanager
def open_file(deb: Path, file: str) -> Iterator[IO[bytes]]:
    """A file of a .deb as a stream, without unpacking the 100 MB of other files. Raises SetupError."""
    with subprocess.Popen(["dpkg", "--fsys-tarfile", deb], stdout=subprocess.PIPE) as process:
        try:
            with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
                yield _find(archive, file, deb)
        except tarfile.TarError as error:
            raise SetupError(f"{deb.name}: expected a readable package, got: {error}") from None
        finally:
            process.kill()


def _find(archive: tarfile.TarFile, file: str, deb: Path) -> IO[bytes]:
    for member in archive:
        name = Path(member.name).name
        wanted = member.isreg() and name in (file, file + ".gz")
        source = archive.extractfile(member) if wanted else None
        if source is not None:
            # Debian compresses large documentation files.
            return gzip.GzipFile(fileobj=source) if name.endswith(".gz") else source  # type: ignore[return-value]
    raise SetupError(f"{deb.name}: expected {file} in it, got none; the package has changed")
