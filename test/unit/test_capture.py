"""Video sources: what a URI means, real files, and errors that say what to do."""

from __future__ import annotations

import http.server
import shutil
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from model_cases import clip_or_skip

from edge_vision.evaluate.reference import clips as evaluate_clips
from edge_vision.importer.run import read_image
from edge_vision.optimize.data.clips import video_images
from edge_vision.source.capture import Capture
from edge_vision.source.frame_times import DEFAULT_FPS_HZ
from edge_vision.source.uri import SourceError, SourceKind, source_kind


@pytest.mark.parametrize(
    "uri,kind",
    [
        ("0", SourceKind("device", 0)),
        ("12", SourceKind("device", 12)),
        ("/dev/video0", SourceKind("device", "/dev/video0")),
        ("clip.avi", SourceKind("file", str(Path.cwd() / "clip.avi"))),
        ("14:05:09.mp4", SourceKind("file", str(Path.cwd() / "14:05:09.mp4"))),
        ("/a/front%20door.mp4", SourceKind("file", "/a/front%20door.mp4")),
        ("²", SourceKind("file", str(Path.cwd() / "²"))),
        ("/a/clip.avi", SourceKind("file", "/a/clip.avi")),
        ("file:///a/clip.avi", SourceKind("file", "/a/clip.avi")),
        ("FILE://LocalHost/a/front%20door%2526.mp4", SourceKind("file", "/a/front door%26.mp4")),
        ("rtsp://cam/1", SourceKind("stream", "rtsp://cam/1")),
        ("http://cam/mjpeg", SourceKind("stream", "http://cam/mjpeg")),
    ],
)
def test_kinds_of_source(uri, kind):
    assert source_kind(uri) == kind


@pytest.fixture
def clip(tmp_path):
    """Five frames of growing grey, 20 fps."""
    path = tmp_path / "a clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 20.0, (64, 48))
    for value in range(5):
        writer.write(np.full((48, 64, 3), 40 * value, np.uint8))
    writer.release()
    return path


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_file_is_read_to_its_end(clip, scheme):
    capture = Capture(f"{scheme}{clip}".replace(" ", "%20" if scheme else " "))
    assert (capture.fps_hz, capture.frames, capture.kind.is_file) == (20.0, 5, True)
    images = []
    while (image := capture.read()) is not None:
        images.append(image)
    assert [round(float(image.mean()) / 40) for image in images] == [0, 1, 2, 3, 4]
    assert images[0].shape == (48, 64, 3) and images[0].dtype == np.uint8
    assert not np.shares_memory(images[0], images[1])
    assert capture.read() is None
    capture.close()
    assert capture.read() is None


@pytest.mark.parametrize("name", ["14:05:09.avi", "front%20door.avi", "a:b@c?d=e#f.avi"])
def test_a_relative_file_name_that_resembles_an_address_is_played(clip, monkeypatch, name):
    shutil.copy(clip, clip.with_name(name))
    monkeypatch.chdir(clip.parent)
    assert Capture(name).read() is not None
    assert Capture((clip.parent / name).as_uri()).read() is not None
    assert next(evaluate_clips.read_clip(Path(name))) is not None
    assert len(video_images(Path(name), 3)) == 3
    assert read_image(Path(name)) is not None


def test_a_file_of_another_host_is_refused():
    with pytest.raises(SourceError, match=r"file:///path.*'file://\*\*\*@nas/a.mp4'.*plain path") as caught:
        Capture("file://me:secret@nas/a.mp4")
    assert "secret" not in str(caught.value)


class _Playlist(http.server.BaseHTTPRequestHandler):
    """An HLS playlist whose only segment is missing: FFmpeg names the segment's whole address."""

    def do_GET(self):
        found = self.path.startswith("/a.m3u8")
        text = b"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nsegment.ts\n#EXT-X-ENDLIST\n" if found else b""
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", "application/vnd.apple.mpegurl")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *arguments):
        pass


def test_neither_the_error_nor_ffmpeg_shows_a_password():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Playlist)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    uri = f"http://user:pass%2Fword@127.0.0.1:{server.server_port}/a.m3u8?token=tell"
    code = "import sys\nfrom edge_vision.source.capture import Capture\nCapture(sys.argv[1])"
    try:
        # In a process of its own: FFmpeg writes past Python, and its log level is one of the process.
        done = subprocess.run([sys.executable, "-c", code, uri], capture_output=True, text=True, timeout=60)
    finally:
        server.shutdown()
    assert done.returncode == 1 and "stream 'http://***@127.0.0.1:" in done.stderr
    assert "pass%2Fword" not in done.stderr and "tell" not in done.stderr


def test_the_home_folder(clip, monkeypatch):
    monkeypatch.setenv("HOME", str(clip.parent))
    assert Capture("~/a clip.avi").frames == 5


