"""An executable of the package in a child process, for the end-to-end tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


class Executable:
    """One of the package's executables in a child process."""

    COMMAND = (sys.executable, "-m", "edge_vision.nodes.cli")

    def __init__(
        self,
        folder: Path,
        name: str,
        *arguments: str,
        env: dict[str, str] | None = None,
        command: tuple[str, ...] = (),
    ) -> None:
        self.name = name
        self._log = folder / f"{name}_{os.urandom(4).hex()}.log"
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [*(command or self.COMMAND), name, *arguments],
                cwd=ROOT,
                env={**os.environ, **(env or {})},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self._log.read_text(errors="replace")

    def takes_signals(self) -> bool:
        """True once the program has installed its own handlers (Python has one only for SIGINT)."""
        try:
            status = Path(f"/proc/{self.process.pid}/status").read_text()
        except OSError:
            return False
        caught = int(status.partition("SigCgt:")[2].split()[0], 16)
        return bool(caught >> (signal.SIGTERM - 1) & 1)

    def end(self, number: int = signal.SIGINT, timeout_s: float = 60.0) -> int:
        """Send a signal and wait. Returns the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout_s)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(60)

    def members(self) -> list[int]:
        """Live processes of its session: children that it has left behind."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    state, _, _, session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
                except OSError:
                    continue
                if int(session) == self.process.pid and state != "Z":
                    found.append(int(entry.name))
        return found
