"""One line per step with its duration: updated live on a terminal, every 10 s in a log."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from bootstrap.paths import SetupError, clean_env

LOG_EVERY_S = 10.0
REDRAW_S = 0.5
LAST_LINES = 8
CLIENT_REPORT_EVERY_S = 2.0

Report = Callable[[str], None]
ReadLine = Callable[[str], str | None]
"""Maps a line of a program's output to the text to display, or to None to keep the current one."""


class Step:
    """A running step, used as a context manager. `show` sets the detail after the title."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._detail = ""
        self._live = sys.stdout.isatty()
        self._started = time.monotonic()
        self._ended = threading.Event()
        self._ticker = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> Step:
        self._show()
        self._ticker.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._ended.set()
        self._ticker.join()
        if kind is not None:
            self._detail = "stopped" if kind is KeyboardInterrupt else "failed"
        self._show(end=f", {self.elapsed_s:.1f} s")

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._started

    def show(self, detail: str) -> None:
        self._detail = detail

    def _tick(self) -> None:
        while not self._ended.wait(REDRAW_S if self._live else LOG_EVERY_S):
            self._show()

    def _show(self, end: str = "") -> None:
        if end:
            text = f"{self._title}: {self._detail or 'done'}{end}"
        else:
            text = (
                f"{self._title}: {self._detail} ({self.elapsed_s:.0f} s)"
                if self._detail
                else f"{self._title} ..."
            )
        if not self._live:
            print(text, flush=True)
            return
        width = shutil.get_terminal_size().columns - 1
        print(f"\r\x1b[K{text if end else text[:width]}", end="\n" if end else "", flush=True)


def run(
    argv: Sequence[str | os.PathLike[str]],
    *,
    env: Mapping[str, str],
    read: ReadLine,
    step: Step,
    log: Path,
    cwd: Path | None = None,
) -> None:
    """Run a program, display `read(line)` for its output, append the output to `log`. Raises SetupError."""
    last: deque[str] = deque(maxlen=LAST_LINES)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        process = subprocess.Popen(
            argv,
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        try:
            assert process.stdout is not None
            for line in process.stdout:
                file.write(line)
                if not line.startswith("WARNING"):
                    last.append("    " + line.rstrip())
                detail = read(line)
                if detail is not None:
                    step.show(detail)
        finally:
            _end(process)
    if process.returncode != 0:
        raise SetupError(
            f"{Path(argv[0]).name} exited with status {process.returncode}; its last lines:\n"
            + "\n".join(last)
            + f"\ncomplete output: {log}"
        )


def _end(process: subprocess.Popen[str]) -> None:
    """Wait for the process. After Ctrl-C or an exception, terminate it."""
    if sys.exc_info()[0] is not None:
        process.terminate()
    try:
        process.wait(timeout=None if sys.exc_info()[0] is None else 5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def run_client(argv: list[str], folder: Path, what: str, report: Report) -> None:
    """Run a registry's client and report the size of its download. Raises SetupError with its last lines."""
    with _called_periodically(lambda: report(f"{what}: {_size_mb(folder):.0f} MB")):
        done = subprocess.run(
            argv,
            cwd=folder,
            env=clean_env(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
    if done.returncode != 0:
        last = " / ".join(done.stdout.strip().splitlines()[-3:])
        raise SetupError(f"{what}: {Path(argv[0]).name} exited with status {done.returncode}: {last}")


@contextmanager
def _called_periodically(function: Callable[[], None]) -> Iterator[None]:
    """Call a function every CLIENT_REPORT_EVERY_S in the background."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(CLIENT_REPORT_EVERY_S):
            function()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _size_mb(folder: Path) -> float:
    total = 0
    for file in folder.rglob("*"):
        try:
            total += file.stat().st_size
        except OSError:  # Renamed or deleted in the meantime.
            continue
    return total / 1e6
