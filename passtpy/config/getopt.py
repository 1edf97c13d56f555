# SPDX-License-Identifier: GPL-2.0-or-later
"""GNU getopt_long as the C library does it, with its messages.

The standard library's getopt says other words, and the callers of pasta look for
these. Parsing stops at the first word that is no option; options are yielded one by
one, so an error is only met after everything before it took effect.
"""

from collections.abc import Iterator, Sequence

from passtpy.errors import ConfigError
from passtpy.record import record


class GetoptError(ConfigError):
    """The words of the C library, without the program's name."""


@record
class Grammar:
    """The options to accept: each name's canonical option, and who takes a value."""

    short: dict[str, str]  # letter -> canonical name
    long: dict[str, str]  # long name -> canonical name
    valued: frozenset[str]  # canonical names that require an argument
    optional: frozenset[str] = frozenset()  # those that may have one, behind "="


class Getopt:
    """One walk over the words; `rest` holds what follows the options."""

    def __init__(self, words: Sequence[str], grammar: Grammar) -> None:
        self._words = list(words)
        self._grammar = grammar
        self.rest: list[str] = []

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Yield (canonical name, value); the value is "" for switches."""
        words = self._words
        while words:
            word = words[0]
            if word == "--":
                words.pop(0)
                break
            if len(word) < 2 or word[0] != "-":
                break
            words.pop(0)
            if word.startswith("--"):
                yield self._long(word[2:])
            else:
                yield from self._bundle(word[1:])
        self.rest = words

    def _long(self, word: str) -> tuple[str, str]:
        typed, equals, value = word.partition("=")
        name = self._complete(typed, word)
        option = self._grammar.long[name]
        if option in self._grammar.optional:
            return option, value
        if option not in self._grammar.valued:
            if equals:
                raise GetoptError(f"option '--{name}' doesn't allow an argument")
            return option, ""
        if equals:
            return option, value
        if not self._words:
            raise GetoptError(f"option '--{name}' requires an argument")
        return option, self._words.pop(0)

    def _complete(self, typed: str, word: str) -> str:
        """Return the long name that `typed` is, or is an unambiguous prefix of."""
        names = self._grammar.long
        if typed in names:
            return typed
        possible = [name for name in names if name.startswith(typed)]
        if not possible:
            raise GetoptError(f"unrecognized option '--{word}'")
        if len({names[name] for name in possible}) > 1:
            listed = " ".join(f"'--{name}'" for name in possible)
            raise GetoptError(
                f"option '--{word}' is ambiguous; possibilities: {listed}"
            )
        return possible[0]

    def _bundle(self, letters: str) -> Iterator[tuple[str, str]]:
        for position, letter in enumerate(letters):
            option = self._grammar.short.get(letter)
            if option is None:
                raise GetoptError(f"invalid option -- '{letter}'")
            if option not in self._grammar.valued:
                yield option, ""
                continue
            value = letters[position + 1 :]
            if not value:
                if not self._words:
                    raise GetoptError(f"option requires an argument -- '{letter}'")
                value = self._words.pop(0)
            yield option, value
            return
