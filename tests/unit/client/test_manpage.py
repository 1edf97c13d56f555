# SPDX-License-Identifier: GPL-2.0-or-later
"""The manual pages are those of the tables, and roff without a complaint."""

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from passtpy import pesto
from passtpy.client.cli import NAMES, build_parser
from passtpy.client.command import arguments
from passtpy.client.commands import COMMANDS
from passtpy.client.completion import called
from passtpy.client.manpage import PAGES as MADE
from passtpy.client.manpage import manpage
from passtpy.client.programs import programs
from passtpy.config import slirp

ROOT = Path(__file__).resolve().parents[3]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.1"))


def plain(page: str) -> str:
    """Return a page without what makes words bold, and its minus signs as dashes."""
    return re.sub(r"\\f[BIR]", "", page).replace("\\-", "-")


def scripts() -> set[str]:
    """The programs that an installation has."""
    return set(
        tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    )


@pytest.mark.parametrize(("program", "page"), MADE.items())
def test_pages_are_those_of_the_tables(program: str, page: Callable[[], str]) -> None:
    name = "passtpy.1" if program == "passtpy" else f"passtpy-{program}.1"
    assert (DOCS / name).read_text() == page(), (
        f"python -m passtpy.client.manpage {program} >docs/{name}"
    )


def test_every_program_has_a_page_and_a_completion() -> None:
    """But for the plugin, which takes no words."""
    assert {page.stem for page in PAGES} == scripts()
    completed = {called(name) for name in programs()} - {""}
    assert {*completed, "passtpy", "passtpy-cni"} == scripts()


def test_every_word_of_usage_that_is_an_option_is_completed() -> None:
    assert set(programs()["slirp4netns"]) == {
        *(f"--{name}" for name in slirp._GRAMMAR.long),
        *(f"-{letter}" for letter in slirp._GRAMMAR.short),
    }
    assert set(programs()["pesto"]) == {
        *(f"--{name}" for name in pesto._GRAMMAR.long),
        *(f"-{letter}" for letter in pesto._GRAMMAR.short),
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_are_clean(page: Path) -> None:
    mandoc = shutil.which("mandoc")
    if mandoc is None:
        pytest.skip("no mandoc")
    argv = [mandoc, "-T", "lint", "-W", "all", str(page)]
    done = subprocess.run(argv, capture_output=True, check=False, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_every_option_of_every_command_has_its_place() -> None:
    sections = plain(manpage()).split(".SS passtpy ")
    shared = sections[0]
    for command, text in zip(COMMANDS, sections[1:], strict=True):
        assert text.startswith(f"{command.name}\n")
        for arg in arguments(command):
            where = text if arg in command.args else shared
            named = ", ".join(arg.names)
            found = re.search(rf"^\.TP\n{re.escape(named)}\b", where, re.MULTILINE)
            assert found or not named.startswith("-"), (command.name, named)


def test_pages_that_are_spoken_of_exist() -> None:
    texts = [page.read_text().replace("\\-", "-") for page in PAGES]
    texts += [build_parser(command).format_help() for command in COMMANDS]
    # --help breaks lines at dashes; a page has the section behind a font's end.
    text = re.sub(r"-\n\s+", "-", "\n".join(texts))
    spoken_of = set(re.findall(r"\b(passtpy[a-z0-9-]*) ?\(1\)", text))
    assert spoken_of == {page.stem for page in PAGES}


def test_examples_are_lines_that_the_commands_take() -> None:
    examples = plain(manpage()).partition(".SH EXAMPLES")[2]
    lines = re.findall(r"^\.B passtpy (.*)$", examples, re.MULTILINE)
    assert len(lines) > 5
    for line in lines:
        name, *words = shlex.split(line.partition(" | ")[0])
        if name in programs():
            continue
        ours = words[: words.index("--")] if "--" in words else words
        build_parser(COMMANDS[NAMES.index(name)]).parse_intermixed_args(ours)


def test_a_wheel_installs_every_page(tmp_path: Path) -> None:
    """Its builder does the same, and compiles the module as well."""
    bin_ = Path(sys.executable).parent
    cmake, ninja = bin_ / "cmake", bin_ / "ninja"
    build, data = tmp_path / "build", tmp_path / "data"
    options = {
        "CMAKE_MAKE_PROGRAM": ninja,
        "PASSTPY_MODULE": "OFF",
        "SKBUILD_DATA_DIR": data,
    }
    given = [f"-D{name}={value}" for name, value in options.items()]
    source = ["-S", str(ROOT / "native"), "-B", str(build), "-G", "Ninja"]
    subprocess.run([cmake, *source, *given], check=True, capture_output=True)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    components = project["tool"]["scikit-build"]["install"]["components"]
    for component in set(components) - {"passtpy"}:
        argv = [cmake, "--install", build, "--component", component]
        subprocess.run(argv, check=True, capture_output=True)
    installed = sorted((data / "share/man/man1").iterdir())
    assert [page.name for page in installed] == [page.name for page in PAGES]
    assert {page.stem for page in PAGES} == scripts()
