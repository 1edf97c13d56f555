# SPDX-License-Identifier: GPL-2.0-or-later
"""``python -m tests.bench``: run the benchmark and print its report."""

import argparse
import compileall
import json
import resource
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.bench import loadgen, machine, report
from tests.bench.measure import flow_table
from tests.bench.rows import GROUPS, plan
from tests.bench.runner import RowResult, columns_of, run_row
from tests.bench.served import CONTENDERS
from tests.lab import Lab, LabError, why_unavailable
from tests.lab.translators import ROOT, earlier_checkout

OPEN_FILES = 300_000  # 10 000 flows, at either end and in the translator


def _list_of(known: Sequence[str], text: str) -> list[str]:
    chosen = text.split(",")
    if unknown := set(chosen) - set(known):
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(sorted(unknown))}")
    return chosen


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    peers = tuple(CONTENDERS)
    parser.add_argument(
        "--rows",
        type=lambda text: _list_of(GROUPS, text),
        default=list(GROUPS),
        help=f"comma-separated groups out of {','.join(GROUPS)}",
    )
    parser.add_argument("--only", help="only rows whose key contains this text")
    parser.add_argument("--runs", type=int, help="runs per cell (3; quick: 1)")
    parser.add_argument("--seconds", type=float, help="of each run (2; quick: 1.5)")
    parser.add_argument(
        "--peers",
        type=lambda text: _list_of(peers, text),
        default=list(peers),
        help=f"comma-separated columns out of {','.join(peers)}",
    )
    parser.add_argument("--json", type=Path, help="also write everything to this file")
    parser.add_argument("--quick", action="store_true", help="main rows, one run each")
    return parser.parse_args()


def _say(text: str) -> None:
    """Progress: overwritten in place on a terminal, and silent elsewhere."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def _raise_file_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(OPEN_FILES, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
    except (ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _compile_python() -> None:
    """Compile what is measured, as installing it would.

    Where Python may not write bytecode each start compiles everything anew, which
    takes longer than the start itself.
    """
    for tree in (ROOT, earlier_checkout()):
        if tree is not None:
            compileall.compile_dir(tree / "passtpy", quiet=1)


def _run_rows(args: argparse.Namespace) -> list[RowResult]:
    runs = args.runs or (1 if args.quick else 3)
    seconds = args.seconds or (1.5 if args.quick else 2.0)
    results = []
    for row in plan(args.rows, args.quick):
        columns = columns_of(row, args.peers)
        if not columns or (args.only and args.only not in row.key):
            continue
        # A lab of its own: nothing that a row leaves behind reaches the next.
        with Lab() as lab:
            result = run_row(lab, row, columns, runs, seconds, _say)
        results.append(result)
    _say("")
    return results


def _run_micro(args: argparse.Namespace) -> list[tuple[str, float, str]]:
    if "table" not in args.rows or args.only:
        return []
    try:
        return flow_table()
    except LabError as error:
        print(f"flow table: failed: {error}\n")
        return []


def main() -> int:
    """Measure what was asked for, print it, and write it down if wanted."""
    args = _arguments()
    if reason := why_unavailable():
        print(f"bench: {reason}", file=sys.stderr)
        return 1
    _raise_file_limit()
    loadgen.build()
    _compile_python()
    started = time.monotonic()
    facts = machine.describe(args.peers, shlex.join(["bench", *sys.argv[1:]]))
    for name, fact in facts.items():
        print(f"{name + ':':20} {fact}")
    print()
    results = _run_rows(args)
    micro = _run_micro(args)
    if results:
        print(report.table(results))
    if micro:
        print("\n" + report.micro_table(micro))
    if reasons := list(report.failures(results)):
        print("\nfailures:", *reasons, sep="\n")
    print(f"\ntook {time.monotonic() - started:.0f} s")
    if args.json:
        keys = ("name", "value", "unit")
        document = {
            "machine": facts,
            "rows": report.as_json(results),
            "flow_table": [dict(zip(keys, one, strict=True)) for one in micro],
        }
        args.json.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
