/* SPDX-License-Identifier: GPL-2.0-or-later */
/* tcp_segment.c - Build and send one segment to the guest; read its options
 *
 * Every segment carries the newest acknowledgement, window and SACK blocks,
 * so whatever is sent also settles what was owed. Checksums and segmentation
 * are the tap's business (link/).
 */

#include <errno.h>

#include "link/frame.h"
#include "proto/tcp_conn.h"

#define TCP_HLEN      20	   /* header without options, bytes */
#define TCP_OPT_ROOM  40	   /* bytes of options at most */
#define TCP_ACK_BYTES (256U << 10) /* acknowledge at least this often */

/**
 * tcp_parse_syn() - Options of a SYN that we understand (RFC 9293, RFC 7323,
 * RFC 2018); malformed ones end the parsing, what was read before counts
 */
void tcp_parse_syn(const struct frame *f, struct tcp_syn_options *ret_opts)
{
	const uint8_t *opts = f->eth + f->l4 + TCP_HLEN;
	size_t len = f->payload - f->l4 - TCP_HLEN;

	*ret_opts = (struct tcp_syn_options){ .mss = TCP_GUEST_MSS };

	for (size_t i = 0; i < len && opts[i] != TCP_OPT_EOL;) {
		uint8_t kind = opts[i], size;

		if (kind == TCP_OPT_NOP_) {
			i++;
			continue;
		}
		if (i + 2 > len || opts[i + 1] < 2 || i + opts[i + 1] > len)
			return;
		size = opts[i + 1];
		if (kind == TCP_OPT_MSS && size == 4) {
			ret_opts->mss =
				(uint16_t)(opts[i + 2] << 8 | opts[i + 3]);
		} else if (kind == TCP_OPT_WSCALE && size == 3) {
			ret_opts->has_wscale = true;
			/* RFC 7323 2.3: larger values count as 14 */
			ret_opts->wscale = MIN(opts[i + 2], 14);
		} else if (kind == TCP_OPT_SACK_PERM && size == 2) {
			ret_opts->sack_ok = true;
		}
		i += size;
	}
}

static uint32_t get_be32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 |
	       (uint32_t)p[2] << 8 | p[3];
}

static void put_be32(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 24);
	p[1] = (uint8_t)(v >> 16);
	p[2] = (uint8_t)(v >> 8);
	p[3] = (uint8_t)v;
}

/**
 * tcp_parse_sack() - SACK blocks of a segment (RFC 2018 section 3)
 * Return: number of blocks written to @ranges; they are not checked
 */
unsigned tcp_parse_sack(const struct frame *f, struct seq_range *ranges,
			unsigned max)
{
	const uint8_t *opts = f->eth + f->l4 + TCP_HLEN;
	size_t len = f->payload - f->l4 - TCP_HLEN;
	unsigned n = 0;

	for (size_t i = 0; i < len && opts[i] != TCP_OPT_EOL;) {
		uint8_t size;

		if (opts[i] == TCP_OPT_NOP_) {
			i++;
			continue;
		}
		if (i + 2 > len || opts[i + 1] < 2 || i + opts[i + 1] > len)
			break;
		size = opts[i + 1];
		if (opts[i] == TCP_OPT_SACK) {
			for (size_t j = i + 2; j + 8 <= i + size && n < max;
			     j += 8, n++) {
				ranges[n].start = get_be32(opts + j);
				ranges[n].end = get_be32(opts + j + 4);
			}
		}
		i += size;
	}
	return n;
}

/* Options of our own SYN: MSS always, the rest only if the guest, when it
 * spoke first, offered it too */
static uint32_t put_syn_options(const struct ctx *c, const struct flow *flow,
				const struct tcp_conn *conn, uint8_t *o)
{
	uint32_t hdrs = tcp_is_v4(flow) ? 40 : 60;
	uint32_t mss = MIN(c->tap.mtu, 65535U) - hdrs;
	uint32_t n = 0;

	o[n++] = TCP_OPT_MSS;
	o[n++] = 4;
	o[n++] = (uint8_t)(mss >> 8);
	o[n++] = (uint8_t)mss;
	if (!conn->syn_rcvd || conn->sack_ok) {
		o[n++] = TCP_OPT_NOP_;
		o[n++] = TCP_OPT_NOP_;
		o[n++] = TCP_OPT_SACK_PERM;
		o[n++] = 2;
	}
	if (conn->rcv_wscale) {
		o[n++] = TCP_OPT_NOP_;
		o[n++] = TCP_OPT_WSCALE;
		o[n++] = 3;
		o[n++] = conn->rcv_wscale;
	}
	return n;
}

static uint32_t put_sack_blocks(const struct ctx *c,
				const struct tcp_conn *conn, uint8_t *o)
{
	struct seq_range r[4];
	unsigned k = tcp_rcvq_ranges(c, conn, r, ARRAY_SIZE(r));
	uint32_t n = 0;

	if (!k)
		return 0;
	o[n++] = TCP_OPT_NOP_;
	o[n++] = TCP_OPT_NOP_;
	o[n++] = TCP_OPT_SACK;
	o[n++] = (uint8_t)(2 + 8 * k);
	for (unsigned i = 0; i < k; i++) {
		put_be32(o + n, r[i].start);
		put_be32(o + n + 4, r[i].end);
		n += 8;
	}
	return n;
}

