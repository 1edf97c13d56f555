# SPDX-License-Identifier: GPL-2.0-or-later
"""``python -m tests.fuzz``: fuzz, repeat a finding, list what is reached."""

import argparse
import base64
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from tests.fuzz import corpus, coverage
from tests.fuzz.target import BUILD, Target, environment, run, targets


def _chosen(names: list[str]) -> list[Target]:
    known = {target.name: target for target in targets()}
    if unknown := set(names) - set(known):
        raise SystemExit(f"unknown: {', '.join(sorted(unknown))}")
    found = [known[name] for name in names] or list(known.values())
    able = []
    for target in found:
        if why := target.why_not():
            print(f"{target.name}: {why}", file=sys.stderr)
        else:
            able.append(target)
    return able


def _run(args: argparse.Namespace) -> int:
    failed = 0
    with ThreadPoolExecutor(args.jobs) as pool:
        running = {
            pool.submit(
                run,
                target,
                args.seconds,
                corpus.found(target),
                corpus.unpack(target),
            ): target
            for target in _chosen(args.target)
        }
        for future in as_completed(running):
            outcome = future.result()
            failed += outcome.finding is not None
            print(f"{running[future].name}: {outcome.text}", flush=True)
    return failed


def _again(args: argparse.Namespace) -> int:
    (target,) = _chosen(args.target[:1])
    path = Path(args.input)
    if not path.exists():
        path = BUILD / "again"
        path.write_bytes(base64.b64decode(args.input))
    return subprocess.run([*target.command, str(path)], env=environment()).returncode


def _coverage(args: argparse.Namespace) -> int:
    chosen = _chosen(args.target)
    counts = coverage.of_c(target for target in chosen if target.is_c)
    counts |= coverage.of_python(target for target in chosen if not target.is_c)
    for name, (reached, lines) in counts.items():
        print(f"{name:<44} {reached:>5} of {lines:>5} {reached / lines:>7.1%}")
    return 0


def _pack(args: argparse.Namespace) -> int:
    for target in _chosen(args.target):
        folders = [corpus.unpack(target), corpus.found(target), *args.more]
        count, size = corpus.pack(target, folders)
        print(f"{target.name}: {count} inputs, {size} bytes")
    return 0


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("run", help="fuzz; new inputs go to build/fuzz/found")
    command.add_argument("--seconds", type=int, default=60, help="of each target")
    command.add_argument("--jobs", type=int, default=os.cpu_count())
    command.add_argument("target", nargs="*")
    command.set_defaults(act=_run)
    command = commands.add_parser("again", help="repeat a finding")
    command.add_argument("target", nargs=1)
    command.add_argument("input", help="a file, or an input as base64")
    command.set_defaults(act=_again)
    command = commands.add_parser("coverage", help="lines reached, by source file")
    command.add_argument("target", nargs="*")
    command.set_defaults(act=_coverage)
    command = commands.add_parser("pack", help="keep the best inputs in the tree")
    command.add_argument("--more", type=Path, action="append", default=[])
    command.add_argument("target", nargs="*")
    command.set_defaults(act=_pack)
    args = parser.parse_args()
    status: int = args.act(args)
    return status


if __name__ == "__main__":
    sys.exit(main())
