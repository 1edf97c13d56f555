# SPDX-License-Identifier: GPL-2.0-or-later
"""The rules can fail: each is shown a small tree that breaks it, and one that does not.

A tree is a dictionary from path to text. Only what matters to the rule is in it.
"""

from pathlib import Path

import pytest

from tests.house import documents, layers, rules, sys_calls
from tests.house.rules import Rule

SPDX = "SPDX-License-Identifier: GPL-2.0-or-later"
PROJECT = '[project.scripts]\npasstpy-pasta = "x:y"\n'
EPOLL = "int flow_epoll_set(int fd)\n{\n\treturn sys_epoll_ctl(fd, 0, 0, 0);\n}\n"
WRITE = "void closed(struct flow *flow)\n{\n\tflow->rw.fd[0] = -1;\n}\n"
CAST = "void f(struct flow *x)\n{\n\t((struct flow_common *)&x->f)->why = 1;\n}\n"
FLUSH = "void f(struct ctx *c)\n{\n\ttap_flush(&c->tap);\n}\n"
BACKENDS = {"native/link/backends.def": "TAP_BACKEND(tun)\nTAP_BACKEND(rings)\n"}
SYS = {"native/base/sys.h": "#define sys_recv(...) recv(__VA_ARGS__)\n"}
GIL = "void turn(void)\n{\n\tPy_BEGIN_ALLOW_THREADS\n}\n"

Tree = dict[str, str]

GOOD: list[tuple[Rule, Tree]] = [
    (
        layers.python_layers,
        {"passtpy/net/a/b.py": "from passtpy.net.a import c"},
    ),
    (layers.python_layers, {"passtpy/engine.py": "from .policy import decide"}),
    (layers.strangers, {"passtpy/policy/a.py": "from passtpy.policy import b"}),
    (
        layers.net_rooms,
        {
            "passtpy/net/__init__.py": "",
            "passtpy/net/host/a.py": "from passtpy.net.kernel import b",
            "passtpy/net/kernel/b.py": "",
        },
    ),
    (layers.nothing_runs_what_it_reads, {"passtpy/a.py": "import json"}),
    (layers.native_door, {"passtpy/engine.py": "from passtpy import _native"}),
    (layers.native_door, {"passtpy/net/tap.py": "import passtpy._native as n"}),
    (layers.c_layers, {"native/core/x.c": '#include "table/flow.h"'}),
    (layers.c_layers, {"native/base/x.c": '/* #include "core/turn.h" */'}),
    (rules.python_h_only_in_py, {"native/py/module.c": "#include <Python.h>"}),
    (rules.one_door_into_epoll, {"native/table/epoll.c": EPOLL}),
    (rules.one_door_into_epoll, {"native/core/datapath.c": EPOLL}),
    (rules.one_door_into_epoll, {"native/proto/x.c": "/* epoll_ctl() is not here */"}),
    (
        sys_calls.calls_go_through_the_table,
        {
            **SYS,
            "native/proto/x.c": "int f(struct ops *o)\n{\n\treturn o->recv(1);\n}\n",
            "native/proto/y.c": "int f(int fd)\n{\n\treturn sys_recv(fd);\n}\n",
        },
    ),
    (rules.flows_written_in_table, {"native/table/flow_table.c": WRITE}),
    (rules.bytes_are_lent_by_scope, {"native/core/turn.c": FLUSH}),
    (
        rules.backends_known_in_link,
        {
            **BACKENDS,
            "native/link/tap_rings.c": "struct tap_ops tap_rings_ops;\n",
            "native/py/datapath_rings.c": "int py_rings_add(void);\n",
            "native/py/datapath_type.c": "m[] = { DATAPATH_RINGS_METHODS };\n",
            "native/core/round.c": "\tif (dp->ctx.tap.ops->detach)\n\t\treturn;\n",
        },
    ),
    (rules.gil_released_once, {"native/py/datapath.c": GIL}),
    (rules.files_are_short, {"passtpy/addr.py": "x = 1\n" * 600}),
    (rules.licence_is_named, {"passtpy/addr.py": f"# {SPDX}\n"}),
    (rules.licence_is_named, {".ci/run": f"#!/bin/sh\n# {SPDX}\n"}),
    (rules.licence_is_named, {"passtpy/wire/__init__.py": ""}),
    (documents.links_lead_somewhere, {"README.md": "[x](https://example.org/)"}),
    (documents.links_lead_somewhere, {"README.md": "[x](README.md#use)"}),
    (documents.make_targets_exist, {"Makefile": "all:\n", "README.md": "`make all`"}),
    (
        documents.tests_exist,
        {"tests/b.c": "int main(void)\n{\n\tRUN(c);\n}\n", "a.md": "`b.c::c`"},
    ),
    (documents.make_targets_exist, {"Makefile": "", "README.md": "to make sense"}),
    (
        documents.scripts_exist,
        {"pyproject.toml": PROJECT, "README.md": "`passtpy-pasta`"},
    ),
]

