/* SPDX-License-Identifier: GPL-2.0-or-later */
/* virtq.c - Walking rings that may lie */

#include "link/virtq.h"

#include <endian.h>
#include <errno.h>

#include "base/macros.h"

/* 2.7: what each part must be aligned to */
#define DESC_ALIGN  16
#define AVAIL_ALIGN 2
#define USED_ALIGN  4

static uint16_t load16(const uint16_t *p)
{
	return le16toh(__atomic_load_n(p, __ATOMIC_RELAXED));
}

static void store16(uint16_t *p, uint16_t value)
{
	__atomic_store_n(p, htole16(value), __ATOMIC_RELAXED);
}

/* used_event() - Entry of the used ring that the guest wants to hear of */
static uint16_t used_event(const struct virtq *q)
{
	return load16(&q->avail->ring[q->addr.size]);
}

/* avail_event() - Where we say which entry we want to hear of */
static uint16_t *avail_event(const struct virtq *q)
{
	return (uint16_t *)(void *)&q->used->ring[q->addr.size];
}

/* part() - One of the three parts, if it is in memory and aligned there */
static int part(struct guest_mem *mem, uint64_t user, uint64_t len,
		uintptr_t align, void **ret_p)
{
	void *p = guest_mem_user(mem, user, len);

	if (!p)
		return -EFAULT;
	if ((uintptr_t)p % align)
		return -EINVAL;
	*ret_p = p;
	return 0;
}

/* find_rings() - Checked once: afterwards every masked index is within them */
static int find_rings(struct virtq *q)
{
	const struct virtq_addr *a = &q->addr;
	void *desc, *avail, *used;
	int err;

	err = part(q->mem, a->desc, a->size * sizeof(struct virtq_desc),
		   DESC_ALIGN, &desc);
	if (err)
		return err;
	err = part(q->mem, a->avail,
		   sizeof(struct virtq_avail) + (a->size + 1) * 2, AVAIL_ALIGN,
		   &avail);
	if (err)
		return err;
	err = part(q->mem, a->used,
		   sizeof(struct virtq_used) + 2 +
			   a->size * sizeof(struct virtq_used_elem),
		   USED_ALIGN, &used);
	if (err)
		return err;
	q->desc = desc;
	q->avail = avail;
	q->used = used;
	return 0;
}

int virtq_start(struct virtq *q, struct guest_mem *mem,
		const struct virtq_addr *addr, uint16_t base, bool event_idx,
		bool indirect)
{
	struct virtq fresh = { .mem = mem,
			       .addr = *addr,
			       .event_idx = event_idx,
			       .indirect = indirect,
			       .next_avail = base,
			       .avail_idx = base };
	int err;

	if (!addr->size || addr->size > VIRTQ_SIZE_MAX ||
	    addr->size & (addr->size - 1))
		return -EINVAL;
	err = find_rings(&fresh);
	if (err)
		return err;
	/* A device that was here before us may have given back some */
	fresh.used_idx = load16(&fresh.used->idx);
	fresh.call_idx = fresh.used_idx;
	*q = fresh;
	return 0;
}

int virtq_remap(struct virtq *q)
{
	int err = find_rings(q);

	if (err) /* whatever was wrong before: they must not be touched */
		q->fault = VIRTQ_BAD_RING;
	return err;
}

int virtq_break(struct virtq *q, enum virtq_fault fault)
{
	if (q->fault == VIRTQ_SOUND)
		q->fault = fault;
	return -EBADMSG;
}

int virtq_poll(struct virtq *q)
{
	uint16_t idx;

	if (q->fault)
		return -EBADMSG;
	/* Entries before the index are to be seen with it */
	idx = le16toh(__atomic_load_n(&q->avail->idx, __ATOMIC_ACQUIRE));
	if ((uint16_t)(idx - q->next_avail) > q->addr.size)
		return virtq_break(q, VIRTQ_AVAIL_AHEAD);
	q->avail_idx = idx;
	q->most = MAX(q->most, virtq_offered(q));
	return virtq_offered(q);
}

/* desc_read() - Each field exactly once; afterwards the guest cannot change it
 */
static struct virtq_desc desc_read(const volatile struct virtq_desc *d)
{
	return (struct virtq_desc){ .addr = le64toh(d->addr),
				    .len = le32toh(d->len),
				    .flags = le16toh(d->flags),
				    .next = le16toh(d->next) };
}

/** struct walk - A walk through a chain
 * @table:	Descriptor table, of the ring or an indirect one
 * @size:	Entries of it
 * @links:	Links so far
 * @indirect:	It is an indirect one
 */
struct walk {
	const volatile struct virtq_desc *table;
	uint32_t size;
	unsigned links;
	bool indirect;
};

/* chain_add() - What a descriptor refers to: one piece, or more if it spans
 * regions */
