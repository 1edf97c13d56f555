/* SPDX-License-Identifier: GPL-2.0-or-later */
/* admit.c - Who may ask Python for something, and how often */

#include "table/admit.h"

#include <netinet/in.h>
#include <string.h>
#include <sys/resource.h>

#include "base/clock.h"
#include "base/macros.h"
#include "table/idle.h"

#define RATE(per_second, at_once)                    \
	{                                            \
		NSEC_PER_SEC / (per_second), at_once \
	}

#define DESCRIPTORS_KEPT 256 /* listeners, Python's own, sockets to be closed */
#define SOCKETS_MAX	 (SIDES * FLOW_TABLE_MAX) /* no flow has more */
#define NEAR(room)	 ((room) - (room) / 16)

static const struct rate guest_rate = RATE(NEW_FLOW_RATE, NEW_FLOW_BURST);
static const struct rate flooded_rate = RATE(FLOODED_RATE, FLOODED_BURST);

/* A connection has been through a handshake, which is hard to forge */
static const struct rate tcp_listener_rate = RATE(20000, 4096);
static const struct rate tcp_remote_rate = RATE(10000, 2048);
/* A datagram comes from anywhere: at this rate misses take a tenth of a core */
static const struct rate udp_listener_rate = RATE(2000, 512);
static const struct rate udp_remote_rate = RATE(1000, 256);

/* More than any guest that is well asks for; an answer costs some 50 us,
 * a name that is known 15 */
static const struct rate punt_rates[] = {
	[PUNT_NONE] = RATE(1, 1),	[PUNT_ARP] = RATE(500, 128),
	[PUNT_ND] = RATE(500, 128),	[PUNT_DHCP4] = RATE(100, 32),
	[PUNT_DHCP6] = RATE(100, 32),	[PUNT_MEMBERSHIP] = RATE(200, 64),
	[PUNT_GROUP] = RATE(2000, 256), [PUNT_DNS] = RATE(10000, 512),
};
_Static_assert(ARRAY_SIZE(punt_rates) == PUNT_NUM, "one rate each");

void admit_init(struct admit *a, uint32_t max_flows,
		const struct siphash_key *key)
{
	struct rlimit files;
	uint64_t sockets = SOCKETS_MAX;

	if (!getrlimit(RLIMIT_NOFILE, &files) &&
	    files.rlim_cur < sockets + DESCRIPTORS_KEPT)
		sockets = MAX(files.rlim_cur, 2 * DESCRIPTORS_KEPT) -
			  DESCRIPTORS_KEPT;
	*a = (struct admit){ .flows = max_flows,
			     .sockets = (uint32_t)sockets,
			     .outside = MIN(max_flows, (uint32_t)sockets) / 2,
			     .key = *key };
}

static bool has_token(uint64_t paid, const struct rate *r, uint64_t now)
{
	return MAX(paid, now) + r->price <= now + r->price * r->burst;
}

static bool take_token(uint64_t *paid, const struct rate *r, uint64_t now)
{
	if (!has_token(*paid, r, now))
		return false;
	*paid = MAX(*paid, now) + r->price;
	return true;
}

static struct flow *evict(struct flow_table *ft, struct flow *flow,
			  uint64_t now)
{
	if (!flow)
		return NULL;
	count(ft->cnt, CNT_FLOWS_EVICTED);
	flow_mark_closed(ft, flow, WHY_EVICTED, 0, now);
	return flow;
}

void admit_flooded(struct admit *a, uint64_t now)
{
	/* The lower rate holds from now on: it has not been spent ahead */
	a->guest = MIN(a->guest, now + flooded_rate.price * flooded_rate.burst);
	a->flooded_until = now + FLOODED_FOR;
}

struct flow *admit_evict(struct flow_table *ft, enum idle_kind kind,
			 enum flow_type type, uint64_t now)
{
	return evict(ft, idle_oldest(ft, kind, type, now), now);
}

/* make_room() - For a flow of the guest, where an idle one can make it */
static void make_room(const struct admit *a, struct flow_table *ft,
		      uint64_t now)
{
	bool no_sockets = ft->sockets >= NEAR(a->sockets);
	struct flow *flow, *sharing;

	if (!no_sockets && ft->active < NEAR(a->flows))
		return;
	flow = idle_oldest(ft, IDLE_GUEST, FLOW_TYPE_NONE, now);
	sharing = idle_oldest(ft, IDLE_SHARING, FLOW_TYPE_NONE, now);
	if (!flow ||
	    (sharing && !no_sockets && sharing->f.last_use < flow->f.last_use))
		flow = sharing;
	(void)evict(ft, flow, now);
}

bool admit_guest(struct admit *a, struct flow_table *ft, uint64_t now)
{
	const struct rate *rate = admit_is_flooded(a, now) ? &flooded_rate :
							     &guest_rate;

	if (!take_token(&a->guest, rate, now)) {
		count(ft->cnt, CNT_DROP_RATE);
		return false;
	}
	make_room(a, ft, now);
	return true;
}

bool admit_punt(struct admit *a, enum punt_kind kind, uint64_t now)
{
	return take_token(&a->punt[kind], &punt_rates[kind], now);
}

static const struct rate *listener_rate(const struct listener *l)
{
	return l->ipproto == IPPROTO_TCP ? &tcp_listener_rate :
					   &udp_listener_rate;
}

bool admit_is_open(const struct listener *l, uint64_t now)
{
	return l->pif != PIF_HOST || has_token(l->paid, listener_rate(l), now);
}

bool admit_is_calm(const struct listener *l, uint64_t now)
{
	const struct rate *r = listener_rate(l);

	return l->paid <= now + r->price * r->burst / 4;
}

/* remote_bucket() - A host, or the /64 that it can choose addresses from */
static uint64_t *remote_bucket(struct admit *a, const union inany *remote)
{
	size_t len = inany_is_v4(remote) ? sizeof(*remote) : 8;

	return &a->remote[siphash(&a->key, remote, len) % ADMIT_REMOTES];
}

bool admit_outside(struct admit *a, struct flow_table *ft, struct listener *l,
		   const union inany *remote, uint64_t now)
{
	const struct rate *rate = l->ipproto == IPPROTO_TCP ? &tcp_remote_rate :
							      &udp_remote_rate;

	if (l->pif != PIF_HOST) /* the namespace's: the guest's own */
		return admit_guest(a, ft, now);
	if (ft->outside >= NEAR(a->outside))
		(void)admit_evict(ft, IDLE_OUTSIDE, FLOW_TYPE_NONE, now);
	if (ft->outside >= a->outside) {
		count(ft->cnt, CNT_DROP_OUTSIDE);
		return false;
	}
	if (!take_token(remote_bucket(a, remote), rate, now) ||
	    !take_token(&l->paid, listener_rate(l), now)) {
		count(ft->cnt, CNT_DROP_RATE_OUTSIDE);
		return false;
	}
	return true;
}
