/* SPDX-License-Identifier: GPL-2.0-or-later */
/* virtq.h - A split virtqueue, seen from the device's end (virtio 1.2, 2.7)
 *
 * The rings lie in memory of the guest, which may write there at any time, and
 * anything. Nothing is believed: an index is masked or checked, a descriptor
 * is read once into a local copy and only that is looked at, an address goes
 * through guest_mem, a chain has a bounded number of links. A ring that breaks
 * a rule is broken for good, with a reason, until it is started again; what it
 * can damage is the guest's own network.
 *
 * Fields of rings are little-endian: always so with VERSION_1, and the byte
 * order of every guest that a little-endian host runs.
 */
#ifndef PASSTPY_LINK_VIRTQ_H
#define PASSTPY_LINK_VIRTQ_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "link/guest_mem.h"

/* 2.7: the largest that may exist. Nothing here is sized by it, so there is no
 * reason for less; front-ends use 256 to 1024. */
#define VIRTQ_SIZE_MAX 32768

/* Links of one chain, indirect ones included: what QEMU allows, and far more
 * than the 64 KiB of a frame need */
#define VIRTQ_CHAIN_MAX 1024

struct virtq_desc {
	uint64_t addr; /* guest-physical */
	uint32_t len;
	uint16_t flags; /* VIRTQ_DESC_F_* */
	uint16_t next;
} __attribute__((packed));

enum {
	VIRTQ_DESC_F_NEXT = 1,
	VIRTQ_DESC_F_WRITE = 2, /* for the device to write, else to read */
	VIRTQ_DESC_F_INDIRECT = 4,
};

enum { VIRTQ_AVAIL_F_NO_INTERRUPT = 1, VIRTQ_USED_F_NO_NOTIFY = 1 };

/** struct virtq_avail - Chains that the guest offers
 * @flags:	VIRTQ_AVAIL_F_*
 * @idx:	Where the guest puts the next entry
 * @ring:	Heads of chains; behind the last one: used_event
 */
struct virtq_avail {
	uint16_t flags;
	uint16_t idx;
	uint16_t ring[];
};

struct virtq_used_elem {
	uint32_t id;  /* head of the chain */
	uint32_t len; /* bytes written into it */
};

/** struct virtq_used - Chains that the device gives back
 * @flags:	VIRTQ_USED_F_*
 * @idx:	Where the device puts the next entry
 * @ring:	Entries; behind the last one, a 16-bit avail_event
 */
struct virtq_used {
	uint16_t flags;
	uint16_t idx;
	struct virtq_used_elem ring[];
};

/** enum virtq_fault - How a ring lied */
enum virtq_fault {
	VIRTQ_SOUND,
	VIRTQ_AVAIL_AHEAD, /* more entries than the ring has */
	VIRTQ_BAD_INDEX,   /* a descriptor that the table does not have */
	VIRTQ_BAD_CHAIN,   /* a loop, or more links than allowed */
	VIRTQ_BAD_INDIRECT,
	VIRTQ_BAD_DIRECTION, /* to be written in a ring that is read, ... */
	VIRTQ_BAD_ADDRESS,   /* no such memory */
	VIRTQ_BAD_LENGTH,    /* a chain too short to hold a header */
	VIRTQ_BAD_RING,	     /* the rings are no longer in memory */
	VIRTQ_BAD_KICK,	     /* the kick descriptor is none */
	VIRTQ_NUM_FAULTS
};

/** struct virtq_addr - Where a front-end says that the rings are
 * @size:	Entries, a power of two
 * @desc:	Descriptor table, address in the front-end's memory
 * @avail:	Available ring, the same
 * @used:	Used ring, the same
 */
struct virtq_addr {
	uint32_t size;
	uint64_t desc;
	uint64_t avail;
	uint64_t used;
};

