# SPDX-License-Identifier: GPL-2.0-or-later
"""Completion for shells, made from the table of commands: `passtpy completion bash`."""

from collections.abc import Iterator, Sequence

from passtpy.client.command import Command, arguments

SHELLS = ("bash", "zsh", "fish")


def _options(command: Command) -> Iterator[tuple[str, str]]:
    """Yield each option of a command, and its help."""
    for arg in arguments(command):
        for name in arg.names:
            if name.startswith("-"):
                yield name, arg.help


def _words(command: Command) -> list[str]:
    """Return the words that may stand without a dash."""
    words: list[str] = []
    for arg in command.args:
        if not arg.names[0].startswith("-"):
            words += arg.options.get("choices") or arg.words
    return words


def _bash(commands: Sequence[Command]) -> Iterator[str]:
    names = " ".join(command.name for command in commands)
    yield "_passtpy() {"
    yield "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}"
    yield "    if [ $COMP_CWORD -eq 1 ]; then"
    yield f'        COMPREPLY=($(compgen -W "{names}" -- "$cur")); return'
    yield "    fi"
    yield '    if [ "$prev" = -i ] || [ "$prev" = --instance ]; then'
    yield '        COMPREPLY=($(compgen -W "$(passtpy ls 2>/dev/null |'
    yield '            tail -n +2 | cut -d\' \' -f1)" -- "$cur")); return'
    yield "    fi"
    yield "    case ${COMP_WORDS[1]} in"
    for command in commands:
        words = [name for name, _ in _options(command)] + _words(command)
        yield f'    {command.name}) COMPREPLY=($(compgen -W "{" ".join(words)}" \\'
        yield '        -- "$cur")) ;;'
    yield "    esac"
    yield "}"
    yield "complete -F _passtpy passtpy"


def _zsh(commands: Sequence[Command]) -> Iterator[str]:
    yield "#compdef passtpy"
    yield "local -a commands"
    yield "commands=("
    for command in commands:
        yield f"    '{command.name}:{command.help}'"
    yield ")"
    yield "if (( CURRENT == 2 )); then _describe command commands; return; fi"
    yield "case $words[2] in"
    for command in commands:
        words = " ".join([name for name, _ in _options(command)] + _words(command))
        yield f"    {command.name}) compadd -- {words} ;;"
    yield "esac"


def _fish(commands: Sequence[Command]) -> Iterator[str]:
    yield "complete -c passtpy -f"
    for command in commands:
        first = "-n __fish_use_subcommand"
        yield f"complete -c passtpy {first} -a {command.name} -d '{command.help}'"
        seen = f"-n '__fish_seen_subcommand_from {command.name}'"
        for name, text in _options(command):
            kind = "-l" if name.startswith("--") else "-s"
            yield f"complete -c passtpy {seen} {kind} {name.lstrip('-')} -d '{text}'"
        for word in _words(command):
            yield f"complete -c passtpy {seen} -a {word}"


def completion(shell: str, commands: Sequence[Command]) -> str:
    """Return the script for a shell."""
    make = {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell]
    return "\n".join(make(commands)) + "\n"
