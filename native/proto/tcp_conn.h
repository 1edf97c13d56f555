/* SPDX-License-Identifier: GPL-2.0-or-later */
/* tcp_conn.h - A TCP connection over the tap; for proto/tcp*.c only
 *
 * We stand between two TCPs: the guest's, whose segments we read and write,
 * and the host kernel's, behind a socket. Bytes are acknowledged to the guest
 * when the socket took them or we hold them (tcp_rcvq.c); bytes for the guest
 * stay in the socket's receive queue until the guest acknowledged them.
 *
 * A file calls only those below it:
 *
 *   tcp.c		the handler: events of the socket, what flows share
 *   tcp_timeout.c	a deadline passed: resend, probe, give up
 *   tcp_from_tap.c	a segment of the guest: checks, data, FIN
 *   tcp_open.c		a connection begins
 *   tcp_listen.c	a peer's connection is accepted
 *   tcp_host.c		the host's socket: made ready, or given by Python
 *   tcp_handshake.c	a segment of the guest before the connection stands
 *   tcp_to_tap.c	from the socket to the guest: send, resend
 *   tcp_sock.c		from the guest to the socket
 *   tcp_ack.c		what an acknowledgement says: ACK, SACK, window, loss
 *   tcp_end.c		a connection ends
 *   tcp_inspect.c	the guest says first where it wants to go
 *   tcp_state.c	what happened to it, by the table of tcp_steps.def
 *   tcp_peek.c		bytes that wait in the socket for the guest
 *   tcp_segment.c	building and sending one segment; options
 *   tcp_window.c	how much the guest may send, summed over all flows
 *   tcp_rcvq.c		bytes the socket did not take, and out-of-order ones
 *   tcp_timer.c	facts in, one deadline out
 */
#ifndef PASSTPY_PROTO_TCP_CONN_H
#define PASSTPY_PROTO_TCP_CONN_H

#include "proto/handler.h"
#include "proto/tcp.h"

#define TCP_WSCALE     7	   /* window scale we offer */
#define TCP_WND_MAX    (4U << 20)  /* largest window, bytes */
#define TCP_WND_FIRST  (64U << 10) /* first window, bytes */
#define TCP_SACKED_MAX 8	   /* ranges the guest may have told us */
#define TCP_GUEST_MSS  536	   /* if the guest names none, RFC 9293 3.7.1 */
#define TCP_RTT_VOID   UINT64_MAX  /* resent: no sample (Karn) */
#define TCP_MSS_MIN    88	   /* what we accept as the guest's MSS */

/** struct tcp_shared - What all TCP flows share
 * @chunks:	Pieces of memory for bytes that wait; TCP_CHUNK bytes each
 * @isn_key:	Secret for initial sequence numbers (RFC 6528)
 * @promised:	Sum of receive windows advertised, bytes
 * @held:	Bytes in order that sockets have not taken, of all flows
 * @budget:	What both must not exceed together: see proto/tcp_window.c
 * @ack_list:	Flows that owe the guest an acknowledgement
 * @ack_count:	Entries of @ack_list
 * @stalled:	Flows whose time to send again came while the guest was full
 * @stalled_count: Entries of @stalled
 * @spare_fd:	Given up to reset a connection when no descriptor is left
 * @peek_off:	The kernel has SO_PEEK_OFF for TCP, per family (v4, v6)
 */
struct tcp_shared {
	struct pool chunks;
	struct siphash_key isn_key;
	uint64_t promised;
	uint64_t held;
	uint64_t budget;
	flow_sidx_t *ack_list;
	uint32_t ack_count;
	uint32_t stalled_count;
	flow_sidx_t *stalled;
	int spare_fd;
	bool peek_off[2];
};

static inline struct tcp_shared *tcp_shared(const struct ctx *c)
{
	return c->shared[FLOW_TCP];
}

/* seq_lt() and so on - Compare sequence numbers modulo 2^32 */
static inline bool seq_lt(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) < 0;
}

static inline bool seq_le(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) <= 0;
}

static inline uint32_t seq_max(uint32_t a, uint32_t b)
{
	return seq_lt(a, b) ? b : a;
}

/** struct seq_range - Bytes @start up to, not including, @end */
struct seq_range {
	uint32_t start;
	uint32_t end;
};

