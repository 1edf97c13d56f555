# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes what a capture sends to a file or a pipe, until a limit or a signal.

A signal asks the daemon to end the capture, so that the file ends with a whole packet
and with the counts of what is missing. A second one ends us at once.
"""

import json
import os
import signal
import sys
from argparse import Namespace
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from passtpy.client.connect import ByteStream, Client, ClientError, WrongUse
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
    query = {name: getattr(args, name) for name in ("snaplen", "packets", "bytes")}
    query |= {"seconds": args.seconds, "side": args.side}
    query["filter"] = " ".join(args.filter) or None
    stream = client.stream("POST", PATH, query)  # a file stays if it is refused
    _end_in_order(client, stream)
    try:
        if to_stdout:
            _copy(stream, sys.stdout.fileno())
        else:
            with open(_create(args.write), "wb", buffering=0) as file:
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


def _create(path: str) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    return os.open(path, flags, 0o600)


def _copy(stream: ByteStream, fd: int) -> int:
    total = 0
    for chunk in stream.chunks():
        total += len(chunk)
        left = memoryview(chunk)
        while left:
            left = left[os.write(fd, left) :]
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
