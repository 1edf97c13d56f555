/* SPDX-License-Identifier: GPL-2.0-or-later */
/* udp_to_tap.c - Datagrams for the guest, in as few frames as possible
 *
 * What one recvmmsg() gave is cut into runs; a run is one USO frame where the
 * tap takes such, and single frames elsewhere. Payload goes from the scratch
 * buffers to the tap as it lies.
 *
 * A datagram may be longer than the guest's MTU: link/ cuts it into fragments.
 * Such datagrams never make a run, for a super-segment cannot be fragmented.
 */

#include "proto/udp_to_tap.h"

#include <arpa/inet.h>

#include "link/frame.h"

/* udp_frame() - Send one frame: a datagram, or several as a super-segment */
static int udp_frame(struct tap_batch *b, const struct flowside *guest,
		     const struct iovec *iov, unsigned n, uint32_t bytes,
		     uint32_t size)
{
	struct udp_hdr uh = {
		.source = htons(guest->oport),
		.dest = htons(guest->eport),
		.len = htons((uint16_t)(UDP_HLEN + bytes)),
	};
	struct frame_out f;

	memcpy(frame_ip(&f, b->t, &guest->oaddr, &guest->eaddr, IPPROTO_UDP,
			UDP_HLEN, bytes, 0),
	       &uh, UDP_HLEN);
	frame_csum_offload(&f, &guest->oaddr, &guest->eaddr, IPPROTO_UDP,
			   UDP_HLEN, bytes, offsetof(struct udp_hdr, check));
	if (bytes > size)
		frame_gso(&f, VNET_GSO_UDP_L4, (uint16_t)size);
	return tap_batch_send(b, &f, iov, n, bytes);
}

/* udp_fits_mtu() - Does a datagram of @size bytes go without fragments? */
static bool udp_fits_mtu(const struct ctx *c, const struct flow *flow,
			 uint32_t size)
{
	uint32_t ip_len = udp_is_v4(flow, udp_tapside(flow)) ?
				  sizeof(struct ip4_hdr) :
				  sizeof(struct ip6_hdr_);

	return size + UDP_HLEN + ip_len <= c->tap.mtu;
}

/* udp_frames() - Send the datagrams of a run one by one; returns the losses */
static unsigned udp_frames(struct tap_batch *b, const struct flowside *guest,
			   const struct udp_run *run)
{
	struct iovec *src = run->iov, iov[2];
	unsigned lost = 0;

	for (uint32_t off = 0; off < run->bytes; off += run->size) {
		uint32_t len = MIN(run->size, run->bytes - off);
		unsigned n = udp_iov_cut(iov, &src, len);

		if (udp_frame(b, guest, iov, n, len, len))
			lost++;
	}
	return lost;
}

/* udp_tap_price() - Work of sending a run, as one frame or as many */
static uint64_t udp_tap_price(const struct ctx *c, const struct udp_run *run)
{
	return WORK_CALL + work_bytes(run->bytes) +
	       (run->segs - 1) * (c->tap.uso ? WORK_DATAGRAM : WORK_CALL);
}

void udp_run_to_tap(struct ctx *c, struct flow *flow, const struct udp_run *run,
		    struct tap_batch *b)
{
	unsigned tapside = udp_tapside(flow), lost = 0;
	const struct flowside *guest = &flow->f.side[tapside];

	ctx_moved(c, flow, tapside, run->iov, run->bytes, run->size);
	/* A run as it came by UDP_GRO may be longer than those we make */
	if (run->segs == 1 ||
	    (c->tap.uso && run->bytes <= udp_run_max(flow, tapside) &&
	     udp_fits_mtu(c, flow, run->size))) {
		if (udp_frame(b, guest, run->iov, run->n, run->bytes,
			      run->size))
			lost = run->segs;
	} else {
		lost = udp_frames(b, guest, run);
	}
	if (lost)
		count_n(&c->cnt, CNT_UDP_DROP_TAP, lost);
	budget_spend(&c->budget, udp_tap_price(c, run));

	flow_touch(flow, !tapside, run->segs, run->bytes, c->now);
	flow_log(&c->log, c->now, UDP_TO_TAP, flow, run->segs, run->bytes, 0,
		 0);
}

/* udp_run_append() - Add received datagram @i; false if it does not fit */
static bool udp_run_append(struct udp_run *run, struct udp_rx *rx, unsigned i,
			   uint32_t size, uint32_t max)
{
	uint32_t len = rx->mm[i].msg_len;

	if (!udp_run_fits(run, len, size, max))
		return false;
	run->n += udp_rx_pieces(rx, i, run->iov + run->n);
	udp_run_add(run, len, size);
	return true;
}

void udp_rx_to_tap(struct ctx *c, struct flow *flow, struct udp_rx *rx,
		   unsigned first, unsigned end, bool *ret_large,
		   struct tap_batch *b)
{
	unsigned tapside = udp_tapside(flow);
	uint32_t max = udp_run_max(flow, tapside), size;
	struct iovec iov[2 * UDP_RX_SMALL];
	struct udp_run run = { .iov = iov };

	for (unsigned i = first; i < end; i++) {
		if (!udp_rx_whole(c, rx, i, ret_large))
			continue;
		size = udp_rx_size(rx, i);
		if (size > udp_datagram_max(flow, tapside)) {
			count(&c->cnt, CNT_UDP_TRUNCATED);
			continue;
		}
		if (!udp_rx_allowed(c, flow, !tapside, rx, i))
			continue;
		if (udp_run_append(&run, rx, i, size, max))
			continue;
		udp_run_to_tap(c, flow, &run, b);
		run = (struct udp_run){ .iov = iov };
		udp_run_append(&run, rx, i, size, max);
	}
	if (run.segs)
		udp_run_to_tap(c, flow, &run, b);
}