/* TCP_STEP_* - Events of a connection, in the order of their table */
enum {
#define TCP_STEP(event, after, then, what) TCP_STEP_##event,
#include "proto/tcp_steps.def"
#undef TCP_STEP
	TCP_STEPS
};

/** enum tcp_event - TCP_EV_*: what has happened to a connection, bits of
 * @events of the flow; see tcp_steps.def
 */
enum tcp_event {
#define TCP_STEP(event, after, then, what) \
	TCP_EV_##event = 1 << TCP_STEP_##event,
#include "proto/tcp_steps.def"
#undef TCP_STEP
};

/** struct tcp_conn - The handler's own part of a TCP flow
 *
 * Toward the guest (bytes of the peer):
 * @iss:	Our initial sequence number
 * @snd_una:	Oldest not acknowledged by the guest
 * @snd_nxt:	Next to be sent
 * @snd_wnd:	Guest's window, bytes from @snd_una
 * @snd_wl1:	Sequence of the segment that set @snd_wnd
 * @sock_una:	Sequence of the first byte in the socket's receive queue
 * @peek_at:	Sequence where the socket's peek offset stands, if @peek_on
 * @lost_end:	Bytes below that were not SACKed count as lost
 * @retx_nxt:	Lost bytes below were sent again
 * @retx_mark:	@snd_nxt when that pass began: SACKs above it tell that
 *		what was sent again is lost again
 * @sacked:	What the guest holds beyond a gap, rising
 * @n_sacked:	Entries of @sacked
 *
 * From the guest:
 * @irs:	Guest's initial sequence number
 * @rcv_nxt:	Next byte expected; the FIN does not count
 * @rcv_adv:	Right edge of the window advertised
 * @rcv_acked:	Last acknowledgement number sent
 * @fin_seq:	Sequence of the guest's FIN, if @fin_seen
 * @wnd_target:	Window aimed at, grows with use
 * @wnd_grow_at: Grow @wnd_target when @rcv_nxt gets here
 * @rcvq:	Pool buffer with the receive queue's head, or POOL_NONE
 * @paid:	Bytes of the window that limits have given; others pay as they come
 *
 * Timing, ns (0: not armed):
 * @retx_at:	Retransmission or window probe due
 * @retry_at:	Something was put off: refused by the tap, or not yet consumed
 * @heard:	Last segment of the guest; once it has heard everything, last
 *		bytes of it that went on
 * @ack_limit:	No out-of-window acknowledgement before
 * @rtt_start:	When the byte at @rtt_seq was sent, 0: none timed
 * @rtt_seq:	Byte being timed
 * @srtt:	Smoothed round-trip time to the guest, us; 0: none yet
 * @rttvar:	Its variation, us
 * @stuck_since: When the guest stopped acknowledging, 0: it does
 *
 * @mss:	Payload bytes of one segment to the guest
 * @probes:	Keepalive probes unanswered
 * @backoff:	Time-outs in a row
 * @refusals:	Of the tap, in a row
 * @dup_acks:	Duplicate ACKs in a row (guests without SACK)
 * @snd_wscale:	Guest's window scale
 * @rcv_wscale:	Ours, 0 if the guest did not offer one
 * @sack_ok:	Both sides may send SACK
 * @syn_rcvd:	@irs is valid
 * @syn_again:	Our SYN was sent again because the guest answered an old one
 * @again:	Another place refused it already, as no one listens there
 * @fin_seen:	@fin_seq is valid
 * @sock_ready:	The socket may have more than we peeked at
 * @sock_rdhup:	The peer sent its FIN; data may still be queued before it
 * @peeks_short: A peek may end before the data does: the peer sent urgent data,
 *		the socket is a UNIX one, or a header comes before its first byte
 * @sock_unix:	The socket is a UNIX one
 * @peek_off:	The socket can have SO_PEEK_OFF
 * @peek_on:	It has, since a peek that did not begin with its first byte
 * @spoke:	The socket was given bytes, by us or by who gave it
 * @nodelay:	It has TCP_NODELAY, or needs none
 * @proxy:	Version of the PROXY protocol whose header is before the peer's
 *		first byte, or 0: see tcp_peek.c
 * @joining:	The guest is connected, and the socket is not yet
 * @given:	Python gave the socket, and may hold it in other places too
 * @sock_eof:	The peer's data ended; FIN follows the last byte
 * @ack_now:	Owes an ACK at the next flush
 * @ack_queued:	In the context's ack_list
 * @persist:	@retx_at is a window probe
 * @stalled:	In the list of those whose time came while the guest was full
 * @keepalive:	Seconds of silence after which the peer is asked, because the
 *		guest asks; 0: it does not
 * @consume_skip: ACKs whose bytes were not yet consumed
 * @inspected:	Its place among flows that are inspected, plus one; 0: it is none.
 *		It has no socket then
 */
