"""Which runtime `auto` takes, by what was measured, with real runtimes on a real model."""

from __future__ import annotations

import json
import resource
import shutil

import pytest
from model_cases import SSD, bundle_or_skip

from edge_vision.backends import BackendRequest, auto_select, available_backends, load_on, open_session
from edge_vision.backends.auto_select import BackendTiming, check_agreement, choose, main, measure
from edge_vision.backends.fake import Fault, FaultySession
from edge_vision.bundles import load_bundle
from edge_vision.errors import BackendError

REQUEST = BackendRequest(threads=1)


@pytest.fixture
def bundle(tmp_path, monkeypatch):
    """The detector, and an empty cache."""
    folder = tmp_path / "bundles" / SSD
    shutil.copytree(bundle_or_skip(SSD).folder, folder)
    monkeypatch.setenv("EDGE_VISION_CACHE", str(tmp_path))
    return load_bundle(SSD)


@pytest.fixture
def two():
    """The reference, and another runtime that is installed."""
    other = next(
        (n for n, why in available_backends().items() if why is None and n in ("openvino", "litert")), None
    )
    if other != "openvino":
        pytest.skip("openvino is not installed: nothing to choose between; pip install openvino")
    return ("onnxruntime", "openvino")


def rows(*figures):
    return [BackendTiming(*one) for one in figures]


@pytest.mark.parametrize(
    "measured,order",
    [
        ([("a", 10.0, 100.0), ("b", 7.0, 80.0)], "ba"),
        ([("a", 10.0, 100.0), ("b", 9.8, 80.0)], "ab"),
        ([("a", 10.0, 100.0), ("b", 1.0, 2.0)], "ab"),
        ([("a", 10.0, 100.0), ("b", 9.0, 80.0), ("c", 5.0, 80.0)], "cab"),
        ([("b", 1.0, 80.0), ("a", 0.0, 0.0, "no device")], "ba"),
        ([("a", 0.0, 0.0, "no device"), ("b", 0.0, 0.0, "gone")], "ab"),
    ],
    ids=["faster", "within noise", "disagrees", "three", "one failed", "all failed"],
)
def test_the_fastest_that_agrees_comes_first(measured, order):
    ranked = auto_select._ranked(rows(*measured), "now")
    assert "".join(ranked.names) == order
    assert ranked.reason.startswith(order[0]) and ranked.reason.endswith("; now")


def test_a_single_one_needs_no_measuring(bundle):
    assert choose(bundle, ["onnxruntime"], REQUEST).reason == "onnxruntime is the only one installed"
    assert choose(bundle, [], REQUEST).names == ()
    assert not (bundle.folder.parent.parent / "choice").exists()


def test_runtimes_are_measured_once_and_then_known(bundle, two, monkeypatch):
    first = choose(bundle, two, REQUEST)
    assert sorted(first.names) == sorted(two) and first.reason.endswith("measured now")
    monkeypatch.setattr(auto_select, "_measured_apart", lambda *args: pytest.fail("measured again"))
    second = choose(bundle, two, REQUEST)
    assert second.names == first.names and second.reason.endswith("measured before")
    monkeypatch.undo()


@pytest.mark.parametrize("other", ["another request", "another runtime", "another bundle", "another driver"])
def test_what_was_measured_for_something_else_does_not_count(bundle, two, monkeypatch, other):
    calls = []

    def fake_measuring(*args):
        calls.append(args)
        return rows(("onnxruntime", 2.0, 100.0), ("openvino", 1.0, 90.0))

    monkeypatch.setattr(auto_select, "_measured_apart", fake_measuring)
    choose(bundle, two, REQUEST)
    choose(bundle, two, REQUEST)
    assert len(calls) == 1
    if other == "another runtime":
        monkeypatch.setattr(auto_select, "runtime_versions", lambda names: {"onnxruntime": "99"})
    if other == "another driver":
        monkeypatch.setattr(auto_select, "_driver", lambda: "NVRM version: 999")
    if other == "another bundle":
        manifest = bundle.folder / "bundle.yaml"
        manifest.write_text(manifest.read_text() + "\n")
        bundle = load_bundle(SSD)
    choose(bundle, two, BackendRequest(threads=2) if other == "another request" else REQUEST)
    assert len(calls) == 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "[1]",
        '[{"backend": "x"}]',
        '[{"backend": 1, "y": 2}]',
        "\x00\xff",
        '[{"backend": "onnxruntime", "p50_ms": "fast"}, {"backend": "openvino"}]',
        '[{"backend": "onnxruntime", "p50_ms": 2.0}, {"backend": "openvino", "p50_ms": -1.0}]',
        '[{"backend": "onnxruntime", "p50_ms": 2.0}, {"backend": "openvino", "p50_ms": 0.0}]',
        '[{"backend": "onnxruntime", "p50_ms": 2.0}, {"backend": "openvino", "p50_ms": NaN}]',
        "[" * 100_000,
    ],
    ids=range(12),
)
def test_a_damaged_memory_is_measured_anew(bundle, two, monkeypatch, text):
    good = rows(("onnxruntime", 2.0, 100.0), ("openvino", 1.0, 90.0))
    monkeypatch.setattr(auto_select, "_measured_apart", lambda *args: good)
    choose(bundle, two, REQUEST)
    (file,) = (bundle.folder.parent.parent / "choice").iterdir()
    file.write_text(text, "latin-1")
    assert choose(bundle, two, REQUEST).reason.endswith("measured now")
    assert len(json.loads(file.read_text())) == 2, "and kept"


