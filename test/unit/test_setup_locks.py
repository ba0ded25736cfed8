"""The lock files: every pin has a hash, no URL of a registry, and the locks agree with each other."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO / "scripts"))

from bootstrap.locks import as_text, choose, normalised, read_lock  # noqa: E402
from bootstrap.machine import Machine  # noqa: E402
from bootstrap.paths import SetupError  # noqa: E402
from bootstrap.plan import tasks_for  # noqa: E402

LOCKS = sorted(file.stem for file in (REPO / "requirements").glob("*.in"))
HASH = "--hash=sha256:" + "0" * 64


@pytest.mark.parametrize("name", LOCKS)
def test_lock_has_only_pins_with_hashes_and_no_url(name: str) -> None:
    path = REPO / "requirements" / f"{name}.lock"
    assert len(read_lock(path)) > 0
    text = path.read_text()
    assert "://" not in text
    assert "index-url" not in text


@pytest.mark.parametrize("name", LOCKS)
def test_lock_contains_the_packages_of_its_input(name: str) -> None:
    lines = (REPO / "requirements" / f"{name}.in").read_text().splitlines()
    wanted = {
        normalised(line.split("#")[0].split("<")[0].split(">")[0].split("=")[0].strip())
        for line in lines
        if line[:1].isalpha()
    }
    assert wanted <= {pin.name for pin in read_lock(REPO / "requirements" / f"{name}.lock")}


def test_locks_agree_with_each_other() -> None:
    versions: dict[tuple[str, str], set[str]] = {}
    for name in LOCKS:
        for pin in read_lock(REPO / "requirements" / f"{name}.lock"):
            marker = pin.text.splitlines()[0].partition(";")[2]
            versions.setdefault((pin.name, marker), set()).add(pin.version)
    assert [key for key, found in versions.items() if len(found) > 1] == []


def test_pytorch_is_in_the_lock_of_the_benchmark_alone() -> None:
    others = [name for name in LOCKS if name != "bench"]
    names = {pin.name for name in others for pin in read_lock(REPO / "requirements" / f"{name}.lock")}
    assert names.isdisjoint({"torch", "torchvision"})


@pytest.mark.parametrize(
    ("stage", "backend", "expected"),
    [
        ("demo", "auto", set()),
        ("demo", "litert", {"litert"}),
        ("demo", "tensorrt", set()),
        ("demo", "tensorrt_rtx", {"tensorrt"}),
        ("test", "auto", {"openvino", "litert", "tensorrt", "test"}),
        ("bench", "auto", {"openvino", "litert", "bench"}),
        ("docs", "auto", {"docs"}),
    ],
)
def test_each_stage_installs_the_packages_that_it_needs(stage: str, backend: str, expected: set[str]) -> None:
    names = {task.name for task in tasks_for(stage, backend, Machine(ros=""))}
    locks = {"openvino", "litert", "tensorrt", "test", "bench", "docs"}
    assert names & locks == expected
    assert ("more-bundles" in names) == (stage in ("test", "bench") or backend == "litert")
    assert ("video" in names) == ("more-bundles" in names), "the demo needs one video and one bundle"


def test_read_choose_and_write(tmp_path: Path) -> None:
    lock = tmp_path / "a.lock"
    lock.write_text(
        f"# made by\n\nNum_Py==2.0 ; python_version < '3.11' \\\n    {HASH} \\\n    {HASH}\n"
        f"onnx==1.0 \\\n    {HASH}\n"
    )
    pins = read_lock(lock)
    assert [(pin.name, pin.version) for pin in pins] == [("num-py", "2.0"), ("onnx", "1.0")]
    assert as_text(choose(pins, lambda pin: pin.name == "onnx")) == f"onnx==1.0 \\\n    {HASH}\n"


@pytest.mark.parametrize(
    "text", ["onnx==1.0\n", f"onnx>=1.0 {HASH}\n", "onnx==1.0 --hash=sha256:12\n", "--index-url x\n"]
)
def test_lock_without_version_or_hash_is_refused(tmp_path: Path, text: str) -> None:
    lock = tmp_path / "a.lock"
    lock.write_text(text)
    with pytest.raises(SetupError, match="make lock"):
        read_lock(lock)
