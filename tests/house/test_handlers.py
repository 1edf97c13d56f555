# SPDX-License-Identifier: GPL-2.0-or-later
"""Adding a handler touches what docs/handlers.md says, and nothing else.

The steps of the page are taken in a copy of the tree, for a protocol that nobody has.
The copy must compile as ours does, make the handler's share and find its type; and a
guest that speaks the protocol is heard, asked about, opened a flow for, and answered.
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

# Ports as in any transport protocol, and a header of 12 bytes
HEADER = """
#define X_HLEN 12

bool x_defer(struct ctx *c, struct flow *flow);
"""
CODE = """
#include "proto/x.h"

#include <arpa/inet.h>
#include <string.h>
#include <unistd.h>

#include "base/sys.h"
#include "link/frame.h"
#include "proto/dgram.h"

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

/* Its peers on the host speak it over UDP */
static int
x_open(struct ctx *c, struct flow *flow, const struct verdict *v, struct miss *m)
{
	bool v4 = inany_is_v4(&v->side.eaddr);
	int fd = dgram_socket(c, flow, IPPROTO_UDP, v4), err;

	(void)m;
	if (fd < 0)
		return fd;
	err = dgram_connect(c, fd, &v->side.eaddr, v->side.eport);
	if (!err)
		err = flow_adopt(&c->epoll, &c->ft, flow, TGTSIDE, fd, c->now);
	if (err)
		close(fd);
	return err;
}

static void x_from_tap(struct ctx *c, struct flow *flow, struct burst *b)
{
	for (const struct frame *f = b->head; f; f = f->next) {
		const uint8_t *text = f->eth + f->payload;

		(void)sys_send(flow->f.fd[TGTSIDE], text, f->payload_len, 0);
		flow_touch(flow, INISIDE, 1, f->payload_len, c->now);
	}
}

static void
x_from_sock(struct ctx *c, struct flow *flow, unsigned sidei, uint32_t events)
{
	const struct flowside *guest = &flow->f.side[INISIDE];
	uint16_t head[X_HLEN / 2] = { htons(guest->oport), htons(guest->eport) };
	struct frame_out f;
	const union inany *src = &guest->oaddr, *dst = &guest->eaddr;
	uint8_t text[64], *l4;
	ssize_t n;

	(void)events;
	n = sys_recv(flow->f.fd[sidei], text, sizeof(text), 0);
	if (n < 0)
		return;
	l4 = frame_ip(&f, &c->tap, src, dst, IPPROTO_SCTP, X_HLEN, (uint32_t)n, 0);
	memcpy(l4, head, X_HLEN);
	(void)tap_send(&c->tap, &f, text, (uint32_t)n);
}

bool x_defer(struct ctx *c, struct flow *flow)
{
	int fd = flow_take_fd(&c->ft, flow, TGTSIDE);

	(void)c;
	if (fd >= 0)
		close(fd);
	return true;
}

const struct handler x_handler = {
	.ipproto = IPPROTO_SCTP,
	.init = init,
	.fini = fini,
	.open = x_open,
	.interest = dgram_interest,
	.from_tap = x_from_tap,
	.from_sock = x_from_sock,
	.defer = x_defer,
};
"""
KEY = """\
static bool extract_x(struct parse *p, struct frame *frame)
{
	const uint16_t *ports = at(p, 12);

	if (!ports)
		return drop(p, CNT_DROP_SHORT);
	frame->key.eport = ntohs(ports[0]);
	frame->key.oport = ntohs(ports[1]);
	set_payload(p, frame, 12);
	return true;
}
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
    "native/link/extract.c": [
        ("static bool extract_l4(", KEY),
        (
            "\treturn drop(p, CNT_DROP_IP_PROTO);",
            "\tif (ipproto == IPPROTO_SCTP)\n\t\treturn extract_x(p, frame);",
        ),
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
#include "proto/x.h"

static const struct vnet_hdr vh = { 0 };
static const struct guest_ends ends = { .host = 1, .sport = 4000, .dport = 7 };
static struct guest g;
static uint8_t frame[GUEST_FRAME];

static void say(const char *text)
{
	uint16_t head[X_HLEN / 2] = { htons(ends.sport), htons(ends.dport) };
	uint32_t len = (uint32_t)strlen(text);
	uint8_t *l4 = guest_ip(frame, &ends, IPPROTO_SCTP, X_HLEN + len);

	memcpy(l4, head, X_HLEN);
	memcpy(l4 + X_HLEN, text, len);
	CHECK(guest_send(&g, &vh, frame, ETH_HLEN_ + 20 + X_HLEN + len));
	guest_turn(&g);
}

static void types_are_found(void)
{
	CHECK(g.dp->ctx.shared[FLOW_X] == &g.dp->ctx);
	CHECK_EQ(handlers_type(IPPROTO_SCTP, false), FLOW_X);
	CHECK_EQ(handlers_type(IPPROTO_SCTP, true), FLOW_TYPE_NONE);
	CHECK_EQ(handlers_type(IPPROTO_TCP, false), FLOW_TCP);
}

static void bytes_go_both_ways(int peer, uint16_t port)
{
	struct sockaddr_in6 from;
	struct sockaddr *sa = (struct sockaddr *)&from;
	socklen_t len = sizeof(from);
	struct verdict v;
	struct miss *m;
	char text[8];
	struct vnet_hdr got;
	ssize_t n;

	say("one");
	m = guest_next_miss(&g);
	CHECK(m);
	CHECK_EQ(m->ipproto, IPPROTO_SCTP);
	CHECK_EQ(m->key.eport, ends.sport);
	CHECK_EQ(m->key.oport, ends.dport);
	v = guest_forward(m, port);
	CHECK_EQ(guest_answer(&g, m, &v), 0);
	CHECK_EQ(g.dp->ctx.ft.active, 1);
	n = recvfrom(peer, text, sizeof(text), 0, sa, &len);
	CHECK(n == 3 && !memcmp(text, "one", 3));

	say("two");
	CHECK(!guest_next_miss(&g));
	n = recv(peer, text, sizeof(text), 0);
	CHECK(n == 3 && !memcmp(text, "two", 3));

	CHECK_EQ(sendto(peer, "back", 4, 0, sa, len), 4);
	guest_turn(&g);
	n = guest_recv(&g, &got, frame, sizeof(frame));
	CHECK_EQ(n, ETH_HLEN_ + 20 + X_HLEN + 4);
	CHECK_EQ(frame[ETH_HLEN_ + 9], IPPROTO_SCTP);
	CHECK(!memcmp(frame + n - 4, "back", 4));
}

static void it_ends(void)
{
	struct border_flow r;
	uint32_t cursor = 0;

	CHECK_EQ(border_flow_page(&g.dp->ctx.ft, &cursor, &r, 1), 1);
	CHECK_EQ(r.type, FLOW_X);
	CHECK_EQ(datapath_close_flow(g.dp, r.flow_id, WHY_ASKED), 0);
	g.now += NSEC_PER_SEC;
	guest_turn(&g);
	CHECK_EQ(g.dp->ctx.ft.active, 0);
}

int main(void)
{
	uint16_t port;
	int peer = listen_loopback(SOCK_DGRAM, &port);

	guest_setup(&g);
	types_are_found();
	bytes_go_both_ways(peer, port);
	it_ends();
	guest_teardown(&g);
	close(peer);
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
    """Its steps up to the tests, and no file besides."""
    steps = PAGE.read_text().partition("## Adding one\n")[2].partition("\n5. ")[0]
    named = set(re.findall(r"`((?:native|passtpy)/[\w/]+\.\w+)`", steps))
    assert named == {*NEW, *ROWS}
