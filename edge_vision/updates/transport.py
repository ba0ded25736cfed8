"""Fetches files over HTTP or from a folder: with a deadline, at a limited rate, from any offset.

Redirects are refused: a captive portal answers with one, and a new address of the repository must be
configured.
"""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from tuf.api.exceptions import DownloadError, DownloadHTTPError
from tuf.ngclient import FetcherInterface

from edge_vision import __version__
from edge_vision.core.redaction import redact_text
from edge_vision.updates.connection_watchdog import ConnectionWatchdog

_CHUNK_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class TransferLimits:
    """connect_s: also the longest silence. metadata_s: for one metadata file. A larger file gets
    `metadata_s + bytes / min_bytes_per_s`; what was received then is kept for the next attempt.
    """

    connect_s: float = 20.0
    metadata_s: float = 60.0
    min_bytes_per_s: float = 16_384.0
    max_bytes_per_s: float = 4_000_000.0

    def deadline_s(self, size_bytes: int) -> float:
        """For a file of this size."""
        return self.metadata_s + size_bytes / self.min_bytes_per_s


class TransferFailed(DownloadError):
    """A failed transfer. reason: as in UpdateError."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Transport(FetcherInterface):
    """For http, https and file URLs. Follows the environment's proxies."""

    def __init__(self, limits: TransferLimits | None = None) -> None:
        self.limits = limits or TransferLimits()

    def _fetch(self, url: str) -> Iterator[bytes]:
        """A metadata file, for python-tuf."""
        _, chunks = self.open(url, 0, self.limits.metadata_s)
        return _refuse_html(url, chunks)

    def open(self, url: str, start: int, deadline_s: float) -> tuple[int, Iterator[bytes]]:
        """(offset, blocks) of a file from `start`; the offset is 0 if the server sends all of it.

        Raises TransferFailed and DownloadHTTPError, also while the blocks are read.
        """
        if urlsplit(url).scheme == "file":
            return start, _read_file(url, start)
        watchdog = ConnectionWatchdog(deadline_s)
        try:
            response = watchdog.opener().open(_request(url, start), timeout=self.limits.connect_s)
        except Exception as error:
            watchdog.close()
            raise self._failure(url, error, watchdog) from error
        content_range = response.headers.get("Content-Range", "")
        offset = start if response.status == 206 and content_range.startswith(f"bytes {start}-") else 0
        return offset, self._blocks(url, response, watchdog)

    def _blocks(self, url: str, response: Any, watchdog: ConnectionWatchdog) -> Iterator[bytes]:
        since_s, received = time.monotonic(), 0
        try:
            while block := response.read1(_CHUNK_BYTES):
                received += len(block)
                yield block
                early_s = received / self.limits.max_bytes_per_s - (time.monotonic() - since_s)
                if early_s > 0:
                    time.sleep(early_s)
            if watchdog.expired:
                raise TimeoutError
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._failure(url, error, watchdog) from error
        finally:
            watchdog.close()
            response.close()

    def _failure(self, url: str, error: Exception, watchdog: ConnectionWatchdog) -> DownloadError:
        shown = redact_text(url)
        if watchdog.expired or isinstance(_cause(error), TimeoutError):
            took = f"within {watchdog.deadline_s:.0f} s" if watchdog.expired else "in time"
            return TransferFailed("too_slow", f"{shown}: expected the file {took}, got a part or nothing")
        if isinstance(error, urllib.error.HTTPError):
            if location := error.headers.get("Location"):
                return TransferFailed(
                    "moved",
                    f"{shown}: expected the file, got a redirect to {redact_text(location)}: a captive "
                    "portal, or the repository has moved; then set repository_url",
                )
            return DownloadHTTPError(f"{shown}: expected the file, got HTTP status {error.code}", error.code)
        if isinstance(error, DownloadError):
            return error
        return TransferFailed(
            "unreachable", f"{shown}: expected a repository, got an error: {_cause(error)}"[:300]
        )


def _request(url: str, start: int) -> urllib.request.Request:
    headers = {"User-Agent": f"edge_vision/{__version__}", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    return urllib.request.Request(url, headers=headers)


def _cause(error: Exception) -> Any:
    return getattr(error, "reason", None) or error


def _read_file(url: str, start: int) -> Iterator[bytes]:
    path = Path(unquote(urlsplit(url).path))
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise DownloadHTTPError(f"{path}: expected a file, got no such file", 404) from None
    except OSError as error:
        raise TransferFailed(
            "unreachable", f"{path}: expected a file, got an error: {error.strerror}"
        ) from None

    def blocks() -> Iterator[bytes]:
        with file:
            try:
                file.seek(start)
                while block := file.read(_CHUNK_BYTES):
                    yield block
            except OSError as error:  # The stick was pulled out.
                raise TransferFailed("unreachable", f"{path}: reading failed: {error.strerror}") from None

    return blocks()


def _refuse_html(url: str, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The blocks of a metadata file, unless it is a web page."""
    first = next(chunks, b"")
    if first.lstrip()[:1] == b"<":
        raise TransferFailed(
            "captive_portal",
            f"{redact_text(url)}: expected TUF metadata, got a web page: a captive portal, or no repository "
            "at this address",
        )
    yield first
    yield from chunks
