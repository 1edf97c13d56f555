/* SPDX-License-Identifier: GPL-2.0-or-later */
/* capture.c - Captures that come and go while traffic flows */

#include "link/capture.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "base/clock.h"
#include "base/iov.h"
#include "base/macros.h"
#include "base/room.h"
#include "base/sys.h"
#include "base/wire.h"
#include "link/capture_packet.h"

/* How long a packet waits to be some flow's: sockets of a namespace are asked
 * for, and come a few milliseconds later */
#define PATIENCE (50 * NSEC_PER_MSEC)

/* How much one direction sends before the other acknowledges it, without any
 * bytes of its own that would: readers of captures wonder, otherwise */
#define ACK_EVERY (1U << 20)

/** struct record - What stands before a packet in the ring
 * @settled:	Its flow is known, and wanted
 * @from_guest:	For packet_key()
 */
struct record {
	struct packet_about about;
	bool settled;
	bool from_guest;
};

/** struct packet - A packet that captures are offered
 * @flow:	Its flow, or NULL
 * @subject:	What filters see; without a flow who sent it to whom
 * @is_ip:	@subject is filled
 */
struct packet {
	struct record record;
	const struct iovec *iov;
	unsigned n;
	const struct flow *flow;
	struct border_flow subject;
	bool is_ip;
};

static uint64_t wall_clock(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * NSEC_PER_SEC + (uint64_t)ts.tv_nsec;
}

static void ring_put(struct capture *cap, const void *data, size_t len)
{
	size_t at = cap->head & (CAPTURE_RING - 1);
	size_t first = MIN(len, CAPTURE_RING - at);

	memcpy(cap->ring + at, data, first);
	memcpy(cap->ring, (const uint8_t *)data + first, len - first);
	cap->head += len;
}

static void ring_get(const struct capture *cap, uint64_t from, void *to,
		     size_t len)
{
	size_t at = from & (CAPTURE_RING - 1);
	size_t first = MIN(len, CAPTURE_RING - at);

	memcpy(to, cap->ring + at, first);
	memcpy((uint8_t *)to + first, cap->ring, len - first);
}

static void ring_add(struct capture *cap, struct packet *p)
{
	struct record *r = &p->record;
	uint32_t left;

	r->about.captured = left = MIN(r->about.length, cap->snaplen);
	cap->seen[r->about.interface]++;
	if (sizeof(*r) + left > CAPTURE_RING - (cap->head - cap->tail)) {
		cap->dropped[r->about.interface]++;
		return;
	}
	ring_put(cap, r, sizeof(*r));
	for (unsigned i = 0; left; i++) {
		uint32_t len = MIN(left, (uint32_t)p->iov[i].iov_len);

		ring_put(cap, p->iov[i].iov_base, len);
		left -= len;
	}
}

/* is_wanted() - Does a capture take it? What is no flow's yet may become one's,
 * which is settled when it is taken out */
static bool is_wanted(const struct captures *set, const struct capture *cap,
		      const struct packet *p)
{
	if (!(cap->sides & 1U << p->record.about.interface))
		return false;
	if (!cap->n_steps)
		return true;
	return p->is_ip && (!p->flow || filter_takes(cap->steps, cap->n_steps,
						     &p->subject, *set->now));
}

static void offer(struct captures *set, struct packet *p)
{
	p->record.settled = p->flow || !p->is_ip;
	p->record.about.flow_id = FILTER_NO_FLOW;
	if (p->flow) {
		border_flow_fill(&p->subject, set->ft, p->flow);
		p->record.about.flow_id = p->subject.flow_id;
		p->record.about.rule = p->subject.rule;
	}
	for (unsigned i = 0; i < CAPTURES_MAX; i++) {
		struct capture *cap = set->list[i];

		if (cap && is_wanted(set, cap, p))
			ring_add(cap, p);
	}
}

/* find_flow() - The flow of a frame, by its first bytes; NULL: none
 * @r:		Filled with what is known of it then, if @ret_is_ip */
static const struct flow *find_flow(const struct captures *set,
				    const uint8_t *look, uint32_t len,
				    bool from_guest, struct border_flow *r,
				    bool *ret_is_ip)
{
	struct flowside key;
	struct flow *flow;
	uint8_t proto;

	*ret_is_ip = packet_key(look, len, from_guest, &key, &proto);
	if (!*ret_is_ip)
		return NULL;
	flow = flow_at(set->ft, flow_lookup(set->ft, proto, PIF_TAP, &key));
	if (!flow)
		packet_subject(r, &key, proto, *set->now);
	return flow;
}

