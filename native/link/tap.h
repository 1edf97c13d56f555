/* SPDX-License-Identifier: GPL-2.0-or-later */
/* tap.h - The layer-2 channel to the guest, whatever it is made of
 *
 * Handlers describe frames (struct frame_out: headers, and offloads still to be
 * done) and never checksum or segment them. The backend does, or has the kernel
 * do it: tap_tun.c for a tun device with a virtio-net header, tap_stream.c for
 * the socket of a virtual machine, tap_vhost.c for rings in its memory. A frame
 * may be a super-segment of up to 64 KiB at any MTU.
 *
 * Payload goes in one of two ways. tap_send() takes a copy of what is
 * small: the caller's bytes are its own again at once. TAP_BATCH_SCOPE() opens a
 * batch, whose payload stays where it lies until the scope ends, which sends
 * it: so nothing refers to bytes of a caller that has returned. Debug builds
 * look whether payload of a batch changed before it was sent (tap_lent.h).
 *
 * A guest that takes nothing for now makes the tap @blocked. Then core/ reads
 * no host socket until there is room again, and what waits, waits in sockets:
 * nothing is dropped for it.
 */
#ifndef PASSTPY_LINK_TAP_H
#define PASSTPY_LINK_TAP_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/counters.h"
#include "base/inany.h"
#include "base/wire.h"
#include "link/capture.h"
#include "link/pcap.h"
#include "table/epoll.h"
#include "table/flow_log.h"

#define TAP_FRAME_MAX	(65535 + ETH_HLEN_) /* longest frame, bytes */
#define TAP_BATCH	128		    /* frames of one read batch */
#define TAP_BATCH_BYTES (128 * 1024)	    /* stop reading past this */
#define TAP_RX_ALIGN	64  /* t->rx_buf, and frames in it: a cache line */
#define TAP_IOV_MAX	128 /* pieces of payload of one frame */
#define TAP_HDR_MAX	160 /* Ethernet + IPv6 + TCP with all options */
/* Longest payload that is copied: above any ICMP error (RFC 4443 3.1: 1280) */
#define TAP_COPY_MAX 2048

/** struct tap_rx - A frame as read: not checked yet
 * @data:	Ethernet header; valid until the next tap_read()
 * @len:	Bytes
 * @vh:		virtio-net header (zero if the backend has none)
 */
struct tap_rx {
	uint8_t *data;
	uint32_t len;
	struct vnet_hdr vh;
};

/** struct frame_out - Headers of a frame for the guest
 * @vh:		Offloads left to the backend
 * @hdr_len:	Bytes of @hdr: Ethernet, IP and L4 header
 * @hdr:	The headers
 */
struct frame_out {
	struct vnet_hdr vh;
	uint32_t hdr_len;
	uint8_t hdr[TAP_HDR_MAX];
};

struct tap;

/** struct tap_env - What a tap is made from, all but the guest
 * @cnt:	Counters
 * @epoll:	Where it has its descriptors watched; NULL: its user looks
 * @log:	Where rings that broke are told, and
 * @now:	where the time for that stands, ns; NULL: there are no rings
 * @vnet:	Frames on a descriptor carry a virtio-net header
 * @offloads:	TAP_OFFLOAD_* that TUNSETOFFLOAD granted
 */
struct tap_env {
	struct counters *cnt;
	const struct epoll_set *epoll;
	struct flow_log *log;
	const uint64_t *now;
	bool vnet;
	uint32_t offloads;
};

/** struct tap_ops - A backend: all that there is to know of it
 * @name:	As Python calls it
 * @refers:	@write may keep references to payload until @flush
 * @mtu_max:	Largest IP packet that it can carry, bytes
 * @rx_size:	Bytes of t->rx_buf
 * @init:	Make its own state, t->own; 0 or -ENOMEM, and @free is to follow
 *		in both cases; NULL: it has none
 * @read:	Fill t->rx with up to TAP_BATCH frames; return their number,
 *		0 when nothing is there, or -errno when the tap is gone
 * @write:	Send one frame; 0 or -errno: -EAGAIN the tap is full, nothing
 *		was taken
 * @flush:	Send what @write kept
 * @poll:	Does the guest have frames that epoll does not tell of while we
 *		are awake? NULL: epoll tells of all
 * @due:	ns when it has something to do that nothing else tells of, or
 *		UINT64_MAX; NULL: never
 * @settle:	We are about to sleep: have epoll told of the next frame, and
 *		set t->more if there is one already; NULL: nothing to do
 * @room:	The guest may take frames again: send what waits, and find out
 *		whether t->blocked still holds; NULL: it never blocks, and host
 *		sockets need no gate
 * @watch:	t->blocked has changed: have epoll tell of room, or no longer;
 *		NULL: it always does
 * @attach:	A guest came, by this descriptor, which is taken over and watched
 *		on success: 0, -EBUSY there is one; other -errno: it is of no
 *		use; NULL: guests do not come this way
 * @detach:	Let go of the guest, forget what was on the way to and from it;
 *		NULL: the tap ends with its guest
 * @sieve:	Have frames of these kinds (bits of enum sieve_kind) dropped before
 *		they are read; 0 or -errno; NULL: the backend cannot
 * @free:	Release what the backend allocated; NULL: nothing
 */
