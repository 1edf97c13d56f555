/* SPDX-License-Identifier: GPL-2.0-or-later */
/* dispatch.c - From frames to the handlers of their flows
 *
 * One batch of the tap at a time: check, look up, group into bursts, hand out.
 * Handlers run after the whole batch was sorted, so that each flow costs one
 * call and one acknowledgement however its frames were mixed with others.
 */

#include "core/dispatch.h"

#include <assert.h>
#include <netinet/in.h>
#include <string.h>

#include "core/handlers.h"

/* Reads of the tap in a row that did not empty it: frames stand in line there */
#define UNDRAINED 8
/* Reads since there were frames of two flows in one: more than the longest line of
 * a tap has, where the others' frames may be far apart */
#define MIXED 256

static const unsigned sieve_of_punt[PUNT_NUM] = {
	[PUNT_NONE] = FLOOD_OTHER,  [PUNT_ARP] = SIEVE_ARP,
	[PUNT_ND] = SIEVE_ND,	    [PUNT_DHCP4] = SIEVE_DHCP4,
	[PUNT_DHCP6] = SIEVE_DHCP6, [PUNT_MEMBERSHIP] = SIEVE_MEMBERSHIP,
	[PUNT_GROUP] = FLOOD_OTHER, [PUNT_DNS] = FLOOD_OTHER,
};

static bool sidx_equal(flow_sidx_t a, flow_sidx_t b)
{
	return a.flow == b.flow && a.side == b.side;
}

static void burst_add(struct burst *b, struct frame *frame)
{
	frame->next = NULL;
	if (b->tail)
		b->tail->next = frame;
	else
		b->head = frame;
	b->tail = frame;
	b->count++;
}

/* batch_add() - Put a frame in the burst of its flow; the newest burst first,
 * because frames of a flow tend to come in a row */
static void batch_add(struct batch *b, flow_sidx_t sidx, struct frame *frame)
{
	for (unsigned i = b->bursts; i-- > 0;) {
		if (sidx_equal(b->sidx[i], sidx)) {
			burst_add(&b->burst[i], frame);
			return;
		}
	}
	b->sidx[b->bursts] = sidx;
	b->burst[b->bursts] = (struct burst){ 0 };
	burst_add(&b->burst[b->bursts++], frame);
}

/* burst_deliver() - Hand a burst to its flow
 * Return: false if the handler left some of it for the next round */
static bool burst_deliver(struct ctx *c, flow_sidx_t sidx, struct burst *b)
{
	struct flow *flow = flow_at(&c->ft, sidx);

	if (!flow) /* a burst before this one may have closed it */
		return true;
	handlers[flow->f.type]->from_tap(c, flow, b);
	if (!b->rest)
		return true;
	b->head = b->rest;
	b->rest = NULL;
	b->count = 0;
	for (const struct frame *f = b->head; f; f = f->next)
		b->count++;
	return false;
}

/* learn_guest_mac() - The guest is whoever sends frames to us */
static void learn_guest_mac(struct tap *t, const uint8_t *eth)
{
	static const uint8_t none[ETH_ALEN_];
	const uint8_t *src = eth + ETH_ALEN_;

	if (src[0] & 1 || !memcmp(src, none, ETH_ALEN_))
		return;
	if (memcmp(t->guest_mac, src, ETH_ALEN_))
		memcpy(t->guest_mac, src, ETH_ALEN_);
}

static void punt(struct datapath *dp, const struct frame *frame,
		 enum punt_kind kind)
{
	struct border_punts *p = &dp->punts;

	if (p->count == BORDER_PUNTS ||
	    p->fill + frame->len > BORDER_PUNT_BUF ||
	    !admit_punt(&dp->ctx.admit, kind, dp->ctx.now)) {
		count(&dp->ctx.cnt, CNT_DROP_PUNT_LIMIT);
		if (sieve_of_punt[kind] != FLOOD_OTHER)
			flood_refused(dp, sieve_of_punt[kind]);
		return;
	}
	memcpy(p->buf + p->fill, frame->eth, frame->len);
	p->kind[p->count] = (uint8_t)kind;
	p->off[p->count] = p->fill;
	p->len[p->count++] = frame->len;
	p->fill += frame->len;
	count(&dp->ctx.cnt, CNT_PUNT);
}

/* miss_join() - A further frame of a flow whose verdict is pending */
static void miss_join(struct ctx *c, struct miss *m, const struct handler *h,
		      const struct frame *frame, const struct vnet_hdr *vh)
{
	if (h->repeats)
		stage_unpark(m); /* with other numbers, it is a new attempt */
	if (stage_park(&c->stage, m, frame->eth, frame->len, vh)) {
		count(&c->cnt, CNT_DROP_STAGE_FULL);
		return;
	}
	count(&c->cnt, CNT_MISS_JOINED);
}

