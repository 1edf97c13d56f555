# SPDX-License-Identifier: GPL-2.0-or-later
"""Completion for shells, made from tables of options: `passtpy completion bash`."""

import shlex
from collections.abc import Iterator, Mapping, Sequence

from passtpy.client.command import INSTANCE, Arg, Command, arguments

Programs = Mapping[str, Sequence[str]]  # options, by a name without `passtpy-`

SHELLS = ("bash", "zsh", "fish")
FILE = "FILE"  # how an option calls its value, where it is one
INSTANCES = "passtpy ls 2>/dev/null | tail -n +2 | cut -d ' ' -f 1"


def _options(command: Command) -> list[Arg]:
    return [arg for arg in arguments(command) if arg.names[0].startswith("-")]


def _names(command: Command) -> list[str]:
    return [name for arg in _options(command) for name in arg.names]


def _words(command: Command) -> list[str]:
    """Return the words that may stand without a dash."""
    words: list[str] = []
    for arg in command.args:
        if not arg.names[0].startswith("-"):
            words += arg.options.get("choices") or arg.words
    return words


def _takes_value(option: Arg) -> bool:
    return "action" not in option.options


def _choices(option: Arg) -> str:
    return " ".join(option.options.get("choices", ()))


def _is_file(option: Arg) -> bool:
    return option.options.get("metavar") == FILE


def _values(
    commands: Sequence[Command], between: str, words: str, files: str, instances: str
) -> Iterator[str]:
    """Yield the cases of what follows an option that takes a value."""
    for command in commands:
        for option in filter(_takes_value, _options(command)):
            if option is INSTANCE:
                offer = f"{instances}; "
            elif _is_file(option):
                offer = f"{files}; "
            elif _choices(option):
                offer = f"{words.format(_choices(option))}; "
            else:
                offer = ""  # whatever it is, no other option stands here
            cases = "|".join(f"{command.name}{between}{name}" for name in option.names)
            yield f"    {cases}) {offer}return ;;"


def called(name: str) -> str:
    """Return a program's name as it is installed; `run` and `learn` have none."""
    return "" if name in ("run", "learn") else f"passtpy-{name}"


def _installed(programs: Programs) -> str:
    return " ".join(["passtpy", *filter(None, map(called, programs))])


def _bash(commands: Sequence[Command], programs: Programs) -> Iterator[str]:
    names = " ".join([*(command.name for command in commands), *programs])
    some = 'COMPREPLY=($(compgen -W "{}" -- "$cur"))'
    yield "_passtpy() {"
    yield "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}"
    yield "    local called=${COMP_WORDS[0]##*/}"
    yield "    called=${called#passtpy-}"
    yield "    COMPREPLY=()"
    yield "    if [ $called = passtpy ]; then"
    yield f"        [ $COMP_CWORD -ne 1 ] || {{ {some.format(names)}; return; }}"
    yield "        called=${COMP_WORDS[1]}"
    yield "    fi"
    yield "    case $called:$prev in"
    files = "local IFS=$'\\n'; COMPREPLY=($(compgen -f -- \"$cur\"))"
    yield from _values(commands, ":", some, files, some.format(f"$({INSTANCES})"))
    yield "    esac"
    yield "    case $called in"
    for command in commands:
        words = " ".join(_names(command) + _words(command))
        yield f"    {command.name}) {some.format(words)} ;;"
    # What is no option may be a file; who is no completion has no such choice.
    files_too = "compopt -o default 2>/dev/null || :"
    for name, options in programs.items():
        yield f"    {name}) {some.format(' '.join(options))}; {files_too} ;;"
    yield "    esac"
    yield "}"
    yield f"complete -F _passtpy {_installed(programs)}"


def _zsh(commands: Sequence[Command], programs: Programs) -> Iterator[str]:
    yield f"#compdef {_installed(programs)}"
    yield "local called=${words[1]:t}"
    yield "called=${called#passtpy-}"
    yield "local -a commands"
    yield "commands=("
    for command in commands:
        yield f"    {shlex.quote(f'{command.name}:{command.help}')}"
    for name in programs:
        yield f"    '{name}:see passtpy {name} --help'"
    yield ")"
    yield "if [[ $called == passtpy ]]; then"
    yield "    if (( CURRENT == 2 )); then _describe command commands; return; fi"
    yield "    called=$words[2]"
    yield "fi"
    some = "compadd -- {}"
    yield "case $called:$words[CURRENT-1] in"
    yield from _values(commands, ":", some, "_files", some.format(f"$({INSTANCES})"))
    yield "esac"
    yield "case $called in"
    for command in commands:
        words = " ".join(_names(command) + _words(command))
        yield f"    {command.name}) {some.format(words)} ;;"
    for name, options in programs.items():
        yield f"    {name}) {some.format(' '.join(options))}; _files ;;"
    yield "esac"


def _fish(commands: Sequence[Command], programs: Programs) -> Iterator[str]:
    yield "complete -c passtpy -f"
    for command in commands:
        first = "-n __fish_use_subcommand"
        told = _fish_quote(command.help)
        yield f"complete -c passtpy {first} -a {command.name} -d {told}"
        seen = f"-n '__fish_seen_subcommand_from {command.name}'"
        for option in _options(command):
            yield f"complete -c passtpy {seen} {_fish_option(option)}"
        for word in _words(command):
            yield f"complete -c passtpy {seen} -a {word}"
    for name, options in programs.items():
        yield f"complete -c passtpy -n __fish_use_subcommand -a {name}"
        places = [f"passtpy -n '__fish_seen_subcommand_from {name}'", called(name)]
        for place in filter(None, places):
            yield from (f"complete -c {place} {_fish_name(each)}" for each in options)


def _fish_quote(text: str) -> str:
    r"""Return a text as one word: within quotes, fish takes \\ and \' for \ and '."""
    return "'" + text.replace("\\", r"\\").replace("'", r"\'") + "'"


def _fish_name(name: str) -> str:
    return f"{'-l' if name.startswith('--') else '-s'} {name.lstrip('-')}"


def _fish_option(option: Arg) -> str:
    """Return an option, as `complete` takes it."""
    words = [_fish_name(name) for name in option.names]
    words.append(f"-d {_fish_quote(option.help)}")
    if option is INSTANCE:
        words.append(f'-x -a "({INSTANCES})"')
    elif _is_file(option):
        words.append("-r -F")
    elif _takes_value(option):
        words.append(f"-x -a '{_choices(option)}'")
    return " ".join(words)


def completion(shell: str, commands: Sequence[Command], programs: Programs) -> str:
    """Return the script for a shell."""
    make = {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell]
    return "\n".join(make(commands, programs)) + "\n"