struct tap_ops {
	const char *name;
	bool refers;
	uint32_t mtu_max;
	size_t rx_size;
	int (*init)(struct tap *t, const struct tap_env *env);
	int (*read)(struct tap *t);
	int (*write)(struct tap *t, struct frame_out *f,
		     const struct iovec *payload, unsigned n, uint32_t len);
	void (*flush)(struct tap *t);
	bool (*poll)(struct tap *t);
	uint64_t (*due)(const struct tap *t);
	void (*settle)(struct tap *t);
	void (*room)(struct tap *t);
	void (*watch)(struct tap *t);
	int (*attach)(struct tap *t, int fd);
	void (*detach)(struct tap *t);
	int (*sieve)(struct tap *t, uint32_t kinds);
	void (*free)(struct tap *t);
};

#ifdef PASSTPY_FAULTS
/** struct tap_faults - Fault injection, debug builds only; both directions
 * @drop_ppm:	Frames dropped, per million
 * @reorder_ppm: Frames delayed past the next frames of their direction
 * @state:	Random state (xorshift), seeded
 * @held:	A delayed frame from and to the guest, if any
 */
struct tap_faults {
	uint32_t drop_ppm;
	uint32_t reorder_ppm;
	uint64_t state;
	struct tap_held *held[2];
};
#endif

/** struct tap
 * @fd:		What epoll watches for frames of the guest: tun device, socket
 *		of a virtual machine; in tests a socket that keeps message
 *		boundaries; with rings the kick of the one the guest sends by;
 *		-1: no guest is there
 * @ops:	Backend
 * @own:	The backend's own state, or NULL
 * @epoll:	Where descriptors are watched, or NULL
 * @vnet:	Frames carry a virtio-net header
 * @tso4:	Backend takes TCP super-segments over IPv4
 * @tso6:	Backend takes TCP super-segments over IPv6
 * @uso:	Backend takes UDP super-segments
 * @drained:	The last read ended because nothing more was there
 * @more:	tap_read() has something to do that epoll does not tell of
 * @merge:	The guest has no offload: merge its segments (link/merge.h)
 * @blocked:	The guest takes nothing for now, or is not there
 * @mtu:	Largest IP packet, bytes
 * @frag_id:	Identification of the next packet that is fragmented
 * @queue_frames: Frames the guest may have in flight to us (tx queue length)
 * @our_mac:	Our address
 * @guest_mac:	Guest's address: learned, or set; broadcast before
 * @rx:		Frames of the last read
 * @rx_buf:	Their bytes
 * @batches:	Batches that are open
 * @copies:	Payload that tap_send() copied, until the flush
 * @copied:	Bytes of it
 * @lent:	Debug builds: payload of open batches
 * @cnt:	Counters
 * @pcap:	Capture to a file, if on
 * @captures:	Captures that come and go, or NULL: none is on
 * @impair:	What makes the link worse (impair.h), or NULL: nothing
 */
struct tap {
	int fd;
	const struct tap_ops *ops;
	void *own;
	const struct epoll_set *epoll;
	bool vnet;
	bool tso4;
	bool tso6;
	bool uso;
	bool drained;
	bool more;
	bool merge;
	bool blocked;
	uint32_t mtu;
	uint32_t frag_id;
	uint32_t queue_frames;
	uint8_t our_mac[ETH_ALEN_];
	uint8_t guest_mac[ETH_ALEN_];
	struct tap_rx rx[TAP_BATCH];
	uint8_t *rx_buf;
	unsigned batches;
	uint8_t *copies;
	uint32_t copied;
#ifdef PASSTPY_DEBUG
	struct tap_lent *lent;
#endif
	struct counters *cnt;
	struct pcap pcap;
	struct captures *captures;
	struct impair *impair;
#ifdef PASSTPY_FAULTS
	struct tap_faults faults;
#endif
};

#define TAP_OFFLOAD_CSUM 0x01 /* TUN_F_CSUM and so on */
#define TAP_OFFLOAD_TSO4 0x02
#define TAP_OFFLOAD_TSO6 0x04
#define TAP_OFFLOAD_USO4 0x20
#define TAP_OFFLOAD_USO6 0x40

/**
 * tap_init() - Make a tap that no guest is at yet
 * @t:		Zeroed, or as its user set it: addresses, @mtu, @queue_frames
 * @ops:	Backend: tap_backend()
 * @env:	Read only here; what it points to stays
 *
 * A tap that can be blocked is, until its guest comes.
 *
 * Return: 0 or -ENOMEM; tap_free() is to follow in both cases, some day
 */
