"""Addresses of devices, and the agent's cache and frames."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from device_cases import sha256

from edge_vision.optimize.errors import OptimizeError
from edge_vision.optimize.remote import agent
from edge_vision.optimize.remote.address import LOCAL, DeviceAddress, check_devices
from edge_vision.optimize.remote.agent import AgentError, Cache, Frames, frame

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize(
    ("text", "user", "host", "port", "python"),
    [
        ("ssh://robot", "", "robot", "", "python3"),
        (
            "ssh://pi@10.0.0.7:2222/opt/my venv/bin/python",
            "pi",
            "10.0.0.7",
            "2222",
            "/opt/my venv/bin/python",
        ),
        ("ssh://a.b-c@[fe80::1%eth0]:22", "a.b-c", "fe80::1%eth0", "22", "python3"),
    ],
)
def test_an_address_has_a_host_and_optional_parts(
    text: str, user: str, host: str, port: str, python: str
) -> None:
    found = DeviceAddress.parse(text)
    assert (found.user, found.host, found.port, found.python) == (user, host, port, python)


@pytest.mark.parametrize(
    "text",
    [
        "robot",
        "ssh://",
        "ssh://-oProxyCommand=id",
        "ssh://-l@robot",
        "ssh://r;id",
        "ssh://r obot",
        "ssh://$(id)",
        "ssh://robot:0",
        "ssh://robot:65536",
        "ssh://robot:x",
        "ssh://robot/a\nb",
        "ssh://robot/",
        "ssh://a@b@c",
    ],
)
def test_an_address_that_ssh_or_a_shell_would_misread_is_refused(text: str) -> None:
    with pytest.raises(OptimizeError, match="expected local or ssh://"):
        DeviceAddress.parse(text)


def test_the_remote_shell_receives_the_words_unchanged() -> None:
    words = ["/opt/it's $(id) `id`/python", "-c", "print('a;b') # \\"]
    *_, separator, host, command = DeviceAddress.parse("ssh://pi@robot:22").ssh_command("ssh", *words)
    assert (separator, host) == ("--", "robot")
    done = subprocess.run(
        ["sh", "-c", f"printf '%s\\n' {command}"], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == words == shlex.split(command)


def test_a_device_is_given_once() -> None:
    check_devices((LOCAL, "ssh://robot", "ssh://robot:23"))
    for twice in ((LOCAL, LOCAL), ("ssh://robot/a/b", "ssh://robot/a-b")):
        with pytest.raises(OptimizeError, match="expected each once"):
            check_devices(twice)


@pytest.fixture
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGE_VISION_CACHE", str(tmp_path))
    return tmp_path / "device"


def put(cache: Cache, data: bytes) -> str:
    cache.missing({sha256(data): len(data)})
    assert cache.write(sha256(data), 0, data, len(data)) == len(data)
    return sha256(data)


def test_the_cache_deletes_what_was_used_least_recently(cache_folder: Path) -> None:
    cache = Cache(1000)
    names = [put(cache, bytes([number]) * 400) for number in range(2)]
    for number, name in enumerate(names):
        os.utime(cache_folder / "blobs" / name, (1000 + number, 1000 + number))
    assert cache.missing({names[0]: 400}) == {}
    put(cache, b"x" * 400)
    assert cache.has(names[0]) and not cache.has(names[1])
    with pytest.raises(AgentError, match="expected at most 0 MB"):
        cache.missing({"a" * 64: 1001})


def test_the_cache_is_one_folder_that_is_ours(cache_folder: Path, tmp_path: Path) -> None:
    cache_folder.mkdir()
    (cache_folder / "photo.jpg").write_text("mine")
    with pytest.raises(AgentError, match="got other files"):
        Cache(1000)
    shutil.rmtree(cache_folder)
    (tmp_path / "elsewhere").mkdir()
    cache_folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AgentError, match="got a link"):
        Cache(1000)


def test_two_agents_never_share_the_cache(cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent, "_LOCK_S", 0.1)
    first = Cache(1000)
    with pytest.raises(AgentError, match="is using this device"):
        Cache(1000)
    os.close(first._lock_fd)
    Cache(1000)


def test_frames_end_with_the_connection_or_after_silence() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"hello\n" + frame({"id": 1}, b"\n\n") + frame({})[:5])
    frames = Frames(reading, 0.1)
    assert frames.line() == b"hello\n" and frames.next() == ({"id": 1, "size": 2}, b"\n\n")
    with pytest.raises(TimeoutError, match="no sign of life"):
        frames.next()
    os.close(writing)
    with pytest.raises(EOFError):
        frames.next()
    os.close(reading)