static int chain_add(struct virtq *q, struct virtq_chain *chain,
		     const struct virtq_desc *d)
{
	uint64_t addr = d->addr;
	uint32_t left = d->len;

	if (left > UINT32_MAX - chain->len) /* 2.7.4: 2^32 bytes at most */
		return virtq_break(q, VIRTQ_BAD_CHAIN);
	while (left) {
		uint64_t len = 0;
		void *p = guest_mem_piece(q->mem, addr, left, &len);

		if (!p)
			return virtq_break(q, VIRTQ_BAD_ADDRESS);
		if (chain->n == VIRTQ_CHAIN_MAX)
			return virtq_break(q, VIRTQ_BAD_CHAIN);
		chain->iov[chain->n++] = (struct iovec){ p, len };
		addr += len;
		left -= (uint32_t)len;
	}
	chain->len += d->len;
	return 0;
}

/* walk_enter() - Go on in an indirect table (2.7.5.3) */
static int walk_enter(struct virtq *q, struct walk *w,
		      const struct virtq_desc *d)
{
	uint32_t n = d->len / (uint32_t)sizeof(*d);

	if (!q->indirect || w->indirect || d->flags & VIRTQ_DESC_F_NEXT || !n ||
	    d->len % sizeof(*d) || n > VIRTQ_CHAIN_MAX)
		return virtq_break(q, VIRTQ_BAD_INDIRECT);
	w->table = (const volatile void *)guest_mem_at(q->mem, d->addr, d->len);
	if (!w->table)
		return virtq_break(q, VIRTQ_BAD_ADDRESS);
	w->size = n;
	w->indirect = true;
	return 0;
}

/* walk_chain() - Follow a chain from its head to its end */
static int walk_chain(struct virtq *q, bool writable, struct virtq_chain *chain)
{
	struct walk w = { .table = q->desc, .size = q->addr.size };
	uint16_t i = chain->head;
	struct virtq_desc d;
	int err;

	do {
		if (i >= w.size)
			return virtq_break(q, VIRTQ_BAD_INDEX);
		if (w.links++ == VIRTQ_CHAIN_MAX)
			return virtq_break(q, VIRTQ_BAD_CHAIN);
		d = desc_read(&w.table[i]);
		if (d.flags & VIRTQ_DESC_F_INDIRECT) {
			err = walk_enter(q, &w, &d);
			if (err)
				return err;
			i = 0;
			d.flags = VIRTQ_DESC_F_NEXT;
			continue;
		}
		if (!!(d.flags & VIRTQ_DESC_F_WRITE) != writable)
			return virtq_break(q, VIRTQ_BAD_DIRECTION);
		err = chain_add(q, chain, &d);
		if (err)
			return err;
		i = d.next;
	} while (d.flags & VIRTQ_DESC_F_NEXT);
	return 0;
}

int virtq_next(struct virtq *q, bool writable, struct virtq_chain *chain)
{
	int rc = 1;

	if (q->fault)
		return -EBADMSG;
	if (!virtq_offered(q))
		rc = virtq_poll(q);
	if (rc <= 0)
		return rc;
	chain->head =
		load16(&q->avail->ring[q->next_avail & (q->addr.size - 1)]);
	chain->n = 0;
	chain->len = 0;
	rc = walk_chain(q, writable, chain);
	if (rc)
		return rc;
	q->next_avail++;
	return 1;
}

void virtq_give(struct virtq *q, uint16_t head, uint32_t len)
{
	uint16_t at = (uint16_t)(q->used_idx + q->pending++);
	struct virtq_used_elem *e = &q->used->ring[at & (q->addr.size - 1)];

	__atomic_store_n(&e->id, htole32(head), __ATOMIC_RELAXED);
	__atomic_store_n(&e->len, htole32(len), __ATOMIC_RELAXED);
}

void virtq_publish(struct virtq *q)
{
	if (!q->pending || q->fault == VIRTQ_BAD_RING)
		return;
	q->used_idx = (uint16_t)(q->used_idx + q->pending);
	q->pending = 0;
	/* Entries and the chains' contents are to be seen before the index */
	__atomic_store_n(&q->used->idx, htole16(q->used_idx), __ATOMIC_RELEASE);
}

bool virtq_wants_call(struct virtq *q)
{
	uint16_t moved = (uint16_t)(q->used_idx - q->call_idx);
	bool wants;

	if (q->fault == VIRTQ_BAD_RING || !moved)
		return false;
	/* 2.7.7.2, 2.7.10: the index is out before we look whether to call */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (q->event_idx)
		wants = !q->called ||
			(uint16_t)(q->used_idx - used_event(q) - 1) < moved;
	else
		wants = !(load16(&q->avail->flags) &
			  VIRTQ_AVAIL_F_NO_INTERRUPT);
	q->called = true;
	q->call_idx = q->used_idx;
	return wants;
}

void virtq_kicks_off(struct virtq *q)
{
	if (!q->event_idx && !q->fault)
		store16(&q->used->flags, VIRTQ_USED_F_NO_NOTIFY);
}

bool virtq_kicks_on(struct virtq *q)
{
	if (q->fault)
		return false;
	if (q->event_idx)
		store16(avail_event(q), q->avail_idx);
	else
		store16(&q->used->flags, 0);
	/* The wish is out before we look whether it came too late */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return load16(&q->avail->idx) != q->avail_idx;
}