int tap_init(struct tap *t, const struct tap_ops *ops,
	     const struct tap_env *env);

/**
 * tap_attach() - A guest came, by this descriptor
 * @fd:		tun device, or what takes its place in tests; or a machine's socket.
 *		Taken over on success
 *
 * Return: 0; -EBUSY one is attached; -EOPNOTSUPP guests do not come this way to
 * the backend; other -errno: it is of no use to it (-EPROTOTYPE: no stream socket)
 */
static inline int tap_attach(struct tap *t, int fd)
{
	return t->ops->attach ? t->ops->attach(t, fd) : -EOPNOTSUPP;
}

/**
 * tap_sieve() - Have frames of these kinds dropped before they are read
 * @kinds:	Bits of enum sieve_kind; 0: keep all
 *
 * Return: 0; -EOPNOTSUPP the backend cannot; other -errno: nothing has changed
 */
static inline int tap_sieve(struct tap *t, uint32_t kinds)
{
	return t->ops->sieve ? t->ops->sieve(t, kinds) : -EOPNOTSUPP;
}

/* tap_deafen() - A tap that ends with its guest: hear nothing of it any more */
void tap_deafen(struct tap *t);

/* tap_detach() - Let go of the guest; a backend that can will take another */
void tap_detach(struct tap *t);

/* tap_poll() - Look for frames that epoll does not tell of while we are awake
 * Return: t->more, which says that tap_read() has something to do */
bool tap_poll(struct tap *t);

/* tap_due() - ns when it has to be flushed or read though nothing tells of it, or
 * UINT64_MAX */
static inline uint64_t tap_due(const struct tap *t)
{
	return t->ops->due ? t->ops->due(t) : UINT64_MAX;
}

/* tap_settle() - Before sleeping: let epoll be told; t->more: not yet */
void tap_settle(struct tap *t);

/* tap_room() - The guest may take frames again */
void tap_room(struct tap *t);

/* tap_watch() - Have epoll tell of room for as long as the tap is blocked */
void tap_watch(struct tap *t);

void tap_free(struct tap *t); /* also of one that is all zero */

/* tap_read() - Next batch into t->rx; counts, captures, injects faults
 * Return: number of frames, 0, or -errno when the tap is gone */
int tap_read(struct tap *t);

/**
 * tap_send() - Send a frame to the guest, of which the tap takes a copy
 * @f:		Headers, made by frame_*() of link/frame.h
 * @payload:	Payload, the caller's again when this returns; or NULL
 * @len:	Bytes of payload, TAP_COPY_MAX at most
 *
 * It goes out with the next flush, in order with everything else. A packet
 * longer than the guest's MTU goes as fragments, here and in batches.
 *
 * Return: 0, or -errno (counted); the caller decides whether it is a loss
 */
int tap_send(struct tap *t, struct frame_out *f, const void *payload,
	     uint32_t len);

/** struct tap_batch - Frames whose payload is lent to the tap
 * @t:		Tap
 * @frames:	Frames of the batch
 */
struct tap_batch {
	struct tap *t;
	unsigned frames;
};

struct tap_batch tap_batch_begin(struct tap *t);
void tap_batch_end(struct tap_batch *b);

/**
 * TAP_BATCH_SCOPE() - Declare a batch that the end of the scope sends
 * @name:	Its name, to hand to tap_batch_send() as &@name
 * @tap:	Tap
 *
 * Declare it after the memory that its payload lies in, and where that memory
 * is used anew only after the scope.
 */
#define TAP_BATCH_SCOPE(name, tap) \
	struct tap_batch name      \
		__attribute__((cleanup(tap_batch_end))) = tap_batch_begin(tap)

/**
 * tap_batch_send() - Send a frame to the guest by reference
 * @b:		Batch
 * @f:		Headers
 * @payload:	Payload; its bytes stay as they are until the batch ends
 * @n:		Entries of @payload
 * @len:	Bytes of payload in total
 *
 * Return: as tap_send()
 */
int tap_batch_send(struct tap_batch *b, struct frame_out *f,
		   const struct iovec *payload, unsigned n, uint32_t len);

/* tap_inject() - Send a complete Ethernet frame made by a Python service */
int tap_inject(struct tap *t, const uint8_t *frame, uint32_t len);

/* tap_flush() - Send what waits for it; no batch is open */
void tap_flush(struct tap *t);

/* For backends: descriptors of theirs, which the loop tells of */

/* tap_fd_add() - EPOLL_TAP: frames of the guest; EPOLL_ROOM: room for some
 * Return: 0 or -errno */
int tap_fd_add(struct tap *t, enum epoll_type type, int fd);

/* tap_fd_del() - Before it is closed, which is not enough if it is shared */
void tap_fd_del(struct tap *t, enum epoll_type type, int fd);

#endif /* PASSTPY_LINK_TAP_H */
