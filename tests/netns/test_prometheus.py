# SPDX-License-Identifier: GPL-2.0-or-later
"""A real Prometheus scrapes a daemon, and the dashboard's queries find its numbers."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.lab import (
    HOST4,
    TRANSLATORS,
    Attachment,
    Lab,
    exchange,
    tcp_echo,
    wait_until,
)
from tests.netns.program import PROGRAM

DASHBOARD = Path(__file__).parents[2] / "docs" / "grafana.json"
METRICS = "127.0.0.1:9100"
API = "http://127.0.0.1:9090/api/v1"
READY = "http://127.0.0.1:9090/-/ready"
SOON = 30.0
CONFIG = f"""
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
  - job_name: passtpy
    static_configs: [{{targets: ["{METRICS}"]}}]
"""

needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None and "CI" not in os.environ,
    reason="needs Debian's package prometheus",
)


@contextmanager
def watched() -> Iterator[Lab]:
    """A lab with a daemon that shows its metrics, and traffic in it."""
    with Lab() as lab:
        control = str(lab.dir / "control")
        extra = ("--control", control, "--metrics", METRICS)
        options = Attachment(tcp_ports=(8080,), extra=extra)
        with (
            lab.attach(TRANSLATORS["passtpy"], options) as it,
            tcp_echo(it.guest, "0.0.0.0", 8080),
            lab.remote.connect(HOST4, 8080) as sock,
        ):
            exchange(sock, b"hello")
            wait_until(lambda: answers(lab, *curl("/metrics")), SOON, "metrics")
            yield lab


def answers(lab: Lab, *argv: str) -> bool:
    return lab.host.run(*argv, check=False).returncode == 0


def curl(path: str, *more: str) -> list[str]:
    return ["curl", "-sSf", *more, f"http://{METRICS}{path}"]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with watched() as made:
        yield made


@needs_prometheus
def test_promtool_finds_no_fault(lab: Lab) -> None:
    page = lab.host.run(*curl("/metrics")).stdout
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=page, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_socket_has_the_same_page(lab: Lab) -> None:
    argv = [str(PROGRAM), "stats", "--prometheus", "-i", str(lab.dir / "control")]
    over_socket = lab.host.run(*argv).stdout
    over_tcp = lab.host.run(*curl("/metrics")).stdout
    names = re.compile(r"^[a-z]\S*", re.MULTILINE)
    assert names.findall(over_socket) == names.findall(over_tcp)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/flows"),
        ("GET", "/v1/instance"),
        ("POST", "/v1/stop"),
        ("DELETE", "/v1/flows?filter="),
        ("POST", "/metrics"),
    ],
)
def test_nothing_else_is_answered_over_tcp(lab: Lab, method: str, path: str) -> None:
    done = lab.host.run(*curl(path, "-X", method), check=False)
    assert re.search(r"error: 40[45]", done.stderr)


def test_a_port_that_is_taken_is_one_line(lab: Lab) -> None:
    argv = [str(PROGRAM), "pasta", "--metrics", METRICS, "--", "true"]
    done = lab.host.run(*argv, check=False)
    assert done.returncode == 1
    reason = "at 127.0.0.1 port 9100: Address already in use"
    assert done.stderr == f"pasta: Couldn't listen for metrics {reason}\n"


@contextmanager
def prometheus(lab: Lab) -> Iterator[None]:
    config = lab.dir / "prometheus.yml"
    config.write_text(CONFIG)
    argv = [
        "prometheus",
        f"--config.file={config}",
        f"--storage.tsdb.path={lab.dir / 'tsdb'}",
        "--web.listen-address=127.0.0.1:9090",
        "--log.level=error",
    ]
    with subprocess.Popen(lab.host.command(argv)) as running:
        ready = ["curl", "-sf", READY]
        try:
            wait_until(lambda: answers(lab, *ready), 2 * SOON, "Prometheus")
            yield
        finally:
            running.terminate()


def ask(lab: Lab, query: str) -> list[Any]:
    """Return what Prometheus knows; a query that it does not understand fails."""
    url = f"{API}/query?query={quote(query)}"
    told = json.loads(lab.host.run("curl", "-s", url).stdout)
    assert told["status"] == "success", told
    result: list[Any] = told["data"]["result"]
    return result


def queries() -> list[str]:
    """The dashboard's, with its variables as Grafana would fill them in."""
    found = [
        target["expr"]
        for panel in json.loads(DASHBOARD.read_text())["panels"]
        for target in panel["targets"]
    ]
    values = {"$instance": ".*", "$__rate_interval": "10s"}
    for name, value in values.items():
        found = [query.replace(name, value) for query in found]
    assert not any("$" in query for query in found)
    return found


@needs_prometheus
def test_prometheus_scrapes_and_the_dashboard_has_numbers(lab: Lab) -> None:
    with prometheus(lab):
        total = "passtpy_flows_opened_total > 0"
        wait_until(lambda: ask(lab, total), SOON, "a scrape")
        wait_until(
            lambda: ask(lab, "count_over_time(passtpy_flows[10s]) >= 3"),
            SOON,
            "scrapes",
        )

        def is_up() -> bool:
            """A busy machine may let the second of a scrape pass."""
            up = ask(lab, 'up{job="passtpy"}')
            return [sample["value"][1] for sample in up] == ["1"]

        wait_until(is_up, SOON, "a scrape that succeeds")
        for query in queries():
            # What is shown only where there is some has to be there without that.
            known = query.removesuffix(" > 0")
            wait_until(lambda: ask(lab, known), SOON, query)  # noqa: B023
