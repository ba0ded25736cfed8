"""`edge-vision completion bash`: the completion script, generated from the table of commands."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from edge_vision.cli.main import COMMANDS

_EXAMPLES = """\
examples:
  source <(edge-vision completion bash)        in this shell
  autoload -U bashcompinit && bashcompinit && source <(edge-vision completion bash)      in zsh
  edge-vision completion bash > ~/.local/share/bash-completion/completions/edge-vision

exit codes: 0 done, 2 wrong arguments"""
_BASH = """\
_edge_vision() {{
    local words=""
    if [ "$COMP_CWORD" -eq 1 ]; then
        words="{commands} --help --version"
    elif [[ "${{COMP_WORDS[COMP_CWORD]}}" == -* ]]; then
        words=$("$1" "${{COMP_WORDS[1]}}" ${{COMP_WORDS[2]##-*}} --help 2>/dev/null |
            grep -oE -- '--[a-z][a-z0-9-]+')
    elif [ "$COMP_CWORD" -eq 2 ]; then
        case "${{COMP_WORDS[1]}}" in
{cases}
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
complete -o default -F _edge_vision edge-vision"""


def main(argv: Sequence[str] | None = None) -> int:
    """Print the script of a shell. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="edge-vision completion",
        description="Print the shell completion of edge-vision: commands, subcommands, options and files.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shell", choices=["bash"])
    parser.parse_args(argv)
    print(bash_script())
    return 0


def bash_script() -> str:
    """The completion script of bash."""
    cases = "\n".join(
        f'            {name}) words="{" ".join(command.subcommands)}" ;;'
        for name, command in COMMANDS.items()
        if command.subcommands
    )
    return _BASH.format(commands=" ".join(COMMANDS), cases=cases)