def bad_sources(tmp_path):
    (tmp_path / "text.avi").write_text("no video")
    (tmp_path / "empty.mp4").write_bytes(b"")
    return {
        "missing": (tmp_path / "no such.avi", "check the path"),
        "folder": (tmp_path, "give a video file"),
        "text": (tmp_path / "text.avi", "re-encode"),
        "empty": (tmp_path / "empty.mp4", "re-encode"),
        "device": ("/dev/video987", "does not exist"),
        "device number": ("987", "group video"),
        "stream": ("http://127.0.0.1:9/none", "check the address"),
    }


@pytest.mark.parametrize("case", ["missing", "folder", "text", "empty", "device", "device number", "stream"])
def test_errors_name_the_source_and_the_remedy(tmp_path, case):
    uri, remedy = bad_sources(tmp_path)[case]
    with pytest.raises(SourceError) as caught:
        Capture(str(uri), open_timeout_ms=500)
    assert str(uri) in str(caught.value) and remedy in str(caught.value)


def test_a_picture_or_a_broken_rate_gives_a_sane_rate(tmp_path):
    path = tmp_path / "one.png"
    cv2.imwrite(str(path), np.zeros((32, 32, 3), np.uint8))
    capture = Capture(str(path))
    assert 0.1 <= capture.fps_hz <= 1000 or capture.fps_hz == DEFAULT_FPS_HZ
    assert capture.read() is not None


def test_a_video_that_claims_large_images_is_refused_before_the_first_is_decoded(clip):
    data = clip.read_bytes().replace(struct.pack(">HH", 48, 64), struct.pack(">HH", 16000, 16000))
    for side_px in (64, 48):
        data = data.replace(struct.pack("<I", side_px), struct.pack("<I", 16000))
    clip.write_bytes(data)
    with pytest.raises(SourceError, match=r"at most 50 megapixels, got 16000x16000: encode it again"):
        Capture(str(clip))


@pytest.mark.parametrize("suffix", [".png", ".avi"])
def test_a_still_image_is_checked_before_it_is_opened(tmp_path, suffix):
    """By its contents. FFmpeg would decode it to learn its size."""
    png = bytearray(cv2.imencode(".png", np.zeros((32, 32, 3), np.uint8))[1].tobytes())
    png[16:24] = struct.pack(">II", 10_000, 10_000)
    png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
    path = tmp_path / f"still{suffix}"
    path.write_bytes(png)
    with pytest.raises(SourceError, match=r"at most 50 megapixels, got 10000x10000: encode it again"):
        Capture(str(path))
    path.write_bytes(cv2.imencode(".jp2", np.zeros((32, 32, 3), np.uint8))[1])
    with pytest.raises(SourceError, match="JPEG 2000 is not supported"):
        Capture(str(path))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".tiff", ".ppm"])
def test_a_still_image_is_played(tmp_path, suffix):
    path = tmp_path / f"still{suffix}"
    cv2.imwrite(str(path), np.full((32, 48, 3), 90, np.uint8))
    assert Capture(str(path)).read().shape == (32, 48, 3)


def test_the_images_of_a_truncated_file_are_read(clip):
    data = clip.read_bytes()
    cut = clip.with_name("cut.avi")
    # After the second picture's chunk: the index at the end, and three pictures, are gone.
    third = [at for at in range(len(data)) if data.startswith(b"00dc", at)][2]
    cut.write_bytes(data[:third])
    capture = Capture(str(cut))
    count = 0
    while capture.read() is not None:
        count += 1
    assert count in (1, 2)
    assert f"ended after {count} of 5 images: the file is truncated" in capture.damage


@pytest.mark.parametrize("suffix", [".ts", ".m2ts"])
def test_a_transport_stream_with_a_cut_packet_is_truncated(tmp_path, suffix):
    whole, cut = tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}"
    writer = cv2.VideoWriter(str(whole), cv2.VideoWriter_fourcc(*"mp4v"), 20.0, (320, 240))
    for seed in range(20):
        writer.write(np.random.default_rng(seed).integers(0, 255, (240, 320, 3), np.uint8))
    writer.release()
    data = whole.read_bytes()
    cut.write_bytes(data[: len(data) // 2 // 188 // 192 * 188 * 192 + 100])
    assert played(whole).damage == ""
    assert "images: the file is truncated" in played(cut).damage


def played(path: Path) -> Capture:
    """A capture that has reached its end."""
    capture = Capture(str(path))
    while capture.read() is not None:
        pass
    return capture


def test_a_whole_file_is_not_called_cut_short(clip):
    capture = played(clip)
    assert capture.frames == 5 and capture.damage == ""


def test_the_demo_clip():
    path = clip_or_skip("vtest.avi")
    capture = Capture(path)
    assert (capture.fps_hz, capture.frames) == (10.0, 795)
    assert capture.read().shape == (576, 768, 3)
