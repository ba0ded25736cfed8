"""How many log lines of one kind get through, and the JSON lines for log shippers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge_vision.core.child_process import child_environment
from edge_vision.core.json_log import JsonLog, LogRateLimit


def test_an_hour_of_flapping_fits_on_a_screen_and_nothing_is_uncounted() -> None:
    budget = LogRateLimit()
    admitted = [budget.admit("gate_mode", n * 0.1) for n in range(36_000)]
    lines = [held for held in admitted if held is not None]
    assert lines[:5] == [0] * 5 and 5 < len(lines) <= 11
    last = max(n for n, held in enumerate(admitted) if held is not None)
    assert sum(lines) + len(lines) == last + 1


def test_rare_messages_are_never_suppressed() -> None:
    budget = LogRateLimit()
    assert [budget.admit("limit", n * 600.0) for n in range(50)] == [0] * 50


def test_kinds_do_not_take_from_each_other() -> None:
    budget = LogRateLimit(burst=1)
    assert budget.admit("a", 0.0) == 0 and budget.admit("a", 1.0) is None
    assert budget.admit("b", 1.0) == 0


def read(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_one_object_per_line_with_its_time(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    lines = JsonLog(str(path))
    lines.write(1_700_000_000_123_456_789, {"text": 'two\nlines, "quotes", größe \ud800', "n": 1})
    lines.write(1_700_000_001_000_000_000, {"path": Path("/x"), "none": None})
    first, second = read(path)
    assert first["time"] == "2023-11-14T22:13:20.123456Z" and first["n"] == 1
    assert str(first["text"]).startswith('two\nlines, "quotes", größe')
    assert second == {"time": "2023-11-14T22:13:21.000000Z", "path": "/x", "none": None}


def test_neither_secrets_nor_control_characters_are_written(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    uri = "rtsp://user:secret@camera/1?token=secret"
    JsonLog(str(path)).write(0, {"text": f"lost {uri}", "more": [{"uri": uri}], "bad": "\x1b\x7f\x9b\u202e"})
    text = path.read_text("utf-8")
    assert "secret" not in text and text.rstrip("\n").isprintable()
    (line,) = read(path)
    assert line["bad"] == "\x1b\x7f\x9b\u202e" and line["more"] == [{"uri": "rtsp://***@camera/1?token=***"}]


def test_a_rotated_file_is_created_again(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    lines = JsonLog(str(path))
    lines.write(0, {"n": 1})
    path.rename(tmp_path / "log.jsonl.1")
    lines.write(0, {"n": 2})
    assert [one["n"] for one in read(tmp_path / "log.jsonl.1") + read(path)] == [1, 2]


def test_writers_of_several_processes_do_not_mix_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    code = (
        "import sys\nfrom edge_vision.core.json_log import JsonLog\n"
        "lines = JsonLog(sys.argv[1])\n"
        "for n in range(200): lines.write(n, {'who': sys.argv[2], 'n': n, 'long': 'x' * 2000})\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(path), who]) for who in "abc"]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    for who in "abc":
        assert [one["n"] for one in read(path) if one["who"] == who] == list(range(200))


def test_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    JsonLog("stdout").write(0, {"n": 1})
    assert json.loads(capfd.readouterr().out) == {"time": "1970-01-01T00:00:00.000000Z", "n": 1}


def test_an_unwritable_path_raises_at_once(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        JsonLog(str(tmp_path / "no" / "log"))
    with pytest.raises(OSError, match="Is a directory"):
        JsonLog(str(tmp_path))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="No such device"):  # Nobody reads it: to wait would hang the node.
        JsonLog(str(tmp_path / "pipe"))


FULL_DISK = """
import json, resource, sys
from edge_vision.core.child_process import child_environment
from edge_vision.core.json_log import JsonLog
log, hard = JsonLog(sys.argv[1]), resource.getrlimit(resource.RLIMIT_FSIZE)[1]
log.write(0, {"text": "first"})
resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
try:
    log.write(0, {"text": "x" * 200})
except OSError as error:
    print(error.strerror)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
log.write(0, {"text": "last"})
"""


def test_a_disk_that_takes_a_part_of_a_line_keeps_none_of_it(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    command = [sys.executable, "-c", FULL_DISK, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, env=child_environment())
    assert done.stdout == "No space left on device\n", done.stderr
    assert [line["text"] for line in read(path)] == ["first", "last"]