/** struct virtq
 * @mem:	The guest's memory
 * @addr:	As set
 * @desc:	Descriptor table, in our memory, like @avail and @used
 * @event_idx:	Both sides name the entry they want to hear of (EVENT_IDX)
 * @indirect:	Descriptors may refer to a table (INDIRECT_DESC)
 * @called:	The guest may rely on @call_idx; not before the first call
 * @fault:	VIRTQ_SOUND, or why nothing happens here any more
 * @next_avail:	Next entry of the available ring to take
 * @avail_idx:	Its end, as last read
 * @used_idx:	End of the used ring, as the guest sees it
 * @pending:	Entries behind it that it does not see yet
 * @call_idx:	@used_idx when last we considered a call
 * @most:	Most chains that were ever offered at once
 */
struct virtq {
	struct guest_mem *mem;
	struct virtq_addr addr;
	const volatile struct virtq_desc *desc;
	struct virtq_avail *avail;
	struct virtq_used *used;
	bool event_idx;
	bool indirect;
	bool called;
	enum virtq_fault fault;
	uint16_t next_avail;
	uint16_t avail_idx;
	uint16_t used_idx;
	uint16_t pending;
	uint16_t call_idx;
	uint16_t most;
};

/** struct virtq_chain - A chain of descriptors, checked
 * @head:	Its first descriptor: what to give back
 * @n:		Pieces
 * @len:	Bytes of all pieces
 * @iov:	Pieces in mapped memory. Their contents still change at will
 */
struct virtq_chain {
	uint16_t head;
	unsigned n;
	uint32_t len;
	struct iovec iov[VIRTQ_CHAIN_MAX];
};

/**
 * virtq_start() - Begin, or begin again
 * @addr:	Where the rings are
 * @base:	First entry of the available ring to take
 * @event_idx:	EVENT_IDX was negotiated
 * @indirect:	INDIRECT_DESC was negotiated
 *
 * Return: 0, -EINVAL for a size or an alignment that is not allowed, -EFAULT
 * when rings are not within memory
 */
int virtq_start(struct virtq *q, struct guest_mem *mem,
		const struct virtq_addr *addr, uint16_t base, bool event_idx,
		bool indirect);

/* virtq_remap() - The guest's memory was mapped anew: find the rings again
 * Return: 0, or the errors of virtq_start(); the queue is broken then */
int virtq_remap(struct virtq *q);

/* virtq_break() - Nothing happens here any more; the first reason stays
 * Return: -EBADMSG */
int virtq_break(struct virtq *q, enum virtq_fault fault);

/**
 * virtq_next() - Take the next chain that the guest offers
 * @writable:	Pieces are for us to write; else to read
 * @chain:	Filled
 *
 * Return: 1, 0 when there is none, -EBADMSG when the ring is broken
 */
int virtq_next(struct virtq *q, bool writable, struct virtq_chain *chain);

/* virtq_offered() - Chains waiting, as far as known without looking again */
static inline uint16_t virtq_offered(const struct virtq *q)
{
	return (uint16_t)(q->avail_idx - q->next_avail);
}

/* virtq_poll() - Look again
 * Return: chains waiting, or -EBADMSG */
int virtq_poll(struct virtq *q);

/* virtq_give() - Give a chain back with @len bytes written; not visible before
 * virtq_publish() */
void virtq_give(struct virtq *q, uint16_t head, uint32_t len);

/** struct virtq_mark - A point to go back to, until virtq_publish() */
struct virtq_mark {
	uint16_t next_avail;
	uint16_t pending;
};

static inline struct virtq_mark virtq_mark(const struct virtq *q)
{
	return (struct virtq_mark){ q->next_avail, q->pending };
}

/* virtq_rewind() - Forget what was taken and given since the mark */
static inline void virtq_rewind(struct virtq *q, struct virtq_mark mark)
{
	q->next_avail = mark.next_avail;
	q->pending = mark.pending;
}

/* virtq_publish() - Show the guest what was given back */
void virtq_publish(struct virtq *q);

/* virtq_wants_call() - Does the guest want to hear of what was published? Asks
 * for all of it at once, and not again */
bool virtq_wants_call(struct virtq *q);

/* virtq_kicks_off() - We are awake: no kicks needed (no promise either) */
void virtq_kicks_off(struct virtq *q);

/* virtq_kicks_on() - Kick us when more is offered than we know of
 * Return: true when that is so already, and may have come without a kick */
bool virtq_kicks_on(struct virtq *q);

#endif /* PASSTPY_LINK_VIRTQ_H */
