"""A device that replies anything: the study on it ends with a clear error, at once and within bounds."""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edge_vision.optimize.device import this_device
from edge_vision.optimize.errors import OptimizeError
from edge_vision.optimize.remote import executor as executor_module
from edge_vision.optimize.remote import session as session_module
from edge_vision.optimize.remote.address import DeviceAddress
from edge_vision.optimize.remote.executor import DeviceExecutor
from edge_vision.optimize.report import page
from edge_vision.optimize.trials.executor import LocalExecutor, Trial
from edge_vision.optimize.trials.measure import Measurement, MeasureTask
from edge_vision.optimize.trials.worker import WorkerSetup

pytestmark = pytest.mark.timeout(60)
_SSH = """#!{python}
import json, os, sys, time
inp, out = sys.stdin.buffer, sys.stdout.buffer
inp.read(int(inp.readline()))
out.write(b"edge_vision agent 1\\n"); out.flush()
replies = json.load(open({replies!r}))
while line := inp.readline():
    header = json.loads(line)
    inp.read(header["size"])
    if "request" not in header:
        continue
    reply = replies[header["request"]]
    if "raw" in reply:
        out.write(reply["raw"].encode("latin-1") * reply.get("times", 1))
    else:
        data = bytes.fromhex(reply.pop("hex", "")) or b"x" * reply.pop("bytes", 0)
        reply = {{"id": header["id"], "size": len(data), **reply}}
        out.write(json.dumps(reply).encode() + b"\\n" + data)
    out.flush()
    time.sleep(reply.get("then_s", 0))
"""
HELLO = {"value": {"python": "3.11", "executable": "/python", "missing": []}}
TIMING = dict.fromkeys(("p50_ms", "p95_ms", "p99_ms", "inference_p50_ms", "cpu_p50_ms"), 1.0)
TIMING |= {"p50_band_ms": [1.0, 1.0], "passes": 3}  # type: ignore[dict-item]
RESULT = {
    "timing": TIMING,
    "agreement": {"metric": "top1", "value": 1, "score_shift": 0.0, "lost": 0, "gained": 0, "total": 8},
    "actual": {},
    "cold_start_s": 1.0,
    "rss_mb": 1.0,
}


def facts(**changes: Any) -> dict[str, Any]:
    device = this_device()
    plain = {name: getattr(device, name) for name in ("cpu", "cores", "flags", "system", "load", "versions")}
    return {"value": {**plain, **changes}}


def outcome(**changes: Any) -> dict[str, Any]:
    answer = {"status": "done", "reason": "", "wall_s": 1.0, "result": RESULT, **changes}
    return {"value": {"code": 0, "log": "", "answer": answer, "outputs": {}}}


def with_output(file: Any) -> dict[str, Any]:
    reply = outcome()
    reply["value"]["outputs"] = {"predictions/x.npz": file}
    return reply


NAME = hashlib.sha256(b"").hexdigest()
CONNECTING: dict[str, dict[str, Any]] = {
    "no JSON": {"hello": {"raw": "hello\n"}},
    "a list": {"hello": {"raw": "[]\n"}},
    "deep": {"hello": {"raw": "[" * 100_000 + "\n"}},
    "size of text": {"hello": {"raw": '{"id": 1, "size": "x"}\n'}},
    "negative size": {"hello": {"raw": '{"id": 1, "size": -5}\n'}},
    "huge size": {"hello": {"raw": '{"id": 1, "size": 1000000000000}\n'}},
    "endless line": {"hello": {"raw": "x" * 10_000, "times": 1000}},
    "many replies": {"hello": {"raw": '{"id": 9, "size": 0}\n', "times": 100}},
    "no value": {"hello": {"raw": '{"id": 1, "size": 0}\n'}},
    "value of nothing": {"hello": {"value": None}},
    "missing a number": {"hello": {"value": {"python": "3", "executable": "p", "missing": 5}}},
    "missing numbers": {"hello": {"value": {"python": "3", "executable": "p", "missing": [5]}}},
    "unknown file": {"missing": {"value": {"../../x": 0}}},
    "negative offset": {"missing": {"value": "NEGATIVE"}},
    "files of text": {"missing": {"value": "abc"}},
    "facts of nothing": {"facts": {"value": None}},
    "flags of numbers": {"facts": facts(flags=[5])},
    "flags of text": {"facts": facts(flags="avx2")},
    "cores of text": {"facts": facts(cores="many")},
    "versions of a list": {"facts": facts(versions=[])},
}
RUNNING: dict[str, dict[str, Any]] = {
    "nothing": {"value": None},
    "code of text": {"value": {"code": "x", "answer": None, "log": ""}},
    "answer of text": {"value": {"code": 0, "answer": "x", "outputs": {}}},
    "answer of other fields": outcome(other=1),
    "done without a result": outcome(result=None),
    "unknown status": outcome(status="perfect"),
    "reason of a number": outcome(status="failed", result=None, reason=5),
    "time of text": outcome(result={**RESULT, "timing": {**TIMING, "p50_ms": "<b>fast</b>"}}),
    "time that is none": outcome(result={**RESULT, "timing": {**TIMING, "p50_ms": float("nan")}}),
    "negative time": outcome(result={**RESULT, "timing": {**TIMING, "p50_band_ms": [-1.0, 1.0]}}),
    "output of a path": with_output("../../x"),
    "huge output": with_output([NAME, 1 << 50]),
    "negative output": with_output([NAME, -1]),
    "empty parts": {**with_output([NAME, 100]), "get": 0},
    "parts that are too long": {**with_output([NAME, 100]), "get": 200},
    "another content": {**with_output([NAME, 100]), "get": 100},
}


