"""The command `edge-vision`: help, exit codes, shell completion and messages for missing packages."""

from __future__ import annotations

import argparse
import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edge_vision.cli.completion import bash_script
from edge_vision.cli.main import COMMANDS
from edge_vision.core.command_line import complete_help

REPO = Path(__file__).resolve().parents[2]
NEEDS_ROS = ("run",)


def edge_vision(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edge_vision", *arguments],
        cwd=REPO,
        env={**os.environ, "COLUMNS": "120", **environment},
        capture_output=True,
        text=True,
        timeout=100,
    )


def test_help_lists_every_command() -> None:
    done = edge_vision("--help")
    assert done.returncode == 0 and all(f"  {name} " in done.stdout for name in COMMANDS)
    assert "exit codes" in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_has_examples_exit_codes_and_its_subcommands(command: str) -> None:
    if command in NEEDS_ROS:
        pytest.importorskip("rclpy", reason="rclpy is not installed: source ROS 2, or run `make setup`")
    done = edge_vision(command, "--help")
    assert done.returncode == 0, done.stderr
    assert f"usage: edge-vision {command} " in done.stdout and "python -m edge_vision" not in done.stdout
    _, _, end = done.stdout.partition("examples:\n")
    examples = [line for line in end.partition("\n\n")[0].splitlines() if line.startswith("  ")]
    assert len(examples) >= 2
    assert "exit codes:" in end
    subcommands = COMMANDS[command].subcommands
    assert not subcommands or f"{{{','.join(subcommands)}}}" in done.stdout


@pytest.mark.parametrize(
    "words", [(name, sub) for name, command in COMMANDS.items() for sub in command.subcommands], ids="-".join
)
def test_help_of_a_subcommand_has_two_examples_of_it_and_exit_codes(words, capsys, monkeypatch) -> None:
    command = COMMANDS[words[0]]
    monkeypatch.setenv("COLUMNS", "120")
    with pytest.raises(SystemExit, match="0"):
        importlib.import_module(command.module).main([words[1], "--help"])
    _, _, end = capsys.readouterr().out.partition("examples:\n")
    assert sum(f" {' '.join(words)}" in line for line in end.splitlines()) >= 2 and "exit codes:" in end


def test_an_example_of_several_lines_is_whole_in_the_help_of_a_subcommand() -> None:
    parser = argparse.ArgumentParser(
        "tool", epilog="examples:\n  tool cut a \\\n      --b\n  tool other\n\nexit codes: 0"
    )
    commands = parser.add_subparsers()
    cut = commands.add_parser("cut")
    complete_help(parser, commands)
    assert cut.epilog == "examples:\n  tool cut a \\\n      --b\n\nexit codes: 0"


@pytest.mark.parametrize(("arguments", "code"), [((), 2), (("no-such-command",), 2), (("--version",), 0)])
def test_exit_codes(arguments: tuple[str, ...], code: int) -> None:
    assert edge_vision(*arguments).returncode == code


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (["edge-vision", "do"], ["doctor"]),
        (["edge-vision", "models", "i"], ["import"]),
        (["edge-vision", "evaluate", "fit"], ["fit-cascade"]),
        (["edge-vision", "demo", ""], []),
        (["edge-vision", "demo", "--sec"], ["--seconds"]),
        (["edge-vision", "models", "fetch", "--f"], ["--force"]),
    ],
)
def test_bash_completes_commands_and_subcommands(typed: list[str], offered: list[str]) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is not installed")
    words = f"COMP_WORDS=({' '.join(repr(one) for one in typed)}); COMP_CWORD={len(typed) - 1}"
    command = f'edge-vision() {{ {sys.executable} -m edge_vision "$@"; }}'
    script = (
        f'{command}\n{bash_script()}\n{words}\n_edge_vision edge-vision\nprintf "%s\\n" "${{COMPREPLY[@]}}"'
    )
    done = subprocess.run([bash, "-c", script], capture_output=True, text=True, check=True, cwd=REPO)
    assert sorted(set(done.stdout.split())) == offered


@pytest.mark.parametrize(
    ("arguments", "module", "distribution"),
    [
        (("demo",), "cv2", "opencv-python-headless"),
        (("top", "--once"), "rich", "rich"),
        (("models", "list"), "yaml", "PyYAML"),
    ],
)
def test_a_missing_package_is_one_line_with_the_command_that_installs_it(
    tmp_path: Path, arguments: tuple[str, ...], module: str, distribution: str
) -> None:
    blocker = f"raise ModuleNotFoundError(\"No module named '{module}'\", name='{module}')"
    (tmp_path / f"{module}.py").write_text(blocker)
    done = edge_vision(*arguments, PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    message = f"{arguments[0]}: package {module} is not installed: .*pip install {distribution}\n"
    assert re.fullmatch(message, done.stderr)


def test_updates_name_the_package_that_is_missing(tmp_path) -> None:
    code = (
        "import sys; from edge_vision.cli.main import main\n"
        "sys.modules.update(dict.fromkeys(('tuf', 'securesystemslib', 'cryptography')))\n"
        "sys.exit(main())"
    )
    command = [sys.executable, "-c", code, "updates", "show", str(tmp_path)]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 1
    assert re.search(
        "updates: package securesystemslib is not installed: .*pip install tuf cryptography", done.stderr
    )