static void miss_new(struct datapath *dp, const struct frame *frame,
		     const struct vnet_hdr *vh)
{
	struct ctx *c = &dp->ctx;
	struct miss *m = NULL;

	if (admit_guest(&c->admit, &c->ft, c->now))
		m = stage_add(&c->stage, frame->ipproto, PIF_TAP, &frame->key,
			      -1, -1, c->now);
	if (!m) {
		flood_refused(dp, frame->ipproto == IPPROTO_TCP ? SIEVE_SYN :
								  FLOOD_OTHER);
		return;
	}
	if (stage_park(&c->stage, m, frame->eth, frame->len, vh)) {
		count(&c->cnt, CNT_DROP_STAGE_FULL);
		stage_release(&c->stage, m);
		return;
	}
	count(&c->cnt, CNT_MISS);
}

static void dispatch_unknown(struct datapath *dp, const struct frame *frame,
			     const struct vnet_hdr *vh)
{
	struct ctx *c = &dp->ctx;
	const struct handler *h =
		handlers[handlers_type(frame->ipproto, false)];
	struct miss *m;

	if (h->stray && h->stray(c, frame))
		return;
	m = stage_find(&c->stage, frame->ipproto, PIF_TAP, &frame->key);
	if (m)
		miss_join(c, m, h, frame, vh);
	else
		miss_new(dp, frame, vh);
}

/* extract() - Check a frame; a fragment is kept until its datagram is whole */
static enum extract extract(struct datapath *dp, struct frame *frame,
			    const struct tap_rx *rx)
{
	struct ctx *c = &dp->ctx;
	enum extract what;
	uint8_t *eth;
	uint32_t len;

	what = flow_extract(frame, rx->data, rx->len, &rx->vh, &c->cnt);
	if (what != EXTRACT_FRAGMENT)
		return what;
	if (!reassembly_add(&dp->reassembly, &c->tap, frame, c->now, &eth,
			    &len))
		return EXTRACT_DROP;
	what = flow_extract(frame, eth, len, NULL, &c->cnt);
	/* Fragments within fragments; neighbour discovery (RFC 6980) */
	if (what == EXTRACT_FRAGMENT || what == EXTRACT_GROUP ||
	    (what == EXTRACT_PUNT && frame->punt == PUNT_ND)) {
		count(&c->cnt, CNT_DROP_FRAGMENT);
		return EXTRACT_DROP;
	}
	return what;
}

/* is_for_group() - A datagram for everybody who listens; no super-segment */
static bool is_for_group(const struct frame *frame)
{
	return frame->ipproto == IPPROTO_UDP &&
	       frame->gso_type == VNET_GSO_NONE &&
	       !inany_is_unicast(&frame->key.oaddr);
}

/* is_for_dns() - A question for a server; no super-segment */
static bool is_for_dns(const struct frame *frame)
{
	return frame->ipproto == IPPROTO_UDP && frame->key.oport == PORT_DNS &&
	       frame->gso_type == VNET_GSO_NONE &&
	       inany_is_unicast(&frame->key.oaddr);
}

/* refusal() - The guest says that nobody has a port: of a flow that began outside
 * its handler may make something of it */
static void refusal(struct ctx *c, const struct frame *frame)
{
	flow_sidx_t sidx =
		flow_lookup(&c->ft, frame->ipproto, PIF_TAP, &frame->key);
	struct flow *flow = flow_at(&c->ft, sidx);

	if (flow && sidx.side == TGTSIDE && handlers[flow->f.type]->refused)
		handlers[flow->f.type]->refused(c, flow);
	else
		count(&c->cnt, CNT_DROP_ICMP_TYPE);
}

static void dispatch_frame(struct datapath *dp, struct batch *b,
			   struct frame *frame, const struct tap_rx *rx)
{
	struct ctx *c = &dp->ctx;
	flow_sidx_t sidx;

	switch (extract(dp, frame, rx)) {
	case EXTRACT_NUM:
	case EXTRACT_DROP:
	case EXTRACT_FRAGMENT: /* kept */
		return;
	case EXTRACT_GROUP:
		if (!dp->lift_groups) {
			count(&c->cnt, CNT_DROP_GROUP);
			return;
		}
		/* fall through */
	case EXTRACT_PUNT:
		learn_guest_mac(&c->tap, frame->eth);
		punt(dp, frame, frame->punt);
		return;
	case EXTRACT_REFUSAL:
		refusal(c, frame);
		return;
	case EXTRACT_FLOW:
		break;
	}
	if (dp->lift_groups && is_for_group(frame)) {
		punt(dp, frame, PUNT_GROUP);
		return;
	}
	learn_guest_mac(&c->tap, frame->eth);
	if (dp->lift_dns && is_for_dns(frame)) {
		punt(dp, frame, PUNT_DNS);
		return;
	}
	sidx = flow_lookup(&c->ft, frame->ipproto, PIF_TAP, &frame->key);
	if (flow_sidx_is_none(sidx))
		dispatch_unknown(dp, frame, &rx->vh);
	else
		batch_add(b, sidx, frame);
}

