"""One line for each step, with the seconds it took; live on a terminal, now and then in a log."""

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

from bootstrap.places import SetupError, clean_env

LOG_EVERY_S = 10.0
REDRAW_S = 0.5
LAST_LINES = 8
CLIENT_REPORT_EVERY_S = 2.0

Report = Callable[[str], None]
ReadLine = Callable[[str], str | None]
"""Takes a line of a program's output and gives what to show for it, or None to leave the display as it is."""


class Step:
    """A running step. Use as a context; `say` changes the detail that stands behind the title."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._detail = ""
        self._live = sys.stdout.isatty()
        self._started = time.monotonic()
        self._over = threading.Event()
        self._ticker = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> Step:
        self._show()
        self._ticker.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._over.set()
        self._ticker.join()
        if kind is not None:
            self._detail = "stopped" if kind is KeyboardInterrupt else "failed"
        self._show(end=f", {self.elapsed_s:.1f} s")

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._started

    def say(self, detail: str) -> None:
        self._detail = detail

    def _tick(self) -> None:
        while not self._over.wait(REDRAW_S if self._live else LOG_EVERY_S):
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
    """Run a program, show what `read` makes of its lines, keep all of them in `log`. Raises SetupError."""
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
                    step.say(detail)
        finally:
            _end(process)
    if process.returncode != 0:
        raise SetupError(
            f"{Path(argv[0]).name} ended with code {process.returncode}; its last lines:\n"
            + "\n".join(last)
            + f"\nall of them: {log}"
        )


def _end(process: subprocess.Popen[str]) -> None:
    """Wait for it; after Ctrl-C or an error of ours it may not outlive us."""
    if sys.exc_info()[0] is not None:
        process.terminate()
    try:
        process.wait(timeout=None if sys.exc_info()[0] is None else 5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def run_client(argv: list[str], folder: Path, what: str, report: Report) -> None:
    """Run a registry's client, and say how far it is. Raises SetupError with its last lines."""
    with _watch(lambda: report(f"{what}: {_size_mb(folder):.0f} MB")):
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
        raise SetupError(f"{what}: {Path(argv[0]).name} ended with code {done.returncode}: {last}")


@contextmanager
def _watch(tell: Callable[[], None]) -> Iterator[None]:
    """Call `tell` every few seconds, from the time that the first ones have passed."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(CLIENT_REPORT_EVERY_S):
            tell()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _size_mb(folder: Path) -> float:
    total = 0
    for file in folder.rglob("*"):
        try:
            total += file.stat().st_size
        except OSError:  # renamed or deleted meanwhile
            continue
    return total / 1e6