def test_no_room_for_the_memory_is_said_and_no_harm(bundle, two, monkeypatch):
    good = rows(("onnxruntime", 2.0, 100.0), ("openvino", 1.0, 90.0))
    monkeypatch.setattr(auto_select, "_measured_apart", lambda *args: good)
    (bundle.folder.parent.parent / "choice").write_text("a file where the folder should be")
    found = choose(bundle, two, REQUEST)
    assert found.names == ("openvino", "onnxruntime") and "will be again" in found.reason


def test_a_full_disk_leaves_no_file(bundle, two, monkeypatch):
    good = rows(("onnxruntime", 2.0, 100.0), ("openvino", 1.0, 90.0))
    monkeypatch.setattr(auto_select, "_measured_apart", lambda *args: good)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        found = choose(bundle, two, REQUEST)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert found.names == ("openvino", "onnxruntime") and "will be again" in found.reason
    assert list((bundle.folder.parent.parent / "choice").iterdir()) == []


def test_an_output_that_cannot_be_compared_is_kept(bundle, two, monkeypatch):
    calls = []
    bad = rows(("onnxruntime", 2.0, 100.0), ("openvino", 1.0, float("-inf")))
    monkeypatch.setattr(auto_select, "_measured_apart", lambda *args: calls.append(args) or bad)
    assert choose(bundle, two, REQUEST).names == choose(bundle, two, REQUEST).names == two
    assert len(calls) == 1


def test_a_measuring_process_that_fails_leaves_the_order(bundle, two, monkeypatch):
    monkeypatch.setattr(auto_select.sys, "executable", "/bin/false")
    found = choose(bundle, two, REQUEST)
    assert found.names == two and "not measured: the measuring process exited with status 1" in found.reason
    assert not (bundle.folder.parent.parent / "choice").exists(), "not kept"


def test_runtimes_are_measured_in_turns_against_the_first(bundle, two):
    found = measure(two, lambda name: load_on(bundle, name, REQUEST), bundle)
    assert [row.backend for row in found] == list(two)
    assert all(row.p50_ms > 0 and not row.failure for row in found)
    assert found[0].sqnr_db == 100.0 and found[1].sqnr_db > 60.0, "the same graph in fp32"


def test_a_runtime_that_fails_or_disagrees_is_told(bundle):
    def load(name):
        session = load_on(bundle, "onnxruntime", REQUEST)
        if name == "broken":
            return FaultySession(session, Fault(error="no such device"))
        return FaultySession(session, Fault(nan=True)) if name == "wrong" else session

    found = {row.backend: row for row in measure(["good", "broken", "wrong"], load, bundle)}
    assert found["broken"].failure == "no such device"
    assert found["wrong"].sqnr_db == float("-inf") and not found["wrong"].failure
    assert auto_select._ranked(list(found.values()), "").names[0] == "good"


def test_agreement_is_checked_against_the_reference(bundle, two, monkeypatch):
    check_agreement(bundle, "openvino", REQUEST)
    check_agreement(bundle, "onnxruntime", REQUEST)
    bad = rows(("onnxruntime", 2.0, 100.0), ("openvino", 1.0, 1.6))
    monkeypatch.setattr(auto_select, "_measured_apart", lambda *args: bad)
    with pytest.raises(BackendError, match=r"openvino computes something else .* 1\.6 dB, expected 15"):
        check_agreement(bundle, "openvino", BackendRequest(threads=2))


def test_auto_says_why(bundle, two):
    session, report = open_session(bundle, "auto", REQUEST)
    session.close()
    assert report.fallback_reason is None
    assert report.choice.startswith(report.actual.backend) and report.choice.endswith("measured now")


def test_what_failed_while_it_ran_comes_last(bundle, two):
    for name, other in (two, two[::-1]):
        session, report = open_session(bundle, name, REQUEST, failed={name: "it died"})
        session.close()
        assert report.actual.backend == other and report.fallback_reason == f"{name}: it died"
    session, report = open_session(bundle, "openvino", REQUEST, strict=True, failed={"openvino": "it died"})
    session.close()
    assert report.actual.backend == "openvino" and report.fallback_reason is None


def test_the_command_shows_what_it_measured(bundle, capsys):
    assert main([str(bundle.folder), "--threads", "1", "--names", "onnxruntime"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("onnxruntime ") and "auto takes onnxruntime" in out
    assert main(["no_such_bundle"]) == 1
    assert "no_such_bundle" in capsys.readouterr().err