/* strays_deliver() - Frames of a flow that has ended: as the SYN of a client
 * that uses its port again, they may start another */
static void strays_deliver(struct datapath *dp, const struct burst *b)
{
	const struct tap_rx *rx = dp->ctx.tap.rx;

	for (const struct frame *f = b->head; f; f = f->next)
		dispatch_unknown(dp, f, &rx[f - dp->batch.frame].vh);
}

/* burst_put_back() - What is left of the burst that was served last goes to the
 * end of the line, which is a ring */
static void burst_put_back(struct batch *b, unsigned i)
{
	unsigned end = (b->next + b->left++) % TAP_BATCH;

	b->sidx[end] = b->sidx[i];
	b->burst[end] = b->burst[i];
}

/* is_in_the_way() - Do others wait in the tap while this flow is served, and may
 * what it sends be lost? The tap is one line for all: nobody else gets through
 * before the frames of a batch are gone */
static bool is_in_the_way(const struct datapath *dp, const struct flow *flow)
{
	return dp->undrained >= UNDRAINED && dp->mixed &&
	       handlers[flow->f.type]->lossy;
}

/* burst_serve() - Hand out a burst, or as much of it as its flow may send now */
static void burst_serve(struct datapath *dp, unsigned i)
{
	struct batch *b = &dp->batch;
	struct ctx *c = &dp->ctx;
	const struct flow *flow = flow_at(&c->ft, b->sidx[i]);
	bool in_the_way;

	if (!flow) {
		strays_deliver(dp, &b->burst[i]);
		return;
	}
	in_the_way = is_in_the_way(dp, flow);
	if (in_the_way)
		budget_cap(&c->budget, WORK_SHARE_LOSSY);
	if (burst_deliver(c, b->sidx[i], &b->burst[i]))
		return;
	if (in_the_way)
		count_n(&c->cnt, CNT_DROP_OVERLOAD, b->burst[i].count);
	else
		burst_put_back(b, i);
}

void dispatch_rest(struct datapath *dp)
{
	struct batch *b = &dp->batch;
	struct ctx *c = &dp->ctx;
	unsigned n = b->left;

	budget_divide(&c->budget, n);
	for (; n && budget_next(&c->budget); n--) {
		unsigned i = b->next;

		b->next = (i + 1) % TAP_BATCH;
		b->left--;
		burst_serve(dp, i);
	}
	if (!dispatch_has_rest(dp))
		reassembly_release(&dp->reassembly);
}

void dispatch_forget(struct datapath *dp)
{
	dp->batch.left = 0;
	reassembly_release(&dp->reassembly);
}

int dispatch_tap(struct datapath *dp)
{
	struct tap *t = &dp->ctx.tap;
	struct batch *b = &dp->batch;
	uint64_t bytes = 0;
	int n;

	assert(!dispatch_has_rest(dp));
	n = tap_read(t);
	dp->undrained = n > 0 && !t->drained ? dp->undrained + 1 : 0;
	b->next = b->bursts = 0;
	for (int i = 0; i < n; i++) {
		bytes += t->rx[i].len;
		dispatch_frame(dp, b, &b->frame[i], &t->rx[i]);
	}
	budget_spend(&dp->ctx.budget,
		     (uint64_t)MAX(n, 0) * (WORK_CALL + WORK_FRAME) +
			     work_bytes(bytes));
	b->left = b->bursts;
	if (b->bursts > 1)
		dp->mixed = MIXED;
	else if (dp->mixed)
		dp->mixed--;
	dispatch_rest(dp);
	return n;
}

void dispatch_replay(struct ctx *c, struct flow *flow, const struct miss *m)
{
	struct frame frame[TAP_BATCH];
	flow_sidx_t sidx = flow_sidx(&c->ft, flow, INISIDE);
	struct stage_item *item = NULL;
	uint32_t pos = 0;

	do {
		struct burst b = { 0 };

		while (b.count < TAP_BATCH &&
		       (item = stage_next(&c->stage, m, &pos))) {
			struct frame *f = &frame[b.count];

			if (flow_extract(f, stage_item_data(item), item->len,
					 &item->vh, &c->cnt) == EXTRACT_FLOW)
				burst_add(&b, f);
		}
		/* STAGE_DATAGRAMS at most: all of it goes now */
		while (b.count && !burst_deliver(c, sidx, &b))
			;
	} while (item);
}