void capture_frame(struct captures *set, bool from_guest,
		   const struct iovec *iov, unsigned n)
{
	struct packet p = { .iov = iov, .n = n };
	uint8_t look[PACKET_LOOK];
	uint32_t len = 0;
	size_t all = 0;

	for (unsigned i = 0; i < n; i++) {
		size_t piece = MIN(iov[i].iov_len, sizeof(look) - len);

		memcpy(look + len, iov[i].iov_base, piece);
		len += (uint32_t)piece;
		all += iov[i].iov_len;
	}
	p.flow = find_flow(set, look, len, from_guest, &p.subject, &p.is_ip);
	p.record.from_guest = from_guest;
	p.record.about = (struct packet_about){
		.time_ns = wall_clock(),
		.length = (uint32_t)all,
		.interface = CAPTURE_TAP,
		.out = !from_guest,
	};
	offer(set, &p);
}

/* name_side() - Ask a socket what flows need not know: its own address */
static void name_side(struct flowside *side, int fd)
{
	union sockaddr_inany sa = { 0 };
	socklen_t len = sizeof(sa);

	if (fd < 0 || (side->oport && !inany_is_any(&side->oaddr)))
		return;
	if (!sys_getsockname(fd, &sa.sa, &len))
		(void)inany_from_sa(&side->oaddr, &side->oport, &sa);
}

struct capture_place *capture_place_of(struct captures *set,
				       const struct flow *flow)
{
	struct capture_place *place = &set->place[flow_index(set->ft, flow)];

	/* A place that was never used has no addresses */
	if (place->generation == flow->f.generation && place->seq[0])
		return place;
	place->generation = flow->f.generation;
	place->ended = 0;
	for (unsigned i = 0; i < SIDES; i++) {
		place->seq[i] = 1;
		place->unacked[i] = 0;
		place->side[i] = flow->f.side[i];
		name_side(&place->side[i], flow->f.fd[i]);
	}
	return place;
}

/* show() - Payload was given to a socket, or taken from it; of a segment that
 * is made up, none */
static void show(struct captures *set, const struct flow *flow,
		 const struct flowside *side, bool out, struct packet_data data)
{
	struct packet p = { .flow = flow, .is_ip = true };
	struct iovec iov[1 + CAPTURE_IOV], rest;
	uint8_t hdr[PACKET_HDR_MAX];
	uint32_t len;

	len = packet_header(hdr, side, flow_type_proto[flow->f.type], out,
			    &data, &rest);
	iov[0] = (struct iovec){ hdr, len };
	if (data.n)
		memcpy(iov + 1, data.iov, data.n * sizeof(*iov));
	p.iov = iov;
	p.n = 1 + data.n;
	p.record.about = (struct packet_about){
		.time_ns = wall_clock(),
		.length = len + data.len,
		.interface = CAPTURE_SOCK,
		.out = out,
	};
	offer(set, &p);
}

void capture_segment(struct captures *set, const struct flow *flow,
		     unsigned sidei, const struct capture_segment *s)
{
	struct packet_data data = {
		.seq = s->seq,
		.ack = s->ack,
		.flags = s->flags,
	};

	show(set, flow, &capture_place_of(set, flow)->side[sidei], s->out,
	     data);
}

/* moved_at() - Payload passed the socket of a side; it may be much by now */
static void moved_at(struct captures *set, const struct flow *flow,
		     unsigned sidei, bool out, struct packet_data data)
{
	struct capture_place *place = capture_place_of(set, flow);
	unsigned from = out ? !sidei : sidei;
	bool ended = place->ended & CAPTURE_ENDED(sidei, !from);

	if (flow->f.pif[sidei] == PIF_TAP)
		return;
	data.ack += ended;
	show(set, flow, &place->side[sidei], out, data);
	if (flow_type_proto[flow->f.type] == IPPROTO_TCP &&
	    place->unacked[from] + data.len >= ACK_EVERY)
		capture_segment(set, flow, sidei,
				&(struct capture_segment){
					.out = !out,
					.flags = TCP_FLAG_ACK,
					.seq = data.ack,
					.ack = data.seq + data.len,
				});
}

void capture_moved(struct captures *set, const struct flow *flow, unsigned to,
		   const struct iovec *iov, uint32_t len, uint32_t size)
{
	struct capture_place *place = capture_place_of(set, flow);
	uint32_t most = size ? size : PACKET_DATA_MAX;
	struct iovec pieces[CAPTURE_IOV];
	unsigned dir = !to, pos = 0;
	size_t off = 0;

	do {
		struct packet_data data = {
			.iov = pieces,
			.len = MIN(len, most),
			.seq = place->seq[dir],
			.ack = place->seq[!dir],
			.flags = TCP_FLAG_ACK | TCP_FLAG_PSH,
		};

		data.n = iov_take(pieces, iov, &pos, &off, data.len);
		assert(data.n <= CAPTURE_IOV);
		moved_at(set, flow, !to, false, data);
		moved_at(set, flow, to, true, data);
		place->seq[dir] += data.len;
		place->unacked[dir] += data.len;
		if (place->unacked[dir] >= ACK_EVERY)
			place->unacked[dir] = 0;
		place->unacked[!dir] = 0; /* these bytes acknowledge them */
		len -= data.len;
	} while (len);
}

/* settle() - Whose packet is it, now that somebody may have decided?
 * Return: -EAGAIN: nobody has yet; 0: not wanted; 1: wanted */
