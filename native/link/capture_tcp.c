/* SPDX-License-Identifier: GPL-2.0-or-later */
/* capture_tcp.c - Makes up the segments that begin and end a connection
 *
 * The kernel makes the real ones, and tells nobody. Readers of captures want
 * them all the same: they know by a SYN who began, and by FIN or RST that a
 * connection is over. Numbers are those that payload has beside them: a SYN is
 * 0, the first byte 1, and a FIN takes the number behind the last byte.
 *
 * A flow that was there before the capture has an end, but no beginning.
 */

#include "base/wire.h"
#include "link/capture.h"

/* next_seq() - Number of what comes next from a side, at the socket of @sidei */
static uint32_t next_seq(const struct capture_place *place, unsigned sidei,
			 unsigned from)
{
	return place->seq[from] + !!(place->ended & CAPTURE_ENDED(sidei, from));
}

/* segment() - One that stands where the payload is now */
static void segment(struct captures *set, const struct flow *flow,
		    unsigned sidei, bool out, uint8_t flags)
{
	const struct capture_place *place = capture_place_of(set, flow);
	unsigned from = out ? !sidei : sidei;

	capture_segment(set, flow, sidei,
			&(struct capture_segment){
				.out = out,
				.flags = flags,
				.seq = next_seq(place, sidei, from),
				.ack = next_seq(place, sidei, !from),
			});
}

/* opening() - One of before the first byte; a SYN has the number 0 */
static void opening(struct captures *set, const struct flow *flow,
		    unsigned sidei, bool out, uint8_t flags)
{
	capture_segment(set, flow, sidei,
			&(struct capture_segment){
				.out = out,
				.flags = flags,
				.ack = flags & TCP_FLAG_ACK ? 1 : 0,
			});
}

/* accepted() - The second and the third segment; @out: the second is ours */
static void accepted(struct captures *set, const struct flow *flow,
		     unsigned sidei, bool out)
{
	opening(set, flow, sidei, out, TCP_FLAG_SYN | TCP_FLAG_ACK);
	segment(set, flow, sidei, !out, TCP_FLAG_ACK);
}

/* ended() - A FIN, once, and its acknowledgement */
static void ended(struct captures *set, const struct flow *flow, unsigned sidei,
		  bool out)
{
	struct capture_place *place = capture_place_of(set, flow);
	uint8_t bit = CAPTURE_ENDED(sidei, out ? !sidei : sidei);

	if (place->ended & bit)
		return;
	segment(set, flow, sidei, out, TCP_FLAG_FIN | TCP_FLAG_ACK);
	place->ended |= bit;
	segment(set, flow, sidei, !out, TCP_FLAG_ACK);
}

void capture_said(struct captures *set, const struct flow *flow, unsigned sidei,
		  enum capture_said what)
{
	switch (what) {
	case CAPTURE_CONNECTING:
		opening(set, flow, sidei, true, TCP_FLAG_SYN);
		break;
	case CAPTURE_CONNECTED:
		accepted(set, flow, sidei, false);
		break;
	case CAPTURE_REFUSED:
		opening(set, flow, sidei, false, TCP_FLAG_RST | TCP_FLAG_ACK);
		break;
	case CAPTURE_ACCEPTED:
		opening(set, flow, sidei, false, TCP_FLAG_SYN);
		accepted(set, flow, sidei, true);
		break;
	case CAPTURE_FIN_CAME:
	case CAPTURE_FIN_WENT:
		ended(set, flow, sidei, what == CAPTURE_FIN_WENT);
		break;
	case CAPTURE_RST_CAME:
	case CAPTURE_RST_WENT:
		segment(set, flow, sidei, what == CAPTURE_RST_WENT,
			TCP_FLAG_RST | TCP_FLAG_ACK);
		break;
	}
}