/* What was sent settles the acknowledgement that was owed */
static void ack_settled(struct flow *flow)
{
	tcp_conn(flow)->rcv_acked = tcp_ack_no(flow);
	tcp_conn(flow)->ack_now = false;
}

/* Headers of a segment; @flags: TCP_FLAG_*, all that it is to have */
static void make_headers(struct ctx *c, struct flow *flow, uint8_t flags,
			 uint32_t seq, uint32_t len, struct frame_out *frame)
{
	struct tcp_conn *conn = tcp_conn(flow);
	const struct flowside *side = &flow->f.side[tcp_tapside(flow)];
	bool syn = flags & TCP_FLAG_SYN;
	uint8_t opts[TCP_OPT_ROOM];
	uint32_t optlen, hlen;
	struct tcp_hdr *th;
	uint8_t *l4;

	optlen = syn	       ? put_syn_options(c, flow, conn, opts) :
		 conn->sack_ok ? put_sack_blocks(c, conn, opts) :
				 0;
	hlen = TCP_HLEN + optlen;

	l4 = frame_ip(frame, &c->tap, &side->oaddr, &side->eaddr, IPPROTO_TCP,
		      hlen, len, 0);
	th = (struct tcp_hdr *)(void *)l4;
	*th = (struct tcp_hdr){
		.source = htons(side->oport),
		.dest = htons(side->eport),
		.seq = htonl(seq),
		.ack_seq = htonl(conn->syn_rcvd ? tcp_ack_no(flow) : 0),
		.off_res = (uint8_t)(hlen / 4 << 4),
		.flags = flags,
		.window = htons(tcp_window_update(c, flow, syn)),
	};
	memcpy(l4 + TCP_HLEN, opts, optlen);
	frame_csum_offload(frame, &side->oaddr, &side->eaddr, IPPROTO_TCP, hlen,
			   len, offsetof(struct tcp_hdr, check));
	if (len + optlen > conn->mss && len)
		frame_gso(frame,
			  tcp_is_v4(flow) ? VNET_GSO_TCPV4 : VNET_GSO_TCPV6,
			  (uint16_t)(conn->mss - optlen));
}

/* The tap took a segment, or refused it with @rc */
static int segment_sent(struct ctx *c, struct flow *flow, uint8_t flags,
			uint32_t seq, uint32_t len, int rc)
{
	budget_spend(&c->budget,
		     WORK_CALL + work_bytes(len) +
			     len / MAX(tcp_conn(flow)->mss, 1) * WORK_SEGMENT);
	flow_log(&c->log, c->now, TCP_TO_TAP, flow, seq, tcp_ack_no(flow),
		 flags, rc ? rc : (int64_t)len);
	if (rc)
		return rc;

	ack_settled(flow);
	flow_touch_tcp(flow, tcp_sockside(flow) == INISIDE ? 0 : 1, 1, len,
		       flags, c->now);
	return 0;
}

static uint8_t all_flags(struct flow *flow, uint8_t flags)
{
	return tcp_conn(flow)->syn_rcvd ? flags | TCP_FLAG_ACK : flags;
}

/**
 * tcp_send() - Send a segment
 * @flags:	TCP_FLAG_*; ACK is added once the guest's SYN is known
 * @seq:	Sequence number
 * @data:	Payload, copied: TAP_COPY_MAX at most; or NULL
 * @len:	Bytes of payload
 *
 * Return: 0, or -errno of the tap: nothing was sent
 */
int tcp_send(struct ctx *c, struct flow *flow, uint8_t flags, uint32_t seq,
	     const void *data, uint32_t len)
{
	struct frame_out frame;

	flags = all_flags(flow, flags);
	make_headers(c, flow, flags, seq, len, &frame);
	return segment_sent(c, flow, flags, seq, len,
			    tap_send(&c->tap, &frame, data, len));
}

/**
 * tcp_send_bulk() - Send a segment whose payload is not copied
 * @b:		Batch that refers to it until it ends
 * @data:	Payload, up to one super-segment
 *
 * Return: as tcp_send()
 */
int tcp_send_bulk(struct ctx *c, struct flow *flow, struct tap_batch *b,
		  uint8_t flags, uint32_t seq, const void *data, uint32_t len)
{
	struct iovec iov = { (void *)(uintptr_t)data, len };
	struct frame_out frame;

	flags = all_flags(flow, flags);
	make_headers(c, flow, flags, seq, len, &frame);
	return segment_sent(c, flow, flags, seq, len,
			    tap_batch_send(b, &frame, &iov, 1, len));
}

/* tcp_send_syn() - Our SYN, or SYN,ACK; also when it is sent again */
int tcp_send_syn(struct ctx *c, struct flow *flow)
{
	return tcp_send(c, flow, TCP_FLAG_SYN, tcp_conn(flow)->iss, NULL, 0);
}