struct tcp_conn {
	uint32_t iss;
	uint32_t snd_una;
	uint32_t snd_nxt;
	uint32_t snd_wnd;
	uint32_t snd_wl1;
	uint32_t sock_una;
	uint32_t peek_at;
	uint32_t lost_end;
	uint32_t retx_nxt;
	uint32_t retx_mark;
	struct seq_range sacked[TCP_SACKED_MAX];

	uint32_t irs;
	uint32_t rcv_nxt;
	uint32_t rcv_adv;
	uint32_t rcv_acked;
	uint32_t fin_seq;
	uint32_t wnd_target;
	uint32_t wnd_grow_at;
	uint32_t rcvq;
	uint32_t paid;

	uint64_t retx_at;
	uint64_t retry_at;
	uint64_t heard;
	uint64_t ack_limit;
	uint64_t rtt_start;
	uint64_t stuck_since;
	uint32_t rtt_seq;
	uint32_t srtt;
	uint32_t rttvar;

	uint16_t mss;
	uint8_t n_sacked;
	uint8_t probes;
	uint8_t backoff;
	uint8_t refusals;
	uint8_t dup_acks;
	uint8_t snd_wscale;
	uint8_t rcv_wscale;
	uint8_t consume_skip;
	uint16_t keepalive;
	uint16_t inspected;
	bool sack_ok	 : 1;
	bool syn_rcvd	 : 1;
	bool syn_again	 : 1;
	bool again	 : 1;
	bool fin_seen	 : 1;
	bool sock_ready	 : 1;
	bool sock_rdhup	 : 1;
	bool peeks_short : 1;
	bool sock_unix	 : 1;
	bool peek_off	 : 1;
	bool peek_on	 : 1;
	bool spoke	 : 1;
	bool nodelay	 : 1;
	bool joining	 : 1;
	bool given	 : 1;
	uint8_t proxy	 : 2;
	bool sock_eof	 : 1;
	bool ack_now	 : 1;
	bool ack_queued	 : 1;
	bool persist	 : 1;
	bool stalled	 : 1;
};

_Static_assert(sizeof(struct tcp_conn) <= FLOW_PRIV_SIZE, "tcp_conn fits");

static inline struct tcp_conn *tcp_conn(struct flow *flow)
{
	return (struct tcp_conn *)(void *)flow->priv;
}

/* tcp_tapside() - Which side of the flow is the guest */
static inline unsigned tcp_tapside(const struct flow *flow)
{
	return flow->f.pif[INISIDE] == PIF_TAP ? INISIDE : TGTSIDE;
}

static inline unsigned tcp_sockside(const struct flow *flow)
{
	return !tcp_tapside(flow);
}

static inline int tcp_fd(const struct flow *flow)
{
	return flow->f.fd[tcp_sockside(flow)];
}

static inline bool tcp_has(const struct flow *flow, uint16_t events)
{
	return (flow->f.events & events) == events;
}

/* tcp_is_over() - Both directions have ended, and every byte was sent on: what
 * is missing is the guest's acknowledgement of our FIN */
static inline bool tcp_is_over(const struct flow *flow)
{
	return tcp_has(flow, TCP_EV_FIN_PASSED | TCP_EV_FIN_SENT);
}

/* tcp_is_heard() - The guest has sent everything, and heard everything: it may
 * have forgotten the connection, whose last bytes wait for the peer */
static inline bool tcp_is_heard(const struct flow *flow)
{
	return tcp_has(flow, TCP_EV_GUEST_FIN | TCP_EV_FIN_ACKED);
}

