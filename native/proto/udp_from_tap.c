/* SPDX-License-Identifier: GPL-2.0-or-later */
/* udp_from_tap.c - Datagrams from the guest: the frames of a burst */

#include "proto/udp_from_tap.h"

#include "proto/udp_tx.h"
#include "table/meter.h"

/* udp_add_frame() - Datagrams of a frame, whose headers lie before them */
static void udp_add_frame(struct ctx *c, struct flow *flow, struct udp_tx *tx,
			  const struct frame *f)
{
	uint32_t len = f->payload_len;
	uint32_t size = f->gso_size ? MIN(f->gso_size, len) : len;
	uint32_t segs = len ? (len + size - 1) / size : 1;
	struct iovec iov = { f->eth + f->payload, len };
	bool each;

	if (meter_has(flow) && len) {
		len = meter_datagrams(&c->ft, flow, udp_tapside(flow), len,
				      size, c->now);
		if (!len)
			return;
		iov.iov_len = len;
		segs = (len + size - 1) / size;
	}
	/* From that size on each is sent by itself */
	each = size >= udp_flow_of(flow)->gso_limit;
	budget_spend(&c->budget, segs * (each ? WORK_CALL : WORK_DATAGRAM) +
					 work_bytes(len));
	udp_tx_add(c, flow, tx, &iov, 1, len, size);
}

void udp_from_tap(struct ctx *c, struct flow *flow, struct burst *b)
{
	const uint64_t *packets = &flow->f.packets[udp_tapside(flow)];
	const uint64_t *bytes = &flow->f.bytes[udp_tapside(flow)];
	uint64_t packets_before = *packets, bytes_before = *bytes;
	struct udp_tx tx;

	if (udp_tx_start(c, flow, &tx, !udp_tapside(flow))) {
		count_n(&c->cnt, CNT_UDP_DROP_SOCK_FULL, b->count);
		return;
	}

	for (const struct frame *f = b->head; f; f = f->next) {
		udp_tx_ttl(c, flow, &tx, f->ttl);
		udp_add_frame(c, flow, &tx, f);
		if (budget_is_spent(&c->budget)) {
			b->rest = f->next;
			break;
		}
	}
	udp_tx_flush(c, flow, &tx);

	flow_log(&c->log, c->now, UDP_FROM_TAP, flow, *packets - packets_before,
		 *bytes - bytes_before, 0, 0);
}