/**
 * tcp_send_rst() - RST without a connection
 * @side:	eaddr/eport: the guest; oaddr/oport: who it was talking to
 */
void tcp_send_rst(struct ctx *c, const struct flowside *side, uint32_t seq,
		  uint32_t ack, uint8_t flags)
{
	struct frame_out frame;
	struct tcp_hdr *th;

	th = (struct tcp_hdr *)(void *)frame_ip(&frame, &c->tap, &side->oaddr,
						&side->eaddr, IPPROTO_TCP,
						TCP_HLEN, 0, 0);
	*th = (struct tcp_hdr){
		.source = htons(side->oport),
		.dest = htons(side->eport),
		.seq = htonl(seq),
		.ack_seq = htonl(ack),
		.off_res = TCP_HLEN / 4 << 4,
		.flags = (uint8_t)(flags | TCP_FLAG_RST),
	};
	frame_csum_offload(&frame, &side->oaddr, &side->eaddr, IPPROTO_TCP,
			   TCP_HLEN, 0, offsetof(struct tcp_hdr, check));
	count(&c->cnt, CNT_TCP_RST_TO_TAP);
	(void)tap_send(&c->tap, &frame, NULL, 0);
}

/* Put the flow on the list that tcp_flush() works through */
static void ack_enqueue(struct ctx *c, struct flow *flow)
{
	struct tcp_conn *conn = tcp_conn(flow);

	if (conn->ack_queued)
		return;
	conn->ack_queued = true;
	tcp_shared(c)->ack_list[tcp_shared(c)->ack_count++] =
		flow_sidx(&c->ft, flow, tcp_tapside(flow));
}

/* tcp_ack_later() - New data came: acknowledge when it pays, before sleeping
 * at the latest, unless data for the guest carries it */
void tcp_ack_later(struct ctx *c, struct flow *flow)
{
	ack_enqueue(c, flow);
}

/* tcp_ack_at_flush() - Acknowledge at the end of this batch (RFC 9293
 * 3.10.7.4, RFC 5681 4.2: gaps, old data, window probes) */
void tcp_ack_at_flush(struct ctx *c, struct flow *flow)
{
	tcp_conn(flow)->ack_now = true;
	ack_enqueue(c, flow);
}

/* Is it time to acknowledge? Two full segments once the guest has nothing more
 * for us right now (RFC 5681 4.2); in a bulk stream much less often, but well
 * before the window is used up */
static bool ack_due(const struct ctx *c, struct flow *flow)
{
	const struct tcp_conn *conn = tcp_conn(flow);
	uint32_t unacked = tcp_ack_no(flow) - conn->rcv_acked;

	if (conn->ack_now)
		return true;
	if (c->tap.drained && unacked >= 2U * conn->mss)
		return true;
	return unacked >= TCP_ACK_BYTES ||
	       unacked >= (conn->rcv_adv - conn->rcv_nxt) / 3;
}

/* ack_settle() - Acknowledge if it is due; true if the flow stays in the list:
 * it is not due, or the tap refused it */
static bool ack_settle(struct ctx *c, struct flow *flow, bool sleep)
{
	struct tcp_conn *conn = tcp_conn(flow);

	budget_spend(&c->budget, WORK_LOOK);
	if (!conn->ack_now && conn->rcv_acked == tcp_ack_no(flow))
		conn->ack_queued = false;
	else if (sleep || ack_due(c, flow))
		conn->ack_queued =
			tcp_send(c, flow, TCP_FLAG_ACK, conn->snd_nxt, NULL, 0);
	return conn->ack_queued;
}

static void reverse(flow_sidx_t *list, uint32_t n)
{
	for (uint32_t i = 0; i < n / 2; i++) {
		flow_sidx_t swap = list[i];

		list[i] = list[n - 1 - i];
		list[n - 1 - i] = swap;
	}
}

/* tcp_flush() - Send the acknowledgements that are due; all, before sleeping
 * Return: true when the budget did not suffice */
bool tcp_flush(struct ctx *c, bool sleep)
{
	flow_sidx_t *list = tcp_shared(c)->ack_list;
	uint32_t n = tcp_shared(c)->ack_count, kept = 0, i;

	if (tcp_shared(c)->stalled_count && !c->tap.blocked)
		tcp_timer_resume(c);
	for (i = 0; i < n && !budget_is_spent(&c->budget); i++) {
		struct flow *flow = flow_at(&c->ft, list[i]);

		if (flow && ack_settle(c, flow, sleep))
			list[kept++] = list[i];
	}
	/* Those not looked at come first the next time: [kept] gap [rest] */
	memmove(list + kept, list + i, (n - i) * sizeof(*list));
	tcp_shared(c)->ack_count = kept + n - i;
	if (i == n)
		return tcp_shared(c)->stalled_count && !c->tap.blocked;
	reverse(list, kept);
	reverse(list + kept, n - i);
	reverse(list, kept + n - i);
	return true;
}