@pytest.fixture
def connect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An executor of a device with these replies."""

    def made(replies: dict[str, Any]) -> DeviceExecutor:
        good = {"hello": HELLO, "missing": {"value": {}}, "facts": facts(), "put": {"value": 0}}
        (tmp_path / "replies").write_text(json.dumps({**good, **replies}))
        ssh = tmp_path / "bin" / "ssh"
        ssh.parent.mkdir()
        ssh.write_text(_SSH.format(python=sys.executable, replies=str(tmp_path / "replies")))
        ssh.chmod(0o755)
        monkeypatch.setenv("PATH", f"{ssh.parent}:{os.environ['PATH']}")
        monkeypatch.setattr(session_module.agent, "MAX_FRAME_BYTES", 1 << 22)
        return DeviceExecutor(DeviceAddress.parse("ssh://robot"), LocalExecutor(), "study", waits_s=(0.1,))

    return made


@pytest.mark.parametrize("name", CONNECTING)
def test_a_device_that_greets_with_anything_is_an_error(connect: Any, name: str) -> None:
    replies = json.loads(json.dumps(CONNECTING[name]))
    if name == "negative offset":
        replies["missing"]["value"] = {executor_module._package_hash(): -5}
    with pytest.raises(OptimizeError, match="ssh://robot: ") as error:
        connect(replies).connect()
    assert len(str(error.value)) < 500


def measurement(folder: Path) -> tuple[Trial[Measurement], Path]:
    """A trial and the folder of its study."""
    setup = WorkerSetup("source", "onnxruntime", "auto", 1, "images")
    task = MeasureTask(setup, None, "classify", 0.1, "predictions/x.npz", "predictions/x.npz")
    (folder / "study" / "predictions").mkdir(parents=True)
    return Trial("measure", "x", task, Measurement), folder / "study"


@pytest.mark.parametrize("name", RUNNING)
def test_a_device_that_measures_anything_is_an_error(connect: Any, name: str, tmp_path: Path) -> None:
    reply = dict(RUNNING[name])
    device = connect({"get": {"value": None, "bytes": reply.pop("get", 0)}, "run": reply})
    device.connect()
    try:
        with pytest.raises(OptimizeError, match="ssh://robot: ") as error:
            device.run(*measurement(tmp_path), 5.0)
    finally:
        device.close()
    assert len(str(error.value)) < 500
    assert [one.name for one in tmp_path.rglob("*") if one.name.endswith((".npz", ".unfinished"))] == []


def packed(arrays: dict[str, Any], compress: bool = False) -> bytes:
    stream = io.BytesIO()
    (np.savez_compressed if compress else np.savez)(stream, **arrays)
    return stream.getvalue()


def scores(values: Any) -> bytes:
    return packed({"0.scores": values})


def boxes(n: int, **changes: Any) -> bytes:
    arrays = {"0.boxes": np.ones((n, 4), np.float32), "0.scores": np.ones(n, np.float32)}
    return packed({**arrays, "0.ids": np.zeros(n, np.int32), **changes})


def header(text: str, more: bytes = b"", times: int = 1) -> bytes:
    """An archive whose array declares this."""
    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w") as archive:
        warnings.simplefilter("ignore")  # Of a name twice.
        for _ in range(times):
            archive.writestr(
                "0.scores.npy", b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + more
            )
    return stream.getvalue()


def declared(data: bytes, size: int) -> bytes:
    """The archive, whose directory declares another size of its only entry."""
    at = data.index(b"PK\x01\x02") + 20
    return data[:at] + 2 * size.to_bytes(4, "little") + data[at + 8 :]


GOOD = scores(np.ones(3, np.float32))
HUGE = "{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776,)}\n"
PREDICTIONS: dict[str, tuple[str, bytes, str]] = {
    "a bomb": ("classify", packed({"0.scores": np.zeros(5_000_000, np.float32)}, True), "compressed arrays"),
    "a huge shape": ("classify", header(HUGE), r"\(1099511627776,\)"),
    "a negative shape": ("classify", header(HUGE.replace("1099511627776", "-1")), r"\(-1,\)"),
    "a size of its own": ("classify", declared(GOOD, 1 << 31), "larger than the file"),
    "objects": ("classify", scores(np.array([{}])), "of object"),
    "records": ("classify", scores(np.zeros(3, [("a", "f4")])), "0.scores.npy of"),
    "text": ("classify", scores(np.array(["a"])), "0.scores.npy of"),
    "a header that calls": ("classify", header("__import__('os').abort()\n"), "malformed"),
    "a deep header": ("classify", header("(" * 9_000), "no predictions"),
    "a long header": ("classify", header("{" + " " * 60_000 + "}"), "is large"),
    "another array": ("classify", packed({"1.scores": np.ones(3)}), "1 arrays, expected 1 of 1 images"),
    "two images": ("classify", packed({f"{i}.scores": np.ones(3) for i in range(2)}), "2 arrays"),
    "one array twice": ("classify", header(HUGE, times=2), "2 arrays"),
    "a table": ("classify", scores(np.ones((3, 2))), "shapes"),
    "no archive": ("classify", b"x" * 100, "no predictions"),
    "a cut archive": ("classify", GOOD[:-30], "no predictions"),
    "other boxes": ("detect", boxes(3, **{"0.boxes": np.ones((2, 4))}), "shapes"),
    "too many boxes": ("detect", boxes(1001), "1001 detections, expected at most 1000"),
    "ids that are no integers": ("detect", boxes(3, **{"0.ids": np.ones(3)}), "0.ids.npy of float64"),
}


def fetched(connect: Any, tmp_path: Path, task: str, data: bytes) -> Any:
    """The outcome of a measurement on one image with these predictions."""
    trial, folder = measurement(tmp_path)
    (folder / "images").mkdir()
    (folder / "images" / "0.png").touch()
    trial = replace(trial, task=replace(trial.task, task=task))
    reply = with_output([hashlib.sha256(data).hexdigest(), len(data)])
    device = connect({"get": {"value": None, "hex": data.hex()}, "run": reply})
    device.connect()
    try:
        return device.run(trial, folder, 5.0)
    finally:
        device.close()


@pytest.mark.parametrize("name", PREDICTIONS)
def test_predictions_are_kept_only_if_they_are_some(connect: Any, tmp_path: Path, name: str) -> None:
    task, data, needle = PREDICTIONS[name]
    with pytest.raises(OptimizeError, match=f"ssh://robot: expected replies .*{needle}") as error:
        fetched(connect, tmp_path, task, data)
    assert len(str(error.value)) < 500
    assert [one.name for one in tmp_path.rglob("*") if one.name.endswith((".npz", ".unfinished"))] == []


@pytest.mark.parametrize(
    ("task", "data"), [("classify", GOOD), ("detect", boxes(0)), ("detect", boxes(1000))]
)
def test_a_device_that_measures_is_believed(connect: Any, tmp_path: Path, task: str, data: bytes) -> None:
    found = fetched(connect, tmp_path, task, data)
    assert found.status == "done" and found.result.timing.p50_band_ms == (1.0, 1.0)
    assert (tmp_path / "study/predictions/x.npz").read_bytes() == data


def test_a_device_that_floods_standard_error_is_left(connect: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "_MAX_ERROR_BYTES", 1000)
    monkeypatch.setattr(session_module, "BEAT_S", 0.1)
    device = connect({"hello": {"raw": "", "then_s": 30}})
    ssh = Path(os.environ["PATH"].partition(":")[0]) / "ssh"
    ssh.write_text(ssh.read_text().replace("replies = ", 'sys.stderr.write("x" * 100000)\nreplies = '))
    with pytest.raises(OptimizeError, match="more than 1000 bytes to standard error"):
        device.connect()


@pytest.mark.parametrize("content", [b"", b"no archive", "fewer images", "an index beyond all classes"])
def test_predictions_that_are_none_leave_the_rest_of_the_report(
    content: bytes | str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = {"0.boxes": np.ones((1, 4)), "0.scores": np.ones(1), "0.ids": np.zeros(1, np.int32)}
    np.savez(tmp_path / "reference.npz", **one)
    if isinstance(content, bytes):
        (tmp_path / "found.npz").write_bytes(content)
    else:
        np.savez(tmp_path / "found.npz", **({} if "fewer" in content else {**one, "0.ids": [[2**40]]}))
    (tmp_path / page.EVALUATION).mkdir(parents=True)
    (tmp_path / page.EVALUATION / "0.png").write_bytes(b"")
    monkeypatch.setattr(page, "predictions_file", lambda name: f"{name}.npz")
    monkeypatch.setattr(page, "load_bundle", lambda _: SimpleNamespace(labels=("a",)))
    report = SimpleNamespace(
        decision=SimpleNamespace(chosen="found"),
        results=(),
        baseline="reference",
        model=SimpleNamespace(task="detect"),
    )
    assert page._differences(tmp_path, report) == {}
