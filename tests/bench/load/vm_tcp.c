// SPDX-License-Identifier: GPL-2.0-or-later
/* The TCP of the played guest (RFC 9293, opening side only). */

#define _GNU_SOURCE

#include <string.h>

#include "vm.h"

#define FLAG_FIN 0x01
#define FLAG_SYN 0x02
#define FLAG_RST 0x04
#define FLAG_PSH 0x08
#define FLAG_ACK 0x10

#define SUPER_MAX     65483 /* payload of one frame before it is cut */
#define SYN_NS	      NS_PER_S
#define RESEND_NS     (50 * NS_PER_MS)
#define MAX_SHIFT     4
#define DELAYED_NS    (40 * NS_PER_MS)
#define DUPS_OF_LOSS  3
#define QUICK_BYTES   16 /* the first small segments are not held back */
#define NEVER	      UINT64_MAX
#define BEFORE_STREAM UINT64_MAX /* offset of the SYN: -1 */

static void send_bare(struct vm_guest *g, struct vm_flow *f, uint64_t off,
		      uint8_t flags)
{
	uint8_t *slot = g->link->ops->slot(g->link);

	if (!slot)
		return;
	vm_send_segment(g, slot, f, off, 0, flags);
	if (!(flags & FLAG_ACK))
		return;
	f->ack_now = false;
	f->ack_at = 0;
	f->unacked = f->segments = 0;
}

/**
 * vm_open() - Begin to open a connection
 * @g:		Guest
 * @port:	Our port
 *
 * Return: the flow, or NULL if there are too many, or one at that port
 */
struct vm_flow *vm_open(struct vm_guest *g, uint16_t port)
{
	struct vm_flow *f = g->flows;

	while (f->state != VM_CLOSED && f < g->flows + VM_FLOWS)
		f++;
	if (f == g->flows + VM_FLOWS || g->by_port[port])
		return NULL;

	*f = (struct vm_flow){
		.state = VM_OPENING,
		.exact = true,
		.port = port,
		.mss = (uint16_t)(g->o->mtu - 40),
		.iss = port * 2654435761U,
	};
	g->by_port[port] = (uint16_t)(f - g->flows + 1);
	if (g->count < (unsigned int)(f - g->flows) + 1)
		g->count = (unsigned int)(f - g->flows) + 1;
	return f;
}

/* vm_free() - Forget a flow; its counters stay until it is used again */
void vm_free(struct vm_guest *g, struct vm_flow *f)
{
	g->by_port[f->port] = 0;
	f->state = VM_CLOSED;
	f->resend_at = f->ack_at = 0;
}

/* vm_reset() - Tell the peer that a connection is no more */
void vm_reset(struct vm_guest *g, struct vm_flow *f)
{
	if (f->state == VM_OPEN)
		send_bare(g, f, f->nxt, FLAG_RST | FLAG_ACK);
	vm_free(g, f);
}

static void read_options(struct vm_flow *f, const uint8_t *tcp, uint32_t head)
{
	uint32_t i = 20;

	f->scale = 0;
	while (i + 1 < head && tcp[i]) {
		if (tcp[i] == 1) {
			i++;
			continue;
		}
		if (tcp[i + 1] < 2 || i + tcp[i + 1] > head)
			return;
		if (tcp[i] == 2 && get16(tcp + i + 2) < f->mss)
			f->mss = get16(tcp + i + 2);
		if (tcp[i] == 3)
			f->scale = tcp[i + 2] & 15;
		i += tcp[i + 1];
	}
}

static void opening_input(struct vm_guest *g, struct vm_flow *f,
			  const uint8_t *tcp, uint32_t head)
{
	const uint8_t both = FLAG_SYN | FLAG_ACK;

	if ((tcp[13] & both) != both || get32(tcp + 8) != f->iss)
		return;
	read_options(f, tcp, head);
	f->state = VM_OPEN;
	f->rcv_nxt = get32(tcp + 4) + 1;
	f->window = get16(tcp + 14);
	f->resend_at = 0;
	f->shift = 0;
	/* A kernel acknowledges before its program can say anything */
	send_bare(g, f, 0, FLAG_ACK);
	g->work->opened(g, f);
}

