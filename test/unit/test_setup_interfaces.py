"""vision_msgs, ours or the installed one, is on the wire what other ROS nodes expect."""

from __future__ import annotations

import json
import sys
import tarfile
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO / "scripts"))

from bootstrap import interfaces  # noqa: E402

# RIHS01 type hashes of upstream's vision_msgs 4.x.
HASHES = {
    "Detection2DArray": "214274120007f4a683866481336b70310268cfa107aebe9d594a6acf75bda968",
    "Detection2D": "0d12b69df5c593b3455b7346fac8205437a7d4bcb09b9e0e0b2dde787ded38ea",
    "ObjectHypothesisWithPose": "41c12344c0396c48b81df12467c192d99b2a0eb1463c5c37194e4223251c80bc",
    "ObjectHypothesis": "51da43cec11c01957a64d1e05a24acd18aae7745ec30b74348ad5f6d634f7f90",
    "BoundingBox2D": "008eacbb0cf8f26e83795547bed013eec3675485ef386ec056d80eaaf1c1ce2f",
    "Classification": "f74db28d0eaef3afb78f48bf2161cd709a1383a0309d3454383b25be11345143",
    "Pose2D": "b0b5d1d7b4c20dd4fcde3ed1d4b289a919290572007d67a97043814db25d3648",
    "Point2D": "eab0e83f44ab4de92ceaf76dd7d0e7638f2bdd1d16ffbe16c7a136c48e407247",
    "BoundingBox2DArray": "2464e82838009386d371b523211c21c91d74d313fcdd6788223c531d621cf691",
    "LabelInfo": "3d37df4015cdf660cc851c51897f2acd957e1ca6205ba0a99aebffb9406b0783",
    "VisionClass": "1e4a11f0fed50b5623cb8ff26ca0e37952a48a9c074d16f804b44e9164c2037a",
    "VisionInfo": "95d3116a17484ad91c9a2686e1d54890bbfc3ff6c6a2de137738c4950d45d284",
}


def test_each_definition_has_a_hash_and_is_built() -> None:
    folder = REPO / "interfaces" / "vision_msgs"
    defined = {file.stem for file in (folder / "msg").glob("*.msg")}
    assert defined == set(HASHES)
    build = (folder / "CMakeLists.txt").read_text()
    assert all(f'"msg/{name}.msg"' in build for name in defined)
    assert (REPO / "interfaces" / "COLCON_IGNORE").exists()


@pytest.mark.parametrize("name", HASHES)
def test_installed_type_has_upstreams_hash(name: str) -> None:
    messages = pytest.importorskip(
        "vision_msgs.msg", reason="vision_msgs is not installed; make test builds it"
    )
    prefix = Path(messages.__file__).parents[5]
    description = json.loads((prefix / "share" / "vision_msgs" / "msg" / f"{name}.json").read_text())
    hashes = {entry["type_name"]: entry["hash_string"] for entry in description["type_hashes"]}
    assert hashes[f"vision_msgs/msg/{name}"] == f"RIHS01_{HASHES[name]}"


def test_cmake_files_of_the_wheels_name_this_python(tmp_path: Path) -> None:
    (tmp_path / "lib/python3.12/site-packages/numpy/_core/include").mkdir(parents=True)
    file = tmp_path / "share" / "std_msgs" / "cmake" / "export.cmake"
    file.parent.mkdir(parents=True)
    root = "/opt/python/cp311-cp311"
    file.write_text(
        f'DIRS "${{P}}/include;{root}/include/python3.11;{root}/lib/py/site-packages/numpy/_core/include"'
    )
    interfaces.replace_python_paths(tmp_path)
    text = file.read_text()
    assert "/opt/python/" not in text
    assert f"{tmp_path}/lib/python3.12/site-packages/numpy/_core/include" in text
    assert text.startswith('DIRS "${P}/include;')


def test_archive_round_trip(tmp_path: Path) -> None:
    for folder in interfaces.FOLDERS:
        (tmp_path / "stage" / folder / "vision_msgs").mkdir(parents=True)
        (tmp_path / "stage" / folder / "vision_msgs" / "file").write_text(folder)
    archive = tmp_path / "a.tar.gz"
    interfaces._pack(tmp_path / "stage", archive)
    assert interfaces.unpack(archive, tmp_path / "venv")
    assert (tmp_path / "venv" / "lib" / "vision_msgs" / "file").read_text() == "lib"


def test_damaged_archive_is_thrown_away(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(b"\x1f\x8b half of an archive")
    assert not interfaces.unpack(archive, tmp_path / "venv")
    assert not archive.exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_archive_with_a_link_is_refused_before_a_file_is_written(tmp_path: Path, kind: bytes) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "file").write_text("x")
    archive = tmp_path / "a.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(tmp_path / "file", arcname="lib/first")
        link = tarfile.TarInfo("lib/link")
        link.type, link.linkname = kind, "lib/first" if kind == tarfile.LNKTYPE else str(tmp_path / "outside")
        file.addfile(link)
        file.add(tmp_path / "file", arcname="lib/link/file")
    assert not interfaces.unpack(archive, tmp_path / "venv")
    assert not archive.exists() and not (tmp_path / "venv").exists()
    assert list((tmp_path / "outside").iterdir()) == []


def test_archive_with_a_path_that_leaves_the_environment_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    archive = tmp_path / "a.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(tmp_path / "file", arcname="lib/../../outside")
    assert not interfaces.unpack(archive, tmp_path / "venv")
    assert not (tmp_path / "outside").exists()
