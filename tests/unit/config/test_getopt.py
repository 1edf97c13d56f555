# SPDX-License-Identifier: GPL-2.0-or-later
"""getopt_long, word for word."""

import pytest

from passtpy.config.getopt import Getopt, GetoptError, Grammar

GRAMMAR = Grammar(
    short={"d": "debug", "f": "foreground", "t": "tcp-ports", "e": "stderr"},
    long={
        "debug": "debug",
        "foreground": "foreground",
        "tcp-ports": "tcp-ports",
        "tcp-ns": "tcp-ns",
        "netns": "netns",
        "netns-only": "netns-only",
        "socket": "socket",
        "socket-path": "socket",
        "stderr": "stderr",
    },
    valued=frozenset({"tcp-ports", "tcp-ns", "netns", "socket"}),
)


def walk(line: str) -> tuple[list[tuple[str, str]], list[str]]:
    words = Getopt(line.split(), GRAMMAR)
    return list(words), words.rest


@pytest.mark.parametrize(
    ("line", "options", "rest"),
    [
        ("", [], []),
        ("-d -f", [("debug", ""), ("foreground", "")], []),
        ("-df", [("debug", ""), ("foreground", "")], []),
        ("-dft 80", [("debug", ""), ("foreground", ""), ("tcp-ports", "80")], []),
        ("-dt80 -f", [("debug", ""), ("tcp-ports", "80"), ("foreground", "")], []),
        ("-tf", [("tcp-ports", "f")], []),
        ("--tcp-ports 80 x", [("tcp-ports", "80")], ["x"]),
        ("--tcp-ports=80", [("tcp-ports", "80")], []),
        ("--tcp-ports=", [("tcp-ports", "")], []),
        ("--tcp-p 80", [("tcp-ports", "80")], []),
        ("--fore", [("foreground", "")], []),
        ("--netns x", [("netns", "x")], []),
        ("--netns-o", [("netns-only", "")], []),
        ("--sock x", [("socket", "x")], []),  # two names of one option: no doubt
        ("ls -l", [], ["ls", "-l"]),
        ("-d ls -l", [("debug", "")], ["ls", "-l"]),
        ("-d -- -f", [("debug", "")], ["-f"]),
        ("-d - -f", [("debug", "")], ["-", "-f"]),
        ("-t -- 80", [("tcp-ports", "--")], ["80"]),
        ("-t -f", [("tcp-ports", "-f")], []),
    ],
)
def test_words_are_walked(
    line: str, options: list[tuple[str, str]], rest: list[str]
) -> None:
    assert walk(line) == (options, rest)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--x", "unrecognized option '--x'"),
        ("--x=3", "unrecognized option '--x=3'"),
        ("-x", "invalid option -- 'x'"),
        ("-dx", "invalid option -- 'x'"),
        ("-t", "option requires an argument -- 't'"),
        ("-dt", "option requires an argument -- 't'"),
        ("--tcp-ports", "option '--tcp-ports' requires an argument"),
        ("--tcp-p", "option '--tcp-ports' requires an argument"),
        ("--debug=3", "option '--debug' doesn't allow an argument"),
        ("--deb=3", "option '--debug' doesn't allow an argument"),
        (
            "--tcp=3",
            "option '--tcp=3' is ambiguous; possibilities: '--tcp-ports' '--tcp-ns'",
        ),
        ("--n", "option '--n' is ambiguous; possibilities: '--netns' '--netns-only'"),
    ],
)
def test_errors_have_the_words_of_the_c_library(line: str, message: str) -> None:
    with pytest.raises(GetoptError) as caught:
        walk(line)
    assert str(caught.value) == message


def test_options_before_an_error_take_effect() -> None:
    words = iter(Getopt(["-d", "--x"], GRAMMAR))
    assert next(words) == ("debug", "")
    with pytest.raises(GetoptError):
        next(words)
