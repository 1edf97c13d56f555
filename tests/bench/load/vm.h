/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The guest of a virtual machine, as the load generator plays it.
 *
 * A translator for virtual machines speaks Ethernet frames to its guest, over a
 * stream socket or over vhost-user rings. An emulated guest would measure the
 * emulator, so here is a guest without a machine: ARP, IPv4, UDP, and a small
 * TCP, cheap enough to leave the processors to the translator. Every translator
 * gets the same guest. Where there was a choice:
 *
 * - It acknowledges once for each batch that it reads (up to 160 KB), as a guest
 *   behind virtio does that merges segments, and a lone small segment after
 *   40 ms if nothing is sent back before.
 * - No SACK, no timestamps; it goes back to the first lost byte on the third
 *   duplicate acknowledgement, or after 50 ms of silence (a Linux guest waits
 *   200 ms), and counts what it sent again. It has no congestion window: the
 *   wire cannot be congested, the receiver's window is the limit. A translator
 *   that drops bytes it had room for pays less here than with a real guest.
 * - Data is sent from one pattern, whose checksums are prepared; what arrives
 *   is looked at only with verify=1.
 */

#ifndef VM_H
#define VM_H

#include <sys/uio.h>

#include "load.h"

#define VM_ETH_LEN 14
#define VM_HDR_LEN 128 /* room for the headers of a frame */
#define VM_PIECES  40  /* buffers that one frame may be spread over */
#define VM_FLOWS   1024

/**
 * struct vm_packet - A frame from the translator
 * @pieces:	Where it is; the headers are in the first piece
 * @n:		Number of pieces
 * @len:	Bytes in total
 * @partial:	The checksum was left to us (GUEST_CSUM)
 */
struct vm_packet {
	const struct iovec *pieces;
	unsigned int n;
	size_t len;
	bool partial;
};

/**
 * struct vm_frame - A frame for the translator, payload taken from the pattern
 * @hdr:	Ethernet, IP, and UDP or TCP header; the caller fills it
 * @hdr_len:	Bytes of them
 * @phase:	Where in the pattern the payload begins
 * @len:	Bytes of payload
 * @mss:	If not 0: cut the payload into segments of this size (TSO)
 * @partial:	The checksum is left to the translator (CSUM)
 */
struct vm_frame {
	uint8_t *hdr;
	uint32_t hdr_len;
	uint32_t phase;
	uint32_t len;
	uint16_t mss;
	bool partial;
};

struct vm_guest;
struct vm_link;

/**
 * struct vm_link_ops - A way to the translator
 * @slot:	Room for the headers of the next frame, NULL when there is none
 * @commit:	Take the frame whose headers are in that slot
 * @flush:	Hand over what was committed
 * @receive:	Read a batch and pass each frame to vm_input(); their number
 * @wait:	Until there is something to read, or room again, or time is up
 */
struct vm_link_ops {
	uint8_t *(*slot)(struct vm_link *l);
	void (*commit)(struct vm_link *l, const struct vm_frame *f);
	void (*flush)(struct vm_link *l);
	unsigned int (*receive)(struct vm_link *l, struct vm_guest *g);
	void (*wait)(struct vm_link *l, int64_t timeout_ns);
};

/**
 * struct vm_link - What the guest knows of its link
 * @ops:	Its functions
 * @pattern:	PATTERN_SIZE bytes, where the link wants them to be
 * @tso:	Frames may be cut by the translator
 * @csum:	Checksums may be left to the translator
 * @hot:	There may be more to read or to send: do not wait
 * @gone:	errno when the translator has gone
 */
struct vm_link {
	const struct vm_link_ops *ops;
	uint8_t *pattern;
	bool tso;
	bool csum;
	bool hot;
	int gone;
};

enum vm_state { VM_CLOSED, VM_OPENING, VM_OPEN, VM_RESET };

/**
 * struct vm_flow - A TCP connection of the guest; offsets count payload bytes
 * @state:	Where in its life it is
 * @ack_now:	Owes an acknowledgement that cannot wait
 * @close:	No data after @end: send a FIN
 * @peer_closed: A FIN has come, in order
 * @exact:	What arrived was what should have
 * @port:	Our port
 * @scale:	Shift of the peer's window
 * @dups:	Duplicate acknowledgements in a row
 * @shift:	Doublings of the time-out
 * @mss:	Payload of a segment at most
 * @iss:	Our sequence number of offset 0
 * @rcv_nxt:	Peer's next sequence number
 * @window:	Bytes that the peer takes after @una
 * @una:	Offset of the first byte not acknowledged; a FIN counts as one
 * @nxt:	Offset to be sent next
 * @max:	Offset never sent yet
 * @recover:	After going back: no fast retransmission before @una is here
 * @end:	Data up to here may be sent
 * @received:	Bytes that arrived in order
 * @unacked:	Bytes received, not acknowledged yet
 * @segments:	The same in segments
 * @retransmits: Segments sent again
 * @resend_at:	When to send again, ns; 0 if nothing is out
 * @ack_at:	When to acknowledge at the latest, ns; 0 if nothing is owed
 * @begun:	When the work on it began, ns
 * @meter:	Counts what arrives, or NULL
 */