/* tcp_ack_no() - Acknowledgement number: @rcv_nxt counts bytes, not the FIN */
static inline uint32_t tcp_ack_no(struct flow *flow)
{
	return tcp_conn(flow)->rcv_nxt + tcp_has(flow, TCP_EV_GUEST_FIN);
}

/* tcp_data_end() - Sequence number after the last byte of data (not FIN) that was sent */
static inline uint32_t tcp_data_end(struct flow *flow)
{
	return tcp_conn(flow)->snd_nxt - tcp_has(flow, TCP_EV_FIN_SENT);
}

static inline bool tcp_is_v4(const struct flow *flow)
{
	return inany_is_v4(&flow->f.side[tcp_tapside(flow)].eaddr);
}

/* tcp_sock_is_v4() - The same of the socket: it may be of the other family */
static inline bool tcp_sock_is_v4(const struct flow *flow)
{
	return inany_is_v4(&flow->f.side[!tcp_tapside(flow)].eaddr);
}

/* tcp_state.c */
void tcp_event(struct ctx *c, struct flow *flow, enum tcp_event event);

/* tcp_end.c */
void tcp_close(struct ctx *c, struct flow *flow, enum flow_why why, int err);
void tcp_reset(struct ctx *c, struct flow *flow, enum flow_why why, int err);
void tcp_abort_sock(struct ctx *c, struct flow *flow, int err);
void tcp_finish_if_done(struct ctx *c, struct flow *flow);
void tcp_finish(struct ctx *c, struct flow *flow);
bool tcp_yield(struct ctx *c, struct flow *flow);
void tcp_release(struct ctx *c, struct flow *flow);

/* tcp_open.c */
int tcp_open(struct ctx *c, struct flow *flow, const struct verdict *v,
	     struct miss *m);
void tcp_reject(struct ctx *c, struct miss *m, int err);
void tcp_connecting(struct ctx *c, struct flow *flow, uint32_t events);
int tcp_connect(struct ctx *c, struct flow *flow, const union inany *eaddr,
		uint16_t eport);
void tcp_joining(struct ctx *c, struct flow *flow, uint32_t events);

/* tcp_inspect.c */
int tcp_inspect_open(struct ctx *c, struct flow *flow);
void tcp_inspect_news(struct ctx *c, struct flow *flow);
void tcp_inspect_done(struct ctx *c, struct flow *flow);
struct iovec tcp_said(const struct ctx *c, struct flow *flow, bool *ret_ended);

/* tcp_host.c */
void tcp_host_setup(struct ctx *c, struct flow *flow, int fd, int family);
int tcp_host_given(struct ctx *c, struct flow *flow, int fd);
int tcp_adopt(struct ctx *c, struct flow *flow, int fd, bool forget);

/* tcp_listen.c */
void tcp_listen(struct ctx *c, struct listener *l, uint32_t number);
int tcp_spare_take(const struct ctx *c);

/* tcp_from_tap.c */
void tcp_from_tap(struct ctx *c, struct flow *flow, struct burst *b);

/* tcp_handshake.c */
bool tcp_handshake_in(struct ctx *c, struct flow *flow, const struct frame *f);
void tcp_handshake_start(struct ctx *c, struct flow *flow);

/* tcp_to_tap.c */
void tcp_to_tap(struct ctx *c, struct flow *flow);
bool tcp_resend(struct ctx *c, struct flow *flow);
bool tcp_probe_window(struct ctx *c, struct flow *flow);

/* tcp_peek.c */
ssize_t tcp_peek(struct ctx *c, struct flow *flow, uint32_t seq, void *buf,
		 size_t len);
void tcp_consume(struct ctx *c, struct flow *flow, bool all);
void tcp_put_before(struct flow *flow, uint8_t proxy);

/* tcp_ack.c */
void tcp_acked(struct ctx *c, struct flow *flow, uint32_t ack);
bool tcp_ack_in(struct ctx *c, struct flow *flow, const struct frame *f);

/* tcp_rcvq.c */
void tcp_rcvq_skip(struct ctx *c, struct tcp_conn *conn, uint32_t n);
uint32_t tcp_rcvq_held(const struct ctx *c, const struct tcp_conn *conn);
int tcp_rcvq_in_order(struct ctx *c, struct tcp_conn *conn,
		      const struct iovec *iov, unsigned n, uint32_t skip);
