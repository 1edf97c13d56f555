# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes what a capture sends to files or a pipe, until a limit or a signal.

A signal asks the daemon to end the capture, so that the file ends with a whole packet
and with the counts of what is missing. A second one ends us at once. One that whoever
started us has us ignore, as nohup(1) does, is ignored.
"""

import json
import signal
import sys
from argparse import Namespace
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from passtpy.client.connect import ByteStream, Client, ClientError, WrongUse
from passtpy.client.rotating import Rotating, create, write
from passtpy.client.show import duration, size, table, width

PATH = "/v1/capture"
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run_capture(client: Client, args: Namespace) -> int:
    """Capture, or list or end captures of others."""
    if args.list:
        _print(client.ask("GET", PATH)["captures"], args.json)
        return 0
    if args.stop_all or args.stop is not None:
        query = None if args.stop_all else {"id": args.stop}
        _print(client.ask("DELETE", PATH, query)["captures"], args.json)
        return 0
    to_stdout = args.write in (None, "-")
    if to_stdout and sys.stdout.isatty():
        raise WrongUse("a capture is not for terminals: -w FILE, or | tshark -r -")
    _check_rotation(args, to_stdout)
    query = {name: getattr(args, name) for name in ("snaplen", "packets", "bytes")}
    query |= {"seconds": args.seconds, "side": args.side}
    query["filter"] = " ".join(args.filter) or None
    stream = client.stream("POST", PATH, query)  # a file stays if it is refused
    _end_in_order(client, stream)
    try:
        if to_stdout:
            _copy(stream, sys.stdout.fileno())
        elif args.rotate is not None:
            args.write, total = _rotate(stream, args)
        else:
            with open(create(args.write), "wb", buffering=0) as file:
                total = _copy(stream, file.fileno())
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ClientError(f"{args.write or '-'}: {error.strerror}") from None
    if not to_stdout:
        told = {"file": args.write, "bytes": total}
        text = json.dumps(told) if args.json else f"{size(total)} in {args.write}"
        sys.stdout.write(f"{text}\n")
    return 0


def _check_rotation(args: Namespace, to_stdout: bool) -> None:
    if args.files is not None and args.rotate is None:
        raise WrongUse("--files says how many of --rotate are kept")
    for value in (args.rotate, args.files):
        if value is not None and (to_stdout or value < 1):
            raise WrongUse("--rotate BYTES, --files N: for -w FILE, and at least 1")


def _rotate(stream: ByteStream, args: Namespace) -> tuple[str, int]:
    """Write many files; return the last one's name, and the bytes of all."""
    files, total = Rotating(args.write, args.rotate, args.files), 0
    try:
        for chunk in stream.chunks():
            files.feed(chunk)
            total += len(chunk)
    finally:
        files.close()
    return files.latest, total


def _copy(stream: ByteStream, fd: int) -> int:
    total = 0
    for chunk in stream.chunks():
        total += len(chunk)
        write(fd, chunk)
    return total


def _end_in_order(client: Client, stream: ByteStream) -> None:
    """Have signals end the capture in the daemon; the rest of it still comes."""

    def end(number: int, frame: object) -> None:
        del number, frame
        for each in ENDING:
            signal.signal(each, signal.SIG_DFL)
        with suppress(ClientError):  # it has ended by itself
            client.ask("DELETE", PATH, {"id": stream.header("capture-id")})

    for each in ENDING:
        if signal.getsignal(each) is not signal.SIG_IGN:
            signal.signal(each, end)


def _print(captures: Sequence[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        sys.stdout.write(f"{json.dumps(captures, indent=1)}\n")
        return
    rows = [
        (
            str(each["id"]),
            duration(each["age_ns"]),
            each["side"],
            str(each["packets"]),
            size(each["bytes"]),
            str(sum(each["dropped"].values())),
            each["filter"] or "(everything)",
        )
        for each in captures
    ]
    head = ("ID", "AGE", "SIDE", "PACKETS", "SIZE", "DROPPED", "FILTER")
    sys.stdout.write("\n".join(table(head, rows, width())) + "\n")