/* go_back() - Send again everything after the last acknowledged byte */
static void go_back(struct vm_flow *f)
{
	f->nxt = f->una;
	f->recover = f->max;
	f->dups = 0;
}

static void take_ack(struct vm_guest *g, struct vm_flow *f, const uint8_t *tcp,
		     uint32_t len)
{
	int32_t ahead = (int32_t)(get32(tcp + 8) - f->iss - (uint32_t)f->una);
	uint32_t window = (uint32_t)get16(tcp + 14) << f->scale;

	if (ahead < 0 || f->una + (uint32_t)ahead > f->max)
		return;
	if (ahead > 0) {
		f->una += (uint32_t)ahead;
		f->nxt = f->nxt < f->una ? f->una : f->nxt;
		f->dups = f->shift = 0;
		f->resend_at = f->una < f->max ? g->now + RESEND_NS : 0;
	} else if (!len && window == f->window && f->una < f->max) {
		if (++f->dups == DUPS_OF_LOSS && f->una >= f->recover)
			go_back(f);
	}
	f->window = window;
}

static void take_data(struct vm_guest *g, struct vm_flow *f,
		      const struct vm_packet *p, const uint8_t *tcp,
		      uint32_t head, uint32_t len)
{
	int32_t ahead = (int32_t)(get32(tcp + 4) - f->rcv_nxt);
	size_t skip = (size_t)(tcp - (uint8_t *)p->pieces->iov_base) + head;
	bool fin = tcp[13] & FLAG_FIN;

	if (ahead > 0 || (uint32_t)-ahead > len) {
		g->disordered += ahead > 0;
		send_bare(g, f, f->nxt, FLAG_ACK);
		return;
	}
	skip += (uint32_t)-ahead;
	len -= (uint32_t)-ahead;
	if (f->peer_closed || (!len && !fin)) {
		f->ack_now = true;
		return;
	}

	if (g->o->verify && !vm_payload_ok(g, p, skip, f->received, len))
		f->exact = false;
	f->rcv_nxt += len;
	f->received += len;
	f->unacked += len;
	f->segments++;
	if (f->meter)
		meter_count(f->meter, g->start ? g->now - g->start : 0, len);
	if (len)
		g->work->data(g, f, len);
	if (!fin)
		return;
	f->rcv_nxt++;
	f->peer_closed = f->ack_now = true;
	g->work->closed(g, f);
}

/**
 * vm_tcp_input() - A TCP segment has arrived
 * @g:		Guest
 * @p:		The packet
 * @ip:		Its IP header
 * @tcp:	Its TCP header
 * @l4_len:	Bytes from there to its end
 */
void vm_tcp_input(struct vm_guest *g, const struct vm_packet *p,
		  const uint8_t *ip, const uint8_t *tcp, uint32_t l4_len)
{
	uint32_t head = l4_len < 20 ? 0 : (tcp[12] >> 4) * 4U;
	struct vm_flow *f;

	if (head < 20 || head > l4_len)
		return;
	f = &g->flows[g->by_port[get16(tcp + 2)] - 1];
	if (!g->by_port[get16(tcp + 2)] || get16(tcp) != g->peer_port ||
	    get32(ip + 12) != g->peer) {
		g->strays++;
		return;
	}
	if (tcp[13] & FLAG_RST) {
		vm_free(g, f);
		f->state = VM_RESET;
		g->work->closed(g, f);
		return;
	}
	if (f->state == VM_OPENING) {
		opening_input(g, f, tcp, head);
		return;
	}
	if (tcp[13] & FLAG_ACK)
		take_ack(g, f, tcp, l4_len - head);
	if (l4_len > head || tcp[13] & (FLAG_FIN | FLAG_SYN))
		take_data(g, f, p, tcp, head, l4_len - head);
	if (f->close && f->peer_closed && f->una > f->end) {
		send_bare(g, f, f->nxt, FLAG_ACK);
		vm_free(g, f);
	}
}

