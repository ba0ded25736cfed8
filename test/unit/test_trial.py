"""A graph that kills, hangs or outgrows its runtime is refused in a child process, and this one goes on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from model_cases import SSD, bundle_or_skip, mean_graph
from onnx import TensorProto, helper
from trial_cases import install_harmful_backends

from edge_vision.backends import BackendRequest, make_backend, open_session
from edge_vision.backends.registry import imported_plugins
from edge_vision.backends.selection.auto_select import check_agreement, choose
from edge_vision.backends.serving.loaded_model import ModelRequest
from edge_vision.backends.serving.model_manager import ModelManager
from edge_vision.backends.trial import parent, record
from edge_vision.backends.trial.parent import try_graph
from edge_vision.bundles.store import cache_dir, load_bundle
from edge_vision.cli.models import main
from edge_vision.detect.detector import Detector
from edge_vision.errors import BackendError, GraphRefused
from edge_vision.importer import probe as importer_probe
from edge_vision.optimize.source import source_bundle

REQUEST = BackendRequest()


@pytest.fixture
def graph(tmp_path, monkeypatch):
    """A sound graph, harmful backends, and a cache that knows nothing."""
    install_harmful_backends(tmp_path / "site", monkeypatch)
    monkeypatch.setenv("EDGE_VISION_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(record, "_HERE", set())
    monkeypatch.setattr(record, "_REFUSED", {})
    return mean_graph(tmp_path / "model.onnx")


@pytest.fixture
def bundle(graph, tmp_path, monkeypatch):
    there = bundle_or_skip_from_home(monkeypatch, tmp_path)
    folder = cache_dir() / "bundles" / SSD
    shutil.copytree(there, folder)
    return load_bundle(SSD)


def bundle_or_skip_from_home(monkeypatch, tmp_path):
    monkeypatch.delenv("EDGE_VISION_CACHE")
    folder = bundle_or_skip(SSD).folder
    monkeypatch.setenv("EDGE_VISION_CACHE", str(tmp_path / "cache"))
    return folder


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("aborts", "was killed by SIGABRT while loading it"),
        ("segfaults", "was killed by SIGSEGV while loading it"),
        ("exits", "exited with status 7 while loading it"),
        ("hangs", "did not end loading it within 1 s"),
        ("hangs_in_run", "did not end running it within 2 s"),
        ("eats", "GB of memory"),
        ("aborts_on_white", "was killed by SIGABRT while running it"),
    ],
)
def test_what_does_harm_is_refused_with_its_reason(graph, monkeypatch, name, reason):
    monkeypatch.setattr(parent, "RUN_LIMIT_S", 2.0)
    monkeypatch.setattr(parent, "MEMORY_LIMIT_BYTES", 400 << 20)
    with pytest.raises(GraphRefused, match=f"runs on {name}, got one whose trial process .*{reason}"):
        try_graph(make_backend(name), graph, REQUEST)
    assert not record.record_file().exists(), "a refusal is not recorded as passed"


def test_a_loop_that_never_ends_is_refused_by_a_real_runtime(graph, monkeypatch):
    """Its body keeps the condition true, and it may run 2^63 times."""
    monkeypatch.setattr(parent, "RUN_LIMIT_S", 3.0)
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Add", ["sum", "images"], ["more"]),
        ],
        "body",
        [info("i", 7, []), info("go", TensorProto.BOOL, []), info("sum", 1, [1, 3, 8, 8])],
        [info("go_on", TensorProto.BOOL, []), info("more", 1, [1, 3, 8, 8])],
    )
    weights = [
        helper.make_tensor("times", 7, [], [2**63 - 1]),
        helper.make_tensor("start", TensorProto.BOOL, [], [True]),
    ]
    loop = helper.make_node("Loop", ["times", "start", "images"], ["out"], body=body)
    io = info("images", 1, [1, 3, 8, 8]), info("out", 1, [1, 3, 8, 8])
    made = helper.make_graph([loop], "endless", [io[0]], [io[1]], weights)
    opset = [helper.make_opsetid("", 17)]
    graph.write_bytes(helper.make_model(made, opset_imports=opset, ir_version=8).SerializeToString())
    with pytest.raises(GraphRefused, match="did not end running it within 3 s"):
        try_graph(make_backend("onnxruntime"), graph, REQUEST)


def test_a_sound_graph_is_tried_once(graph, monkeypatch):
    try_graph(make_backend("harmless"), graph, REQUEST)
    assert len(record.record_file().read_text().splitlines()) == 1
    monkeypatch.setattr(record, "_HERE", set())  # As the next process sees it.
    monkeypatch.setattr(parent.subprocess, "Popen", lambda *a, **k: pytest.fail("tried again"))
    try_graph(make_backend("harmless"), graph, REQUEST)


@pytest.mark.parametrize("other", ["graph", "backend", "device", "option", "runtime"])
def test_a_trial_says_nothing_about_another_case(graph, monkeypatch, other):
    try_graph(make_backend("harmless"), graph, REQUEST)
    backend, request = make_backend("harmless"), REQUEST
    if other == "graph":
        graph.write_bytes(graph.read_bytes() + b"\x32\x01x")
    if other == "backend":
        backend = make_backend("onnxruntime")
    if other == "device":
        request = BackendRequest("cpu")
    if other == "option":
        request = BackendRequest(options={"memory_arena": False})
    if other == "runtime":
        monkeypatch.setattr(parent, "installed_packages", lambda names: {"onnxruntime": "99.0"})
    try_graph(backend, graph, request)
    assert len(record.record_file().read_text().splitlines()) == 2


@pytest.mark.parametrize(
    "data", [b"\x00\xff\n", b"[" * 100_000, b"0" * 64, b"A" * 64 + b"\n", b"0" * 10_000_000, b"\n\n"]
)
def test_a_damaged_record_is_made_again(graph, data):
    file = record.record_file()
    file.parent.mkdir(parents=True)
    file.write_bytes(data)
    try_graph(make_backend("harmless"), graph, REQUEST)
    assert [len(line) for line in file.read_text().splitlines()] == [64]
    assert [path.name for path in file.parent.iterdir()] == ["trials"], "no temporary file is left"


def test_the_record_has_a_bounded_size(graph):
    for number in range(record.MAX_KEYS + 3):
        record.add(f"{number:064x}")
    lines = record.record_file().read_text().splitlines()
    assert len(lines) == record.MAX_KEYS and lines[-1] == f"{record.MAX_KEYS + 2:064x}"


def test_a_record_that_cannot_be_written_costs_only_the_record(graph, monkeypatch):
    cache_dir().write_text("a file where the folder should be")
    try_graph(make_backend("harmless"), graph, REQUEST)
    monkeypatch.setattr(parent.subprocess, "Popen", lambda *a, **k: pytest.fail("tried again"))
    try_graph(make_backend("harmless"), graph, REQUEST)


def test_a_refused_graph_is_not_tried_again_at_once(graph, monkeypatch):
    with pytest.raises(GraphRefused) as first:
        try_graph(make_backend("aborts"), graph, REQUEST)
    monkeypatch.setattr(parent.subprocess, "Popen", lambda *a, **k: pytest.fail("tried again"))
    with pytest.raises(GraphRefused) as second:
        try_graph(make_backend("aborts"), graph, REQUEST)
    assert str(first.value) == str(second.value)
    monkeypatch.undo()


def test_an_error_of_the_runtime_is_passed_on_as_it_is(graph):
    graph.write_bytes(b"no graph")
    with pytest.raises(BackendError, match="is no ONNX file, or is damaged") as caught:
        try_graph(make_backend("onnxruntime"), graph, REQUEST)
    assert type(caught.value) is BackendError


def test_a_refused_backend_is_replaced_by_the_next(bundle):
    session, report = open_session(bundle, "aborts")
    session.close()
    assert report.actual.backend == "onnxruntime"
    assert "aborts: expected a graph" in report.fallback_reason and "SIGABRT" in report.fallback_reason
    assert any("aborts (harmful_backends:Aborts) of harmful 1.0" in one for one in imported_plugins())


def test_the_old_model_goes_on_when_the_new_one_is_refused(bundle):
    events = []
    manager = ModelManager(Detector.from_bundle, lambda *line: events.append(line), lambda model: None)
    first = manager.start(ModelRequest(SSD, "onnxruntime", BackendRequest(threads=1)))
    try:
        manager.swap(ModelRequest(SSD, "segfaults", strict=True))
        while manager.swapping:
            time.sleep(0.01)
        assert manager.model is first and "was killed by SIGSEGV" in manager.swap_error
        assert [event for _, event, _ in events] == ["model_refused"]
    finally:
        manager.stop()


def test_auto_does_not_load_what_ended_the_measuring_process(bundle):
    choice = choose(bundle, ["onnxruntime", "aborts_later"], BackendRequest(threads=1))
    assert choice.names == ("onnxruntime", "aborts_later")
    assert "the measuring process was killed by SIGABRT" in choice.reason
    assert choice.refused == {"aborts_later": "the measuring process was killed by SIGABRT"}
    only_bad = choose(bundle, ["aborts_later", "aborts"], BackendRequest(threads=1))
    assert set(only_bad.refused) == {"aborts_later", "aborts"}


def test_a_backend_that_dies_beside_the_reference_does_not_agree(bundle):
    with pytest.raises(BackendError, match="the measuring process was killed by SIGABRT"):
        check_agreement(bundle, "aborts_later", BackendRequest(threads=1))


def test_open_session_skips_what_auto_has_just_refused(bundle, monkeypatch):
    """Where there is nothing else, nothing loads the graph here: this process would die of it."""
    names = ("aborts_later", "aborts")
    there = {name: f"harmful_backends:{name.title().replace('_', '')}" for name in names}
    monkeypatch.setattr("edge_vision.backends.selection.fallback.known_backends", lambda: there)
    with pytest.raises(BackendError, match=r"aborts_later: the measuring process was killed by SIGABRT"):
        open_session(bundle, "auto", BackendRequest(threads=1), fallback=())


@pytest.fixture
def deadly_onnx(graph, tmp_path):
    """Children have a package `onnx` that dies: it stands for a parser that the file kills."""
    broken = tmp_path / "site" / "onnx"
    broken.mkdir()
    (broken / "__init__.py").write_text("import os\nos.abort()\n")
    return graph


def test_the_importer_reports_a_file_that_kills_its_parser(deadly_onnx, tmp_path, capsys):
    assert main(["import", str(deadly_onnx), "--out", str(tmp_path / "out"), "--yes"]) == 1
    message = capsys.readouterr().err
    assert "error: " in message and "model.onnx: expected a model file" in message and "SIGABRT" in message
    assert not (tmp_path / "out").exists()


def test_the_optimizer_reports_a_file_that_kills_its_parser(bundle, deadly_onnx, tmp_path):
    with pytest.raises(GraphRefused, match=r"model\.onnx: expected a model file .* was killed by SIGABRT"):
        source_bundle(SSD, tmp_path / "source")


def test_the_importer_tries_the_graph_on_the_next_backend(bundle, monkeypatch):
    monkeypatch.setattr(importer_probe, "backends_for", lambda kind: ["segfaults", "onnxruntime"])
    found = importer_probe.probe_graph(bundle.folder / "model.onnx", "onnx", (), bundle.folder)
    assert found.backend.startswith("onnxruntime ") and found.values


def test_the_child_ends_with_its_parent(graph):
    code = (
        f"import sys; sys.path[:0] = {[str(graph.parent / 'site')]!r}\n"
        "from pathlib import Path\n"
        "from edge_vision.backends import BackendRequest, make_backend\n"
        "from edge_vision.backends.trial import parent\n"
        "make_backend('hangs').__class__.load_limit_s = 600.0\n"
        "real = parent.subprocess.Popen\n"
        "def popen(*a, **k):\n"
        "    child = real(*a, **k); print(child.pid, flush=True); return child\n"
        "parent.subprocess.Popen = popen\n"
        f"parent.try_graph(make_backend('hangs'), Path({str(graph)!r}), BackendRequest())\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        pid = int(parent.stdout.readline())
        # The limit that the child sets for itself says that it has begun.
        while Path(f"/proc/{pid}/oom_score_adj").read_text() != "1000\n":
            pass
        parent.kill()
    while os.path.exists(f"/proc/{pid}"):
        pass
