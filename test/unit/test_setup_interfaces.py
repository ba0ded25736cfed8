"""The messages in interfaces/, ours or the installed ones, are on the wire what other ROS nodes expect."""

from __future__ import annotations

import json
import sys
import tarfile
from pathlib import Path

import pytest
from type_hashes import HASHES

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO / "scripts"))

from bootstrap import interfaces  # noqa: E402


def test_each_definition_has_a_hash_and_is_built() -> None:
    folder, defined = REPO / "interfaces", set()
    for file in folder.glob("*/msg/*.msg"):
        package = file.parents[1]
        assert f'"msg/{file.name}"' in (package / "CMakeLists.txt").read_text()
        defined.add(f"{package.name}/msg/{file.stem}")
    assert defined == set(HASHES)
    assert {name.partition("/")[0] for name in defined} == set(interfaces.PACKAGES)
    assert (folder / "COLCON_IGNORE").exists()


@pytest.mark.parametrize("name", HASHES)
def test_installed_type_has_upstreams_hash(name: str) -> None:
    package = name.partition("/")[0]
    messages = pytest.importorskip(
        f"{package}.msg", reason=f"{package} is not installed; make test builds it"
    )
    prefix = Path(messages.__file__).parents[5]
    description = json.loads((prefix / "share" / f"{name}.json").read_text())
    hashes = {entry["type_name"]: entry["hash_string"] for entry in description["type_hashes"]}
    assert hashes[name] == f"RIHS01_{HASHES[name]}"


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