/* next_len() - Bytes of the next segment, 0 if none can be sent now */
static uint32_t next_len(const struct vm_guest *g, const struct vm_flow *f)
{
	uint32_t super = f->mss, window = f->window;
	uint64_t limit, len;

	if (!window && f->shift)
		window = 1; /* a probe */
	limit = f->una + window;
	if (f->nxt >= f->end || f->nxt >= limit)
		return 0;
	if (g->link->tso)
		super = SUPER_MAX / super * super;
	len = (limit < f->end ? limit : f->end) - f->nxt;
	if (len >= super)
		return super;
	if (f->nxt + len == f->end)
		return (uint32_t)len;
	if (len > f->mss)
		return (uint32_t)(len - len % f->mss);
	/* No crumbs at the edge of the window while anything is out */
	return len == f->mss || f->nxt == f->una ? (uint32_t)len : 0;
}

/* send_next() - Send @len bytes, or the FIN if @len is 0; false if no room */
static bool send_next(struct vm_guest *g, struct vm_flow *f, uint32_t len)
{
	uint8_t *slot = g->link->ops->slot(g->link);
	uint8_t flags = FLAG_ACK;

	if (!slot)
		return false;
	if (f->nxt + len == f->end)
		flags |= len ? FLAG_PSH : FLAG_FIN;
	vm_send_segment(g, slot, f, f->nxt, len, flags);
	if (f->nxt < f->max)
		f->retransmits += (len + f->mss - 1) / f->mss;
	f->nxt += len ? len : 1;
	f->max = f->max < f->nxt ? f->nxt : f->max;
	f->ack_now = false;
	f->ack_at = 0;
	f->unacked = f->segments = 0;
	return true;
}

static void flow_output(struct vm_guest *g, struct vm_flow *f)
{
	uint32_t len;

	if (f->state == VM_OPENING && !f->resend_at) {
		send_bare(g, f, BEFORE_STREAM, FLAG_SYN);
		f->resend_at = g->now + (SYN_NS << f->shift);
	}
	if (f->state != VM_OPEN)
		return;

	while ((len = next_len(g, f)) && send_next(g, f, len))
		;
	if (f->close && f->nxt == f->end)
		send_next(g, f, 0);
	if (!f->resend_at && (f->una < f->max || f->una < f->end))
		f->resend_at = g->now + (RESEND_NS << f->shift);

	if (f->segments > 1 || f->unacked >= 2U * f->mss ||
	    (f->unacked && f->received <= QUICK_BYTES))
		f->ack_now = true;
	else if (f->unacked && !f->ack_at)
		f->ack_at = g->now + DELAYED_NS;
	if (f->ack_now)
		send_bare(g, f, f->nxt, FLAG_ACK);
}

/* vm_tcp_output() - Send what all flows have to send */
void vm_tcp_output(struct vm_guest *g)
{
	if (!g->count)
		return;
	g->turn = (g->turn + 1) % g->count;
	for (unsigned int i = 0; i < g->count; i++)
		flow_output(g, &g->flows[(g->turn + i) % g->count]);
	while (g->count && g->flows[g->count - 1].state == VM_CLOSED)
		g->count--;
}

/**
 * vm_tcp_timers() - Let time-outs happen
 * @g:		Guest
 *
 * Return: time of the next one, ns, or NEVER
 */
uint64_t vm_tcp_timers(struct vm_guest *g)
{
	uint64_t next = NEVER;

	for (unsigned int i = 0; i < g->count; i++) {
		struct vm_flow *f = &g->flows[i];

		if (f->resend_at && f->resend_at <= g->now) {
			f->resend_at = 0;
			f->shift += f->shift < MAX_SHIFT;
			if (f->state == VM_OPEN)
				go_back(f);
		}
		if (f->ack_at && f->ack_at <= g->now) {
			f->ack_at = 0;
			f->ack_now = true;
		}
		if (f->resend_at && f->resend_at < next)
			next = f->resend_at;
		if (f->ack_at && f->ack_at < next)
			next = f->ack_at;
	}
	return next;
}