int tcp_rcvq_out_of_order(struct ctx *c, struct tcp_conn *conn, uint32_t seq,
			  const uint8_t *data, uint32_t len);
unsigned tcp_rcvq_iov(const struct ctx *c, const struct tcp_conn *conn,
		      struct iovec *iov, unsigned max);
void tcp_rcvq_taken(struct ctx *c, struct tcp_conn *conn, uint32_t n);
uint32_t tcp_rcvq_join(struct ctx *c, struct tcp_conn *conn, uint64_t most);
unsigned tcp_rcvq_ranges(const struct ctx *c, const struct tcp_conn *conn,
			 struct seq_range *ranges, unsigned max);
void tcp_rcvq_release(struct ctx *c, struct tcp_conn *conn);

/* tcp_sock.c */
int tcp_sock_error(const struct flow *flow);
int tcp_sock_take(struct ctx *c, struct flow *flow, struct iovec *iov,
		  unsigned n, uint32_t len);
void tcp_sock_drain(struct ctx *c, struct flow *flow);

/* tcp_window.c */
uint16_t tcp_window_update(struct ctx *c, struct flow *flow, bool syn);
bool tcp_window_opened(struct ctx *c, struct flow *flow);
bool tcp_window_reopens(struct ctx *c, struct flow *flow);
void tcp_window_join(struct ctx *c, struct tcp_conn *conn, uint32_t n,
		     uint64_t most);
void tcp_window_moved(struct ctx *c, struct flow *flow, uint32_t n);
void tcp_window_unpay(struct ctx *c, struct flow *flow);
void tcp_window_release(struct ctx *c, struct flow *flow);

/* tcp_segment.c */

/* struct tcp_syn_options - What a SYN offers */
struct tcp_syn_options {
	uint16_t mss;
	uint8_t wscale;
	bool has_wscale;
	bool sack_ok;
};

/* tcp_header() - TCP header of a checked frame; options follow it */
static inline const struct tcp_hdr *tcp_header(const struct frame *f)
{
	return (const struct tcp_hdr *)(const void *)(f->eth + f->l4);
}

void tcp_parse_syn(const struct frame *f, struct tcp_syn_options *ret_opts);
unsigned tcp_parse_sack(const struct frame *f, struct seq_range *ranges,
			unsigned max);
int tcp_send(struct ctx *c, struct flow *flow, uint8_t flags, uint32_t seq,
	     const void *data, uint32_t len);
int tcp_send_bulk(struct ctx *c, struct flow *flow, struct tap_batch *b,
		  uint8_t flags, uint32_t seq, const void *data, uint32_t len);
int tcp_send_syn(struct ctx *c, struct flow *flow);
void tcp_send_rst(struct ctx *c, const struct flowside *side, uint32_t seq,
		  uint32_t ack, uint8_t flags);
void tcp_ack_later(struct ctx *c, struct flow *flow);
void tcp_ack_at_flush(struct ctx *c, struct flow *flow);
bool tcp_flush(struct ctx *c, bool sleep);

/* tcp_timer.c: callers tell what happened, only tcp_timer.c arms */
void tcp_timer_started(struct ctx *c, struct flow *flow);
void tcp_timer_data_sent(struct ctx *c, struct flow *flow);
void tcp_timer_acked(struct ctx *c, struct flow *flow);
void tcp_timer_window_closed(struct ctx *c, struct flow *flow);
void tcp_timer_tap_full(struct ctx *c, struct flow *flow);
void tcp_timer_put_off(struct ctx *c, struct flow *flow);
uint64_t tcp_timer_rto(const struct flow *flow, const struct tcp_conn *conn);
void tcp_timer_arm(struct ctx *c, struct flow *flow);
uint64_t tcp_timer_idle(const struct flow *flow, const struct tcp_conn *conn);
void tcp_timer_stalled(struct ctx *c, struct flow *flow);
void tcp_timer_resume(struct ctx *c);
void tcp_timer_heard(struct ctx *c, struct flow *flow);

/* tcp_timeout.c */
void tcp_timeout(struct ctx *c, struct flow *flow);

#endif /* PASSTPY_PROTO_TCP_CONN_H */