static int settle(const struct captures *set, const struct capture *cap,
		  struct record *r, bool last)
{
	uint32_t len = MIN(r->about.captured, (uint32_t)PACKET_LOOK);
	uint8_t look[PACKET_LOOK];
	struct border_flow subject;
	const struct flow *flow;
	bool is_ip;

	ring_get(cap, cap->tail + sizeof(*r), look, len);
	flow = find_flow(set, look, len, r->from_guest, &subject, &is_ip);
	if (!flow && !last && r->about.time_ns + PATIENCE > wall_clock())
		return -EAGAIN;
	if (flow) {
		border_flow_fill(&subject, set->ft, flow);
		r->about.flow_id = subject.flow_id;
		r->about.rule = subject.rule;
	}
	return !cap->n_steps || (is_ip && filter_takes(cap->steps, cap->n_steps,
						       &subject, *set->now));
}

void capture_take(struct captures *set, unsigned n, struct capture_take *take)
{
	struct capture *cap = set->list[n];

	while (cap->tail != cap->head && take->packets < take->packets_max) {
		uint8_t *to = take->out + take->len;
		struct record r;
		uint32_t len;
		int wanted = 1;

		ring_get(cap, cap->tail, &r, sizeof(r));
		len = r.about.captured;
		if (!r.settled)
			wanted = settle(set, cap, &r, take->last);
		if (wanted < 0)
			break;
		if (wanted) {
			take->full = len + PACKET_BLOCK >
				     take->room - take->len;
			if (take->full)
				break;
			ring_get(cap, cap->tail + sizeof(r),
				 packet_block_begin(to, &r.about), len);
			take->len += packet_block_end(to, &r.about);
			take->packets++;
		} else {
			cap->seen[r.about.interface]--;
		}
		cap->tail += sizeof(r) + len;
	}
}

static void capture_free(struct capture *cap)
{
	if (cap->ring)
		munmap(cap->ring, CAPTURE_RING);
	free(cap->steps);
	free(cap);
}

/* reserve() - Address space that is touched as it is needed, or NULL */
static void *reserve(size_t size)
{
	void *area = room_reserve(size);

	return area == MAP_FAILED ? NULL : area;
}

static struct capture *capture_make(const struct capture_wish *wish)
{
	size_t size = wish->n_steps * sizeof(*wish->steps);
	struct capture *cap = sys_calloc(1, sizeof(*cap));

	if (!cap)
		return NULL;
	cap->ring = reserve(CAPTURE_RING);
	cap->steps = sys_malloc(MAX(size, sizeof(*wish->steps)));
	if (!cap->ring || !cap->steps) {
		capture_free(cap);
		return NULL;
	}
	memcpy(cap->steps, wish->steps, size);
	cap->n_steps = wish->n_steps;
	cap->sides = wish->sides;
	cap->snaplen = MIN(wish->snaplen, CAPTURE_SNAPLEN);
	return cap;
}

/* places_size() - Bytes that the places of all flows may take */
static size_t places_size(const struct flow_table *ft)
{
	return ft->max * sizeof(struct capture_place);
}

static struct captures *set_make(const struct flow_table *ft,
				 const uint64_t *now)
{
	struct captures *set = sys_calloc(1, sizeof(*set));

	if (!set)
		return NULL;
	set->ft = ft;
	set->now = now;
	set->place = reserve(places_size(ft));
	if (!set->place) {
		free(set);
		return NULL;
	}
	return set;
}

static void set_free_if_empty(struct captures **set)
{
	for (unsigned i = 0; i < CAPTURES_MAX; i++)
		if ((*set)->list[i])
			return;
	munmap((*set)->place, places_size((*set)->ft));
	free(*set);
	*set = NULL;
}

int capture_start(struct captures **set, const struct flow_table *ft,
		  const uint64_t *now, const struct capture_wish *wish,
		  unsigned *ret_n)
{
	unsigned n = 0;

	assert(filter_is_sound(wish->steps, wish->n_steps));
	if (!*set)
		*set = set_make(ft, now);
	if (!*set)
		return -ENOMEM;
	while (n < CAPTURES_MAX && (*set)->list[n])
		n++;
	if (n == CAPTURES_MAX)
		return -EUSERS;
	(*set)->list[n] = capture_make(wish);
	if (!(*set)->list[n]) {
		set_free_if_empty(set);
		return -ENOMEM;
	}
	*ret_n = n;
	return 0;
}

void capture_finish(struct captures *set, unsigned n)
{
	set->list[n]->sides = 0;
}

void capture_stop(struct captures **set, unsigned n)
{
	assert(*set && (*set)->list[n]);
	capture_free((*set)->list[n]);
	(*set)->list[n] = NULL;
	set_free_if_empty(set);
}

void capture_stop_all(struct captures **set)
{
	for (unsigned i = 0; i < CAPTURES_MAX; i++)
		if (*set && (*set)->list[i])
			capture_stop(set, i);
}
