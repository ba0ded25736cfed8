"""One member of an archive as a stream. Nothing is unpacked, so no member can write outside a folder."""

from __future__ import annotations

import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from bootstrap.paths import SetupError


@contextmanager
def open_member(archive: Path, member: str) -> Iterator[IO[bytes]]:
    """A regular file of a wheel (.whl) or of a tarball, where `member` excludes the top folder.

    Raises SetupError if the archive is damaged, or the member is missing, a link, or outside the folder.
    """
    opened = _zip_member if archive.suffix == ".whl" else _tar_member
    try:
        with opened(archive, member) as source:
            yield source
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise SetupError(f"{archive.name}: expected a readable archive, got: {error}") from None


@contextmanager
def _zip_member(archive: Path, member: str) -> Iterator[IO[bytes]]:
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            if _is_named(info.filename, member, archive):
                if info.is_dir() or stat.S_ISLNK(info.external_attr >> 16):
                    raise _not_a_file(archive, info.filename)
                with file.open(info) as source:
                    yield source
                return
    raise _missing(archive, member)


@contextmanager
def _tar_member(archive: Path, member: str) -> Iterator[IO[bytes]]:
    with tarfile.open(archive, "r|*") as file:
        for info in file:
            if _is_named(info.name.partition("/")[2], member, archive, info.name):
                source = file.extractfile(info) if info.isreg() else None
                if source is None:
                    raise _not_a_file(archive, info.name)
                yield source
                return
    raise _missing(archive, member)


def _is_named(name: str, member: str, archive: Path, whole: str = "") -> bool:
    """True for the requested member. whole: the name including the top folder."""
    path = PurePosixPath(whole or name)
    if PurePosixPath(name) != PurePosixPath(member):
        return False
    if path.is_absolute() or ".." in path.parts:
        raise SetupError(f"{archive.name}: expected {member} inside the archive's folder, got {path}")
    return True


def _not_a_file(archive: Path, name: str) -> SetupError:
    return SetupError(f"{archive.name}: expected a regular file {name}, got a link or a folder")


def _missing(archive: Path, member: str) -> SetupError:
    return SetupError(f"{archive.name}: expected {member} in it, got none; the package has changed")