BAD: list[tuple[Rule, Tree, str]] = [
    (
        layers.python_layers,
        {"passtpy/addr.py": "import passtpy.engine", "passtpy/engine.py": ""},
        "passtpy.addr: imports engine from above",
    ),
    (
        layers.python_layers,
        {
            "passtpy/policy/decide.py": "def f():\n    from ..net import tap",
            "passtpy/net/tap.py": "",
        },
        "passtpy.policy.decide: imports net.tap from above",
    ),
    (
        layers.python_layers,
        {"passtpy/wire/__init__.py": "from .. import engine", "passtpy/engine.py": ""},
        "passtpy.wire: imports engine from above",
    ),
    (layers.python_layers, {"passtpy/util.py": ""}, "passtpy.util: stands on no floor"),
    (
        layers.python_layers,
        {
            "passtpy/net/a.py": "from passtpy.net.b import x",
            "passtpy/net/b.py": "from passtpy.net import a",
        },
        "cycle: ",
    ),
    (layers.net_rooms, {"passtpy/net/tap.py": ""}, "passtpy.net.tap: is in no room"),
    (
        layers.net_rooms,
        {
            "passtpy/net/kernel/a.py": "from passtpy.net.host.b import x",
            "passtpy/net/host/b.py": "",
        },
        "passtpy.net.kernel.a: imports net.host.b from a later room",
    ),
    (
        layers.strangers,
        {
            "passtpy/services/facts.py": "from passtpy.policy.dns import dns_maps",
            "passtpy/policy/dns.py": "",
        },
        "passtpy.services.facts: imports policy.dns, of a room it is not to know",
    ),
    (
        layers.native_door,
        {"passtpy/flow.py": "from passtpy._native import PIF"},
        "passtpy.flow: imports _native",
    ),
    (
        layers.c_layers,
        {"native/table/flow.c": '#include "proto/tcp.h"'},
        "native/table/flow.c: includes proto/tcp.h from above",
    ),
    (
        layers.c_layers,
        {"native/table/flow.c": '#include "flow.h"'},
        'native/table/flow.c: "flow.h" names no floor',
    ),
    (layers.c_layers, {"native/misc/x.c": ""}, "native/misc/x.c: stands on no floor"),
    (
        layers.c_layers,
        {
            "native/link/a.h": '#include "link/b.h"',
            "native/link/b.h": '#include "link/a.h"',
        },
        "cycle: ",
    ),
    (
        rules.python_h_only_in_py,
        {"native/core/turn.c": "#include <Python.h>"},
        "native/core/turn.c: includes Python.h",
    ),
    (
        rules.one_door_into_epoll,
        {"native/proto/tcp.c": EPOLL.replace("flow_epoll_set", "tcp_open")},
        "native/proto/tcp.c: epoll_ctl() in tcp_open(), not in table/epoll.c",
    ),
    (
        sys_calls.calls_go_through_the_table,
        {**SYS, "native/proto/x.c": "int f(int fd)\n{\n\treturn recv(fd);\n}\n"},
        "native/proto/x.c: recv() in f(), not sys_recv()",
    ),
    (
        rules.flows_written_in_table,
        {"native/proto/tcp.c": WRITE},
        "native/proto/tcp.c: closed() writes the common part of a flow",
    ),
    (
        rules.flows_written_in_table,
        {"native/proto/tcp.c": CAST},
        "native/proto/tcp.c: f() writes the common part of a flow",
    ),
    (
        layers.nothing_runs_what_it_reads,
        {"passtpy/net/a.py": "def f():\n    from multiprocessing import Pipe"},
        "passtpy.net.a: imports multiprocessing.Pipe",
    ),
    (
        rules.bytes_are_lent_by_scope,
        {"native/proto/udp.c": FLUSH},
        "native/proto/udp.c: tap_flush() in f()",
    ),
    (
        rules.bytes_are_lent_by_scope,
        {"native/core/turn.c": FLUSH.replace("flush", "batch_begin")},
        "native/core/turn.c: tap_batch_begin() in f()",
    ),
    (
        rules.backends_known_in_link,
        {**BACKENDS, "native/core/a.c": "void f(void)\n{\n\ttap_rings_init();\n}\n"},
        "native/core/a.c: tap_rings_init in f(), not in link/",
    ),
    (
        rules.backends_known_in_link,
        {**BACKENDS, "native/py/a.c": "int f(int b)\n{\n\treturn b == TAP_TUN;\n}\n"},
        "native/py/a.c: TAP_TUN in f(), not in link/",
    ),
    (
        rules.backends_known_in_link,
        {**BACKENDS, "native/core/a.c": "int f(void)\n{\n\treturn t.ops == &x;\n}\n"},
        "native/core/a.c: ops == in f(), not in link/",
    ),
    (
        rules.backends_known_in_link,
        {**BACKENDS, "native/core/a.c": "void f(void)\n{\n\tc->tap.more = 0;\n}\n"},
        "native/core/a.c: tap.more = in f(), not in link/",
    ),
    (
        rules.gil_released_once,
        {"native/py/a.c": GIL, "native/py/b.c": GIL},
        "native: Py_BEGIN_ALLOW_THREADS stands in 2 places: py/a.c:turn(), ",
    ),
    (
        rules.gil_released_once,
        {"native/py/a.c": "/* Py_BEGIN_ALLOW_THREADS */"},
        "native: Py_BEGIN_ALLOW_THREADS stands in 0 places: nowhere",
    ),
    (
        rules.files_are_short,
        {"native/proto/tcp.c": "\n" * 601},
        "native/proto/tcp.c: 601 lines, more than 600",
    ),
    (rules.licence_is_named, {"native/base/x.h": "int x;"}, "native/base/x.h: no SPDX"),
    (rules.licence_is_named, {"Makefile": "all:"}, "Makefile: no SPDX line"),
    (
        documents.links_lead_somewhere,
        {"docs/a.md": "see [b](b.md#part)"},
        "docs/a.md: no file at b.md",
    ),
    (
        documents.make_targets_exist,
        {"Makefile": "all:\n", "README.md": "```\n$ make everything\n```"},
        "README.md: no target for make everything",
    ),
    (
        documents.comparisons_are_measured,
        {
            "docs/performance.md": "| x | 1.5 |\n",
            "docs/comparison.md": "## Measured\n| x | 1.5 | 1.6 |\n",
        },
        "docs/comparison.md: 1.6 is no result",
    ),
    (
        documents.scripts_exist,
        {"pyproject.toml": PROJECT, "README.md": "`passtpy-splice`"},
        "README.md: no console script passtpy-splice",
    ),
    (
        documents.tests_exist,
        {"tests/a/test_b.py": "def test_c() -> None: ...", "a.md": "`a/test_b.py::c`"},
        "a.md: no test a/test_b.py::c",
    ),
    (
        documents.tests_exist,
        {"tests/test_b.c": "static void c(void)\n{\n}\n", "a.md": "`test_b.c::c`"},
        "a.md: no test test_b.c::c",
    ),
    (
        documents.laws_name_rules,
        {
            "tests/house/a.py": "\n\ndef x(root: Path) -> None: ...",
            "docs/laws.md": "house: `x` (so), `y`",
        },
        "docs/laws.md: no rule y",
    ),
    (
        documents.faults_have_tests,
        {"docs/faults.md": "| A |\n|---|\n| `t.py::test_x` |\n| y |\n"},
        "docs/faults.md: no test for: | y |",
    ),
]


def _plant(root: Path, tree: Tree) -> Path:
    for name, text in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def _name(value: object) -> str | None:
    return getattr(value, "__name__", None)


@pytest.mark.parametrize(("rule", "tree"), GOOD, ids=_name)
def test_good_tree_passes(tmp_path: Path, rule: Rule, tree: Tree) -> None:
    assert rule(_plant(tmp_path, tree)) == []


@pytest.mark.parametrize(("rule", "tree", "complaint"), BAD, ids=_name)
def test_bad_tree_is_named(
    tmp_path: Path, rule: Rule, tree: Tree, complaint: str
) -> None:
    found = rule(_plant(tmp_path, tree))
    assert len(found) == 1
    assert found[0].startswith(complaint)