struct vm_flow {
	enum vm_state state;
	bool ack_now, close, peer_closed, exact;
	uint16_t port;
	uint8_t scale, dups, shift;
	uint16_t mss;
	uint32_t iss, rcv_nxt, window;
	uint64_t una, nxt, max, recover, end;
	uint64_t received;
	uint32_t unacked, segments, retransmits;
	uint64_t resend_at, ack_at, begun;
	struct meter *meter;
};

/**
 * struct vm_work - What the guest's programs do with their connections
 * @opened:	A connection is open
 * @data:	Bytes have arrived on it
 * @closed:	The peer has closed it, or it was reset
 * @datagram:	A UDP payload has arrived
 * @output:	Called before flushing, for work that is no TCP
 */
struct vm_work {
	void (*opened)(struct vm_guest *g, struct vm_flow *f);
	void (*data)(struct vm_guest *g, struct vm_flow *f, uint32_t len);
	void (*closed)(struct vm_guest *g, struct vm_flow *f);
	void (*datagram)(struct vm_guest *g, uint32_t len);
	void (*output)(struct vm_guest *g);
};

/**
 * struct vm_guest - The guest
 * @o:		Options
 * @link:	Way to the translator
 * @work:	What its programs do
 * @now:	Time of this step, ns
 * @start:	Start of the run, ns
 * @end:	End of it
 * @addr:	Our IPv4 address, as a number
 * @gateway:	Address whose MAC we ask for
 * @peer:	The server's address
 * @peer_port:	The server's port
 * @mac:	Of the gateway, once known
 * @resolved:	@mac is known
 * @template:	Ethernet and IPv4 header of what we send
 * @pair_sum:	Checksum part of both addresses
 * @ip_sum:	Checksum of @template's IPv4 header without its length
 * @sums:	Checksums of the pattern's beginnings, modulo 65535
 * @turn:	Where the round of the flows begins
 * @count:	Flows in use, all below this one
 * @flows:	The flows
 * @by_port:	Index + 1 of the flow at each of our ports
 * @bad:	Frames with a wrong checksum (verify=1)
 * @strays:	Segments for no flow
 * @disordered:	Segments that did not follow the last one
 */
struct vm_guest {
	const struct options *o;
	struct vm_link *link;
	const struct vm_work *work;
	uint64_t now, start, end;
	uint32_t addr, gateway, peer;
	uint16_t peer_port;
	uint8_t mac[6];
	bool resolved;
	uint8_t template[VM_ETH_LEN + 20];
	uint32_t pair_sum, ip_sum;
	uint16_t *sums;
	unsigned int turn, count;
	struct vm_flow *flows;
	uint16_t by_port[65536];
	uint64_t bad, strays, disordered;
};

/* vm_stream.c, vm_vhost.c: each returns NULL with errno set on failure */
struct vm_link *vm_stream_link(const struct options *o);
struct vm_link *vm_vhost_link(const struct options *o);

int vm_connect(const char *path);

/* vm_packet.c */
void vm_prepare_sums(struct vm_guest *g);
void vm_make_template(struct vm_guest *g);
uint16_t vm_pattern_sum(const struct vm_guest *g, uint32_t phase, uint32_t len);
void vm_send_segment(struct vm_guest *g, uint8_t *slot, struct vm_flow *f,
		     uint64_t off, uint32_t len, uint8_t flags);
bool vm_send_datagram(struct vm_guest *g, uint16_t port, uint32_t len);
void vm_send_arp(struct vm_guest *g, uint16_t op, const uint8_t *mac,
		 uint32_t target);
bool vm_checksum_ok(const struct vm_packet *p, const uint8_t *ip);
bool vm_payload_ok(const struct vm_guest *g, const struct vm_packet *p,
		   size_t skip, uint64_t off, size_t len);

/* vm_tcp.c */
struct vm_flow *vm_open(struct vm_guest *g, uint16_t port);
void vm_free(struct vm_guest *g, struct vm_flow *f);
void vm_reset(struct vm_guest *g, struct vm_flow *f);
void vm_tcp_input(struct vm_guest *g, const struct vm_packet *p,
		  const uint8_t *ip, const uint8_t *tcp, uint32_t l4_len);
void vm_tcp_output(struct vm_guest *g);
uint64_t vm_tcp_timers(struct vm_guest *g);

/* vm_guest.c */
int vm_attach(struct vm_guest *g, const struct options *o);
void vm_input(struct vm_guest *g, const struct vm_packet *p);
bool vm_step(struct vm_guest *g);
void vm_leave(struct vm_guest *g);

static inline uint16_t get16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static inline uint32_t get32(const uint8_t *p)
{
	return (uint32_t)get16(p) << 16 | get16(p + 2);
}

static inline void put16(uint8_t *p, uint32_t value)
{
	p[0] = (uint8_t)(value >> 8);
	p[1] = (uint8_t)value;
}

static inline void put32(uint8_t *p, uint32_t value)
{
	put16(p, value >> 16);
	put16(p + 2, value);
}

#endif /* VM_H */
