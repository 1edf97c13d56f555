# SPDX-License-Identifier: GPL-2.0-or-later
"""Adding a handler touches what docs/handlers.md says, and nothing else.

The steps of the page are taken in a copy of the tree, for a protocol that nobody has;
the copy must compile as ours does, make the handler's share and find its type.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "handlers.md"
FLAGS = (
    *("-O0", "-std=gnu11", "-D_GNU_SOURCE", "-DPASSTPY_DEBUG", "-fno-strict-aliasing"),
    *("-Wall", "-Wextra", "-Werror", "-Wmissing-prototypes"),
)
FLOORS = ("base", "table", "link", "proto", "core")

HEADER = "bool x_defer(struct ctx *c, struct flow *flow);\n"
CODE = """
#include "proto/x.h"

static int init(struct ctx *c, const uint8_t secret[16])
{
	(void)secret;
	c->shared[FLOW_X] = c;
	return 0;
}

static void fini(struct ctx *c)
{
	c->shared[FLOW_X] = NULL;
}

bool x_defer(struct ctx *c, struct flow *flow)
{
	(void)c;
	(void)flow;
	return true;
}

const struct handler x_handler = {
	.ipproto = IPPROTO_SCTP,
	.init = init,
	.fini = fini,
	.defer = x_defer,
};
"""
NEW = {
    "native/proto/x.h": f'#include "proto/handler.h"\n{HEADER}',
    "native/proto/x.c": CODE,
}
# In each file: before this text comes that line
ROWS = {
    "native/proto/handler.h": [
        ("#endif /* PASSTPY_PROTO_HANDLER_H", "extern const struct handler x_handler;")
    ],
    "native/table/flow.h": [("\tFLOW_NUM_TYPES\n", "\tFLOW_X,")],
    "native/table/flow.c": [
        ("};\nASSERT_ONE_EACH(flow_type_names,", '\t[FLOW_X] = "X",'),
        ("};\nASSERT_ONE_EACH(flow_type_proto,", "\t[FLOW_X] = IPPROTO_SCTP,"),
    ],
    "native/core/handlers.c": [
        ("};\n\nenum flow_type handlers_type(", "\t[FLOW_X] = &x_handler,")
    ],
    "passtpy/flow.py": [
        ("\n\nclass Action(", "    X = 7\n"),
        ("}\nSPLICED_TYPES", '    FlowType.X: "x",'),
        ("}\n\n\ndef _show_ours(", '    FlowType.X: "X exchange",'),
    ],
}
PROGRAM = """
#include "guest.h"
#include "core/handlers.h"

int main(void)
{
	static struct guest g;

	guest_setup(&g);
	CHECK(g.dp->ctx.shared[FLOW_X] == &g.dp->ctx);
	CHECK_EQ(handlers_type(IPPROTO_SCTP, false), FLOW_X);
	CHECK_EQ(handlers_type(IPPROTO_SCTP, true), FLOW_TYPE_NONE);
	CHECK_EQ(handlers_type(IPPROTO_TCP, false), FLOW_TCP);
	guest_teardown(&g);
	return 0;
}
"""
SCRIPT = """
from passtpy.control.filter import compile_program, Context
from passtpy.control.flows import _KINDS
from passtpy.flow import TYPE_NAMES, TYPE_TITLES, FlowType
assert set(_KINDS) == set(FlowType) == set(TYPE_NAMES)
assert set(TYPE_TITLES) == set(FlowType) - {FlowType.NONE}
compile_program("x", Context({}))
"""


def _copy(root: Path) -> Path:
    """Copy the sources, without what was built of them."""
    for folder in ("native", "passtpy"):
        built = shutil.ignore_patterns("__pycache__", "*.so")
        shutil.copytree(ROOT / folder, root / folder, ignore=built)
    return root


def _add_handler(root: Path) -> None:
    for name, text in NEW.items():
        (root / name).write_text(text)
    for name, rows in ROWS.items():
        path = root / name
        text = path.read_text()
        for before, line in rows:
            assert text.count(before) == 1, (name, before)
            text = text.replace(before, f"{line}\n{before}")
        path.write_text(text)


def _compile(root: Path) -> Path:
    """A program of the tree's C without Python, and of one that looks at it."""
    (root / "look.c").write_text(PROGRAM)
    sources = [path for floor in FLOORS for path in root.glob(f"native/{floor}/*.c")]
    includes = [f"-I{root}/native", f"-I{ROOT}/tests/native"]
    program = root / "look"
    done = subprocess.run(
        ["cc", *FLAGS, *includes, "-o", program, root / "look.c", *sources],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return program


def test_a_handler_is_added_as_the_page_says(tmp_path: Path) -> None:
    root = _copy(tmp_path)
    _add_handler(root)
    subprocess.run([_compile(root)], check=True)
    subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, "PYTHONPATH": str(root)},
        cwd=root,
        check=True,
    )


def test_the_page_names_every_file_that_was_touched() -> None:
    """Its steps up to the one for other protocols' packets, and no file besides."""
    steps = PAGE.read_text().partition("## Adding one\n")[2].partition("\n4. ")[0]
    named = set(re.findall(r"`((?:native|passtpy)/[\w/]+\.\w+)`", steps))
    assert named == {*NEW, *ROWS}
