"""Checks and downloads in a child process, so that the node's process never imports python-tuf.

    python -m edge_vision.updates.fetch_process < ORDER

ORDER is JSON, not an argument, which every user of the machine can read. The child writes JSON lines:
progress, then one result.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge_vision.core.child_process import child_environment, describe_exit, end_with_parent, python_command
from edge_vision.core.missing_package import missing_package
from edge_vision.errors import EdgeVisionError, UpdateError


@dataclass(frozen=True, slots=True)
class FetchOrder:
    """What to fetch. bootstrap: path of the root file. folder: of the slot store. parent: its process id.
    robot: its id."""

    url: str
    group: str
    channel: str
    bootstrap: str
    folder: str
    parent: int
    robot: str = ""


@dataclass(frozen=True, slots=True)
class FetchResult:
    """outcome: as of `fetch_update`, or "failed" with the reason and text of the error. release: as JSON,
    None if it failed before one was found."""

    outcome: str
    digest: str = ""
    release: Mapping[str, Any] | None = None
    reason: str = ""
    text: str = ""


class FetchProcess:
    """A running child. progress: bytes done and in total."""

    def __init__(self, order: FetchOrder) -> None:
        self.progress = (0, 0)
        self._result: FetchResult | None = None
        self._child = subprocess.Popen(
            python_command("edge_vision.updates.fetch_process"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=child_environment(),
            text=True,
        )
        assert self._child.stdin is not None
        with contextlib.suppress(OSError), self._child.stdin as stdin:
            stdin.write(json.dumps(asdict(order)))
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        result = None
        assert self._child.stdout is not None
        with self._child.stdout as lines:
            for line in lines:
                found = json.loads(line)
                if "progress" in found:
                    self.progress = tuple(found["progress"])
                else:
                    result = FetchResult(**found)
        how = describe_exit(self._child.wait())
        self._result = result or FetchResult("failed", reason="crashed", text=f"the check {how}")

    @property
    def result(self) -> FetchResult | None:
        """None while the child runs."""
        return self._result

    def stop(self) -> None:
        """End the child. A download continues with the next check."""
        self._child.kill()
        self._thread.join()


def _fetch(order: FetchOrder) -> FetchResult:
    from edge_vision.updates.client import UpdateClient
    from edge_vision.updates.fetch import fetch_update, try_bundle
    from edge_vision.updates.slots import read_state

    folder = Path(order.folder)
    try:
        bootstrap = Path(order.bootstrap).expanduser().read_bytes()
        state = read_state(folder)
    except OSError as error:
        raise UpdateError("config", f"bootstrap_root: expected a root file, got: {error}") from None
    client = UpdateClient(order.url, order.group, order.channel, bootstrap, folder / "trust")
    offer = client.check()
    try:
        outcome = fetch_update(client, offer, order.robot, folder, state, try_bundle, _Progress())
    except UpdateError as error:
        return FetchResult("failed", offer.digest, offer.release.custom, error.reason, str(error))
    return FetchResult(outcome, offer.digest, offer.release.custom, text=client.clock_note)


class _Progress:
    """Writes a line for each percent."""

    def __init__(self) -> None:
        self._percent = -1

    def __call__(self, done: int, total: int) -> None:
        percent = 100 * done // max(total, 1)
        if percent != self._percent:
            self._percent = percent
            print(json.dumps({"progress": [done, total]}), flush=True)


def main() -> int:
    """Carry out the order. Returns the exit status."""
    try:
        order = FetchOrder(**json.load(sys.stdin))
        # Two downloads into the same files could change one that is verified.
        end_with_parent(order.parent)
        result = _fetch(order)
    except UpdateError as error:
        result = FetchResult("failed", reason=error.reason, text=str(error))
    except EdgeVisionError as error:
        result = FetchResult("failed", reason="invalid", text=str(error))
    except ModuleNotFoundError as error:
        result = FetchResult("failed", reason="missing_package", text=missing_package(error))
    print(json.dumps(asdict(result)), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
