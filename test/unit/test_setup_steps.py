"""The set-up: stamps, the environment of its children, progress, tools, and the videos."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO / "scripts"))

import fetch_data  # noqa: E402

from bootstrap import apt, machine, paths, progress  # noqa: E402
from bootstrap.paths import SetupError  # noqa: E402
from bootstrap.stamps import Stamps, key_of  # noqa: E402
from edge_vision.bundles import store  # noqa: E402


def test_a_step_is_done_only_with_the_same_key_and_the_same_files(tmp_path: Path) -> None:
    stamps, file = Stamps(tmp_path / "stamps"), tmp_path / "video.avi"
    file.write_bytes(b"frames")
    assert not stamps.is_done("video", "a")
    stamps.write("video", "a", [file])
    assert stamps.is_done("video", "a")
    assert not stamps.is_done("video", "b")
    file.write_bytes(b"other frames")
    assert not stamps.is_done("video", "a")
    file.unlink()
    assert not stamps.is_done("video", "a")
    stamps.drop("video")
    stamps.drop("video")
    assert stamps.key("video") == ""


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"key"', '{"files": {}}'])
def test_a_damaged_stamp_is_no_stamp(tmp_path: Path, text: str) -> None:
    (tmp_path / "step").write_text(text)
    assert not Stamps(tmp_path).is_done("step", "a")


def test_key_changes_with_names_and_contents_but_not_with_byte_code(tmp_path: Path) -> None:
    (tmp_path / "msg").mkdir()
    (tmp_path / "msg" / "A.msg").write_text("float64 x")
    before = key_of("text", tmp_path)
    (tmp_path / "msg" / "a.pyc").write_text("")
    assert key_of("text", tmp_path) == before
    (tmp_path / "msg" / "A.msg").write_text("float64 y")
    changed = key_of("text", tmp_path)
    (tmp_path / "msg" / "A.msg").rename(tmp_path / "msg" / "B.msg")
    assert len({before, changed, key_of("text", tmp_path), key_of("other", tmp_path)}) == 4


@pytest.mark.parametrize(
    "env",
    [
        {"EDGE_VISION_CACHE": "/data/cache"},
        {"EDGE_VISION_CACHE": "~/cache"},
        {"XDG_CACHE_HOME": "/data"},
        {"XDG_CACHE_HOME": "relative"},
        {},
    ],
)
def test_the_set_up_and_the_package_use_one_cache(
    monkeypatch: pytest.MonkeyPatch, env: dict[str, str]
) -> None:
    for name in ("EDGE_VISION_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert paths.cache_dir() == store.cache_dir()


def test_children_do_not_inherit_the_marker_of_the_ros_wheels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_ROS_WHEELS_BOOTSTRAP_COMPLETE", "1")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/other/.venv/lib:/opt/ros/jazzy/lib")
    env = paths.clean_env()
    assert "_ROS_WHEELS_BOOTSTRAP_COMPLETE" not in env
    assert env["LD_LIBRARY_PATH"] == "/opt/ros/jazzy/lib"


def test_run_shows_progress_and_keeps_a_log(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with progress.Step("[1/1] step") as step:
        argv = [sys.executable, "-c", "print('[3/7] compiling')"]
        progress.run(argv, env=os.environ, read=str.strip, step=step, log=tmp_path / "log")
    assert (tmp_path / "log").read_text() == "[3/7] compiling\n"
    assert "[1/1] step: [3/7] compiling, " in capfd.readouterr().out


def test_run_reports_the_last_lines_of_a_failed_program(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", "import sys; print('no space left'); sys.exit(3)"]
    with pytest.raises(SetupError, match=r"status 3(.|\n)*no space left"), progress.Step("step") as step:
        progress.run(argv, env=os.environ, read=str.strip, step=step, log=tmp_path / "log")


def _set_up(**env: str) -> subprocess.CompletedProcess[str]:
    """Run the set-up in an environment in which it must stop before it changes anything."""
    clean = {
        k: v
        for k, v in paths.clean_env().items()
        if k not in ("AMENT_PREFIX_PATH", "ROS_DISTRO", "PYTHONPATH")
    }
    argv = [sys.executable, "scripts/setup.py", "demo"]
    return subprocess.run(argv, cwd=REPO, env={**clean, **env}, capture_output=True, text=True)


def test_sourced_ros_of_another_python_is_reported(tmp_path: Path) -> None:
    if machine.has_rclpy() and "PYTHONPATH" not in os.environ and sys.prefix == sys.base_prefix:
        pytest.skip("this Python has rclpy of its own")
    done = _set_up(AMENT_PREFIX_PATH=str(tmp_path), ROS_DISTRO="jazzy")
    assert done.returncode == 1
    assert "cannot import its rclpy" in done.stderr
    assert "PYTHON=" in done.stderr


def test_missing_vision_msgs_gives_the_apt_line(tmp_path: Path) -> None:
    package = tmp_path / "rclpy"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / f"_rclpy_pybind11{machine.importlib.machinery.EXTENSION_SUFFIXES[0]}").touch()
    done = _set_up(AMENT_PREFIX_PATH=str(tmp_path), ROS_DISTRO="jazzy", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert "sudo apt install ros-jazzy-vision-msgs" in done.stderr


def test_another_processor_needs_sourced_ros(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.platform, "machine", lambda: "aarch64")
    monkeypatch.delenv("AMENT_PREFIX_PATH", raising=False)
    with pytest.raises(SetupError, match=r"source /opt/ros/jazzy/setup\.bash"):
        machine.detect()


def test_missing_tools_give_one_apt_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SetupError, match=r"sudo apt install (\S+ )*cmake gcc g\+\+"):
        machine.require_tools(compiler=True)


def test_a_video_with_another_hash_is_not_stored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGE_VISION_CACHE", str(tmp_path))
    video = fetch_data.VIDEOS["bikes"]
    with pytest.raises(SetupError, match="expected sha256"):
        fetch_data.store(video, io.BytesIO(b"not this one"))
    assert list(video.path.parent.iterdir()) == []
    video.path.write_bytes(b"half")
    assert not video.is_there()


def test_print_of_a_missing_video_names_the_command_that_downloads_it(tmp_path: Path) -> None:
    argv = [sys.executable, "scripts/fetch_data.py", "--print", "vtest"]
    env = {**paths.clean_env(), "EDGE_VISION_CACHE": str(tmp_path)}
    done = subprocess.run(argv, cwd=REPO, env=env, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "scripts/fetch_data.py vtest" in done.stderr


def test_make_lists_its_targets() -> None:
    done = subprocess.run(["make"], cwd=REPO, capture_output=True, text=True, env=paths.clean_env())
    assert done.returncode == 0
    for target in (
        "demo",
        "test",
        "check",
        "format",
        "lint",
        "types",
        "examples",
        "docs",
        "reference",
        "bench-pipeline",
        "lock",
    ):
        assert f"make {target} " in done.stdout


def test_apt_leaves_a_folder_of_its_name_in_the_cache_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache may be /var/cache. apt gets no sources here, and so no network."""
    if not shutil.which("apt-get"):
        pytest.skip("no apt-get on this system")
    (tmp_path / "cache" / "apt").mkdir(parents=True)
    (tmp_path / "cache" / "apt" / "file").write_text("of the system")
    (tmp_path / "apt.conf").write_text('Dir::Etc { SourceList "/dev/null"; SourceParts "/dev/null"; };')
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    monkeypatch.setenv("EDGE_VISION_CACHE", str(tmp_path / "cache"))
    with pytest.raises(SetupError):
        apt.download("no-package-has-this-name", tmp_path, print)
    assert [path.name for path in (tmp_path / "cache").rglob("*")] == ["apt", "file"]
