"""The terminal view of a real pipeline, in a terminal of its own and in scripts."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from model_cases import clip_or_skip
from ros_cases import TIMEOUT_S

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "edge_vision", "top"]
CONTROLS = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b\[|\r")
ALT_SCREEN, MAIN_SCREEN = b"\x1b[?1049h", b"\x1b[?1049l"


@pytest.fixture
def pipeline(launch):
    video = clip_or_skip("vtest.avi")
    return launch("pipeline", "--source", video, "--loop")


class Terminal:
    """A terminal of this size with the view in it."""

    def __init__(self, rows: int, columns: int) -> None:
        self._ours, self.theirs = pty.openpty()
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.before = termios.tcgetattr(self.theirs)
        env = {**os.environ, "TERM": "xterm", "NO_COLOR": "1"}
        for name in ("COLUMNS", "LINES"):
            env.pop(name, None)
        self.process = subprocess.Popen(
            COMMAND, cwd=ROOT, env=env, stdin=self.theirs, stdout=self.theirs, stderr=self.theirs
        )
        self.output = b""

    def read(self) -> None:
        while select.select([self._ours], [], [], 0.05)[0]:
            self.output += os.read(self._ours, 65536)

    @property
    def picture(self) -> str:
        """The last complete picture: another one has begun after it."""
        *_, whole, _ = [b"", b"", *self.output.split(b"\x1b[H")]
        return CONTROLS.sub("", whole.decode())

    def wait(self, happened, what: str) -> None:
        until_s = time.monotonic() + TIMEOUT_S
        while not happened():
            assert time.monotonic() < until_s, f"waited for {what}, having\n{self.picture}"
            self.read()

    def press(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(20)
        os.close(self._ours)
        os.close(self.theirs)


@pytest.fixture
def terminal(domain):
    terminal = Terminal(24, 80)
    yield terminal
    terminal.close()


@pytest.mark.parametrize("how", ["q", "SIGINT", "SIGTERM"])
def test_the_live_picture_and_its_exit(pipeline, terminal, how):
    terminal.wait(lambda: "CPUExecutionProvider" in terminal.picture, "the detector's backend")
    lines = terminal.picture.splitlines()
    assert len(lines) == 24 and max(map(len, lines)) <= 80
    for word in ("source", "gate", "cascade", "detector", "age", "ledger", "miss rate", "process", "system"):
        assert any(line.startswith(word) for line in lines), word
    # No colour where NO_COLOR is set.
    assert not re.search(rb"\x1b\[[0-9;]*3[0-7]m", terminal.output)
    if how == "q":
        terminal.press("q")
    else:
        terminal.process.send_signal(signal.Signals[how])
    terminal.wait(lambda: terminal.process.poll() is not None, "its end")
    terminal.read()
    assert terminal.process.returncode == 0
    assert terminal.output.count(ALT_SCREEN) == terminal.output.count(MAIN_SCREEN) == 1
    assert terminal.output.rstrip().endswith(MAIN_SCREEN) and b"\x1b[?25h" in terminal.output[-40:]
    assert termios.tcgetattr(terminal.theirs) == terminal.before
    assert b"Traceback" not in terminal.output


def test_it_waits_for_a_pipeline_and_shows_advice(terminal):
    terminal.wait(lambda: "/diagnostics has no publisher" in terminal.picture, "the advice")
    assert "ROS_DOMAIN_ID" in terminal.picture


def test_ctrl_z_restores_the_terminal_and_fg_redraws(pipeline, terminal):
    terminal.wait(lambda: "detector" in terminal.picture, "a picture")
    terminal.process.send_signal(signal.SIGTSTP)
    stopped = lambda: state_of(terminal.process.pid) == "T"  # noqa: E731
    terminal.wait(stopped, "it to stop")
    assert terminal.output.count(MAIN_SCREEN) == 1
    assert termios.tcgetattr(terminal.theirs) == terminal.before
    terminal.process.send_signal(signal.SIGCONT)
    terminal.wait(lambda: terminal.output.count(ALT_SCREEN) == 2, "the screen again")
    terminal.press("q")
    terminal.wait(lambda: terminal.process.poll() is not None, "its end")
    assert terminal.process.returncode == 0


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_one_picture_for_a_script(pipeline, robot, tmp_path):
    robot.status("detector", lambda status, values: int(values["ledger.inferred"]) > 3)
    svg = tmp_path / "top.svg"
    command = [*COMMAND, "--once", "--wait", "30", "--svg", str(svg)]
    env = {**os.environ, "COLUMNS": "80"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr
    assert "pipeline /" in done.stdout and "CPUExecutionProvider" in done.stdout
    assert "\x1b" not in done.stdout and max(map(len, done.stdout.splitlines())) <= 80
    drawn = svg.read_text()
    assert drawn.startswith("<svg") and "CPUExecutionProvider" in drawn
    assert "font-face" not in drawn and "url(https" not in drawn


@pytest.mark.parametrize("arguments", [[], ["--ros-args", "-r", "/diagnostics:=/elsewhere"]])
def test_once_exits_with_1_if_nothing_is_received(domain, arguments):
    command = [*COMMAND, "--once", "--wait", "1", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=90)
    assert done.returncode == 1 and done.stdout == ""
    assert f"/diagnostics has no publisher on ROS domain {domain}" in done.stderr


def test_a_malformed_remapping_is_one_line(domain):
    command = [*COMMAND, "--once", "--ros-args", "-r", "a b:=c"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=90)
    assert done.returncode == 2 and "a b:=c" in done.stderr and "Traceback" not in done.stderr
