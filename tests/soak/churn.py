# SPDX-License-Identifier: GPL-2.0-or-later
"""Threads that each do a deed again and again, until all are told to stop."""

import threading
import time
from collections import Counter

from passtpy.client.connect import ClientError
from tests.soak.deeds import Deed

PAUSE_S = 0.05  # after what was refused: it may be again


class Churn:
    """Has deeds done, and counts them."""

    def __init__(self, deeds: dict[str, Deed]) -> None:
        self._deeds = deeds
        self.done: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.why: dict[str, str] = {}  # the last one was refused, by name
        self._broken: list[BaseException] = []

    def run(self, seconds: float) -> None:
        """Have all of it done for so long."""
        over = threading.Event()
        threads = [
            threading.Thread(target=self._again, args=(name, deed, over))
            for name, deed in self._deeds.items()
        ]
        for thread in threads:
            thread.start()
        over.wait(seconds)
        over.set()
        for thread in threads:
            thread.join()
        if self._broken:
            raise self._broken[0]

    def _again(self, name: str, deed: Deed, over: threading.Event) -> None:
        while not over.is_set():
            try:
                deed()
            except (OSError, ClientError, AssertionError) as error:
                self.refused[name] += 1
                self.why[name] = repr(error)
                time.sleep(PAUSE_S)
            except BaseException as error:
                self._broken.append(error)
                return
            else:
                self.done[name] += 1
