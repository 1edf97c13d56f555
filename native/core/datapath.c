/* SPDX-License-Identifier: GPL-2.0-or-later */
/* datapath.c - Creating and destroying a datapath */

#include "core/datapath.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/sys.h"
#include "core/gate.h"
#include "core/handlers.h"
#include "link/tap_faults.h"

#define LOG_RING 4096 /* events between two visits of Python */

/* set_tap() - What the configuration says about the tap, and its backend */
static int set_tap(struct ctx *c, const struct datapath_config *g,
		   const struct siphash_key *key)
{
	static const uint8_t none[ETH_ALEN_];
	const struct tap_env env = {
		.cnt = &c->cnt,
		.epoll = &c->epoll,
		.log = &c->log,
		.now = &c->now,
		.vnet = g->vnet,
		.offloads = g->offloads,
	};
	struct tap *t = &c->tap;

	if (g->mtu > g->backend->mtu_max)
		return -ERANGE;
	t->mtu = g->mtu;
	t->queue_frames = g->queue_frames;
	/* Not where another run would start (RFC 7739) */
	t->frag_id = (uint32_t)siphash(key, &c->now, sizeof(c->now));
	memcpy(t->our_mac, g->our_mac, ETH_ALEN_);
	if (memcmp(g->guest_mac, none, ETH_ALEN_))
		memcpy(t->guest_mac, g->guest_mac, ETH_ALEN_);
	else
		memset(t->guest_mac, 0xff, ETH_ALEN_);
	return tap_init(t, g->backend, &env);
}

/* set_faults() - Faults asked for by the environment, for whole-daemon tests */
static int set_faults(struct tap *t)
{
#ifdef PASSTPY_FAULTS
	const char *text = getenv("PASSTPY_FAULTS");

	return text ? tap_faults_parse(t, text) : 0;
#else
	(void)t;
	return 0;
#endif
}

/* set_buffers() - Scratch for handlers, touched on demand */
static int set_buffers(struct datapath *dp)
{
	void *bufs = sys_mmap(NULL, (size_t)CTX_BUFS * CTX_BUF_SIZE,
			      PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (bufs == MAP_FAILED)
		return -ENOMEM;
	dp->ctx.bufs = bufs;
	dp->punts.buf = sys_malloc(BORDER_PUNT_BUF);
	return dp->punts.buf ? 0 : -ENOMEM;
}

/* set_epoll() - The epoll instance and, unless time is virtual, the timer */
static int set_epoll(struct ctx *c, bool virtual_time, int *ret_timer_fd)
{
	int err;

	c->epoll.fd[EPOLL_MAIN] = sys_epoll_create1(EPOLL_CLOEXEC);
	if (c->epoll.fd[EPOLL_MAIN] < 0)
		return -errno;
	*ret_timer_fd = -1;
	if (virtual_time)
		return 0;
	*ret_timer_fd =
		sys_timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	if (*ret_timer_fd < 0)
		return -errno;
	err = epoll_add_fixed(&c->epoll, EPOLL_TIMER, *ret_timer_fd, 0,
			      EPOLLIN);
	if (err)
		close(*ret_timer_fd);
	return err;
}

/* set_tables() - Flow table, timers, log, stage, listeners */
static int set_tables(struct ctx *c, const struct datapath_config *g,
		      const struct siphash_key *key)
{
	int timer_fd = -1;
	int err;

	err = set_epoll(c, g->virtual_time, &timer_fd);
	if (err)
		return err;
	timers_init(&c->timers, timer_fd, c->now);
	err = flow_log_init(&c->log, LOG_RING, &c->cnt);
	if (err)
		return err;
	err = flow_table_init(&c->ft, g->max_flows, key, &c->log, &c->cnt,
			      &c->timers);
	if (err)
		return err;
	admit_init(&c->admit, g->max_flows, key);
	err = stage_init(&c->stage, key, &c->cnt);
	if (err)
		return err;
	err = crossings_init(&c->crossings);
	if (err)
		return err;
	return listeners_init(&c->listeners);
}

static int datapath_init(struct datapath *dp, const struct datapath_config *g)
{
	struct ctx *c = &dp->ctx;
	struct siphash_key key;
	int err;

	memcpy(key.k, g->secret, sizeof(key.k));
	if (!g->virtual_time)
		c->now = clock_now();
	err = set_tables(c, g, &key);
	if (err)
		return err;
	err = set_buffers(dp);
	if (err)
		return err;
	flood_init(&dp->flood);
	err = reassembly_init(&dp->reassembly);
	if (err)
		return err;
	err = set_tap(c, g, &key);
	if (err)
		return err;
	err = set_faults(&c->tap);
	if (err)
		return err;
	err = handlers_init(c, g->secret + sizeof(key.k));
	if (err)
		return err;
	if (c->tap.ops->room)
		err = gate_init(dp);
	if (err || (g->tap_fd < 0 && c->tap.ops->detach))
		return err;
	err = tap_attach(&c->tap, g->tap_fd);
	if (!err)
		gate_sync(dp);
	return err;
}

int datapath_create(struct datapath **ret_dp, const struct datapath_config *g)
{
	struct datapath *dp = sys_calloc(1, sizeof(*dp));
	int err;

	if (!dp)
		return -ENOMEM;
	for (unsigned i = 0; i < EPOLL_SETS; i++)
		dp->ctx.epoll.fd[i] = -1;
	dp->ctx.timers.fd = -1;
	err = datapath_init(dp, g);
	if (err) {
		datapath_destroy(dp);
		return err;
	}
	*ret_dp = dp;
	return 0;
}

/* close_flows() - Let every handler release what its flows hold */
static void close_flows(struct ctx *c)
{
	for (uint32_t i = 0; i < c->ft.top; i++) {
		struct flow *flow = &c->ft.flows[i];

		if (flow->f.state == FLOW_ACTIVE && !flow->f.closed)
			flow_mark_closed(&c->ft, flow, WHY_SHUTDOWN, 0, c->now);
	}
	flow_defer_scan(&c->ft, handlers_defer, c, c->now);
}

void datapath_destroy(struct datapath *dp)
{
	struct ctx *c = &dp->ctx;

	if (c->ft.flows)
		close_flows(c);
	ctx_close_dead(c, CTX_DEAD_MAX);
	handlers_fini(c);
	listeners_free(&c->listeners);
	stage_free(&c->stage);
	crossings_free(&c->crossings);
	flow_table_free(&c->ft);
	flow_log_free(&c->log);
	tap_free(&c->tap);
	reassembly_free(&dp->reassembly);
	free(dp->punts.buf);
	if (c->bufs)
		munmap(c->bufs, (size_t)CTX_BUFS * CTX_BUF_SIZE);
	if (c->timers.fd >= 0)
		close(c->timers.fd);
	for (unsigned i = 0; i < EPOLL_SETS; i++)
		if (c->epoll.fd[i] >= 0)
			close(c->epoll.fd[i]);
	free(dp);
}
