/* SPDX-License-Identifier: GPL-2.0-or-later */
/* vhost_place.c - Frames for a virtual machine, into its receive buffers
 *
 * A frame is copied once, from where handlers have it into the guest's memory:
 * over as many buffers as it takes when they are mergeable, else into one. The
 * guest sees nothing of it before the flush, so a frame that finds too few
 * buffers is undone by going back to where it began.
 *
 * Then the tap is blocked, and the frame waits (in front of what handlers still
 * send before they notice) until the guest kicks because it has more. When
 * buffers are fewer than the frame needs although the guest has given all it
 * ever gives at a time, waiting would be in vain: a super-segment is cut up
 * then, as it is for a guest that takes none, and its segments go one by one.
 */

#include <endian.h>
#include <errno.h>
#include <string.h>

#include "base/macros.h"
#include "link/offload.h"
#include "link/tap_vhost.h"

#define COUNT_AT 10 /* offset of the number of buffers in the header */

/** struct kept - A frame that waits, in the backlog; headers and payload follow
 * @size:	Bytes of it all, a multiple of 8
 * @hdr_len:	Bytes of headers
 * @len:	Bytes of payload
 * @done:	Segments of it that the guest has
 * @vh:		Offloads left
 */
struct kept {
	uint32_t size;
	uint32_t hdr_len;
	uint32_t len;
	uint32_t done;
	struct vnet_hdr vh;
} __attribute__((aligned(8)));

/** struct source - Bytes to be copied
 * @iov:	Pieces
 * @off:	Bytes of the first piece that were copied
 * @left:	Bytes left in all
 */
struct source {
	const struct iovec *iov;
	size_t off;
	size_t left;
};

static struct vhost_queue *to_guest(struct tap_vhost *v)
{
	return &v->queue[VHOST_TO_GUEST];
}

/* chain_fill() - Copy the next bytes into a chain; returns their number */
static uint32_t chain_fill(const struct virtq_chain *chain, struct source *src)
{
	uint32_t done = 0;

	for (unsigned i = 0; i < chain->n && src->left; i++) {
		uint8_t *to = chain->iov[i].iov_base;
		size_t room = MIN(chain->iov[i].iov_len, src->left);

		done += (uint32_t)room;
		src->left -= room;
		while (room) {
			size_t part = MIN(src->iov->iov_len - src->off, room);

			memcpy(to, (uint8_t *)src->iov->iov_base + src->off,
			       part);
			to += part;
			room -= part;
			src->off += part;
			if (src->off == src->iov->iov_len) {
				src->iov++;
				src->off = 0;
			}
		}
	}
	return done;
}

/* chain_byte() - Where a byte of a chain is; @off is below its length */
static uint8_t *chain_byte(const struct virtq_chain *chain, size_t off)
{
	const struct iovec *iov = chain->iov;

	while (off >= iov->iov_len)
		off -= iov++->iov_len;
	return (uint8_t *)iov->iov_base + off;
}

/** struct placing - A frame on its way into buffers
 * @mark:	Where it began
 * @chains:	Buffers taken
 * @count:	Both bytes of the first one's count of buffers
 */
struct placing {
	struct virtq_mark mark;
	uint16_t chains;
	uint8_t *count[2];
};

/* too_few() - There is no buffer left: wait for more, or never? */
static int too_few(struct virtq *vq, const struct placing *p)
{
	bool all = !p->mark.pending && p->chains >= vq->most;

	vq->most = MAX(vq->most, p->chains);
	return all && p->chains ? -EMSGSIZE : -EAGAIN;
}

/* place_chain() - Take a buffer and fill it */
static int place_chain(struct tap_vhost *v, struct placing *p,
		       struct source *src)
{
	bool merge = v->features & VHOST_F_MRG_RXBUF;
	struct virtq *vq = &to_guest(v)->vq;
	struct virtq_chain *chain = &v->chain;
	int rc = virtq_next(vq, true, chain);

	if (rc < 0)
		return rc;
	if (!rc)
		return too_few(vq, p);
	if (!chain->len || (!p->chains && chain->len < v->hdr_len))
		return virtq_break(vq, VIRTQ_BAD_LENGTH);
	if (!merge && chain->len < src->left)
		return -EMSGSIZE;
	if (!p->chains++ && v->hdr_len > COUNT_AT) {
		p->count[0] = chain_byte(chain, COUNT_AT);
		p->count[1] = chain_byte(chain, COUNT_AT + 1);
	}
	virtq_give(vq, chain->head, chain_fill(chain, src));
	return 0;
}

/* place_bytes() - Place header and frame, or nothing */
static int place_bytes(struct tap_vhost *v, const struct iovec *iov, size_t len)
{
	struct virtq *vq = &to_guest(v)->vq;
	struct placing p = { .mark = virtq_mark(vq) };
	struct source src = { .iov = iov, .left = len };

	while (src.left) {
		int err = place_chain(v, &p, &src);

		if (err) {
			virtq_rewind(vq, p.mark);
			return err;
		}
	}
	if (v->hdr_len > COUNT_AT) {
		*p.count[0] = (uint8_t)p.chains;
		*p.count[1] = (uint8_t)(p.chains >> 8);
	}
	return 0;
}

/* place() - Place a frame that the guest can finish, or that is finished */
static int place(struct tap_vhost *v, const struct frame_out *f,
		 const struct iovec *payload, unsigned n)
{
	struct {
		struct vnet_hdr vh;
		uint16_t count; /* set when it is known */
	} __attribute__((packed)) h = { .vh = f->vh };
	struct iovec iov[2 + TAP_IOV_MAX];
	size_t len = v->hdr_len + f->hdr_len;

	h.vh.hdr_len = htole16(f->vh.hdr_len);
	h.vh.gso_size = htole16(f->vh.gso_size);
	h.vh.csum_start = htole16(f->vh.csum_start);
	h.vh.csum_offset = htole16(f->vh.csum_offset);
	iov[0] = (struct iovec){ &h, v->hdr_len };
	iov[1] = (struct iovec){ (void *)f->hdr, f->hdr_len };
	for (unsigned i = 0; i < n; i++) {
		iov[2 + i] = payload[i];
		len += payload[i].iov_len;
	}
	return place_bytes(v, iov, len);
}

/* takes() - Can the guest do what this frame leaves to be done? */
static bool takes(const struct tap_vhost *v, const struct frame_out *f)
{
	bool v4 = f->hdr[ETH_HLEN_] >> 4 == 4;
	uint64_t needs = 0;

	if (f->vh.flags & VNET_F_NEEDS_CSUM)
		needs |= VHOST_F_GUEST_CSUM;
	if (f->vh.gso_type & VNET_GSO_ECN)
		needs |= VHOST_F_GUEST_ECN;
	switch (f->vh.gso_type & ~VNET_GSO_ECN) {
	case VNET_GSO_NONE:
		break;
	case VNET_GSO_TCPV4:
		needs |= VHOST_F_GUEST_TSO4;
		break;
	case VNET_GSO_TCPV6:
		needs |= VHOST_F_GUEST_TSO6;
		break;
	case VNET_GSO_UDP_L4:
		needs |= v4 ? VHOST_F_GUEST_USO4 : VHOST_F_GUEST_USO6;
		break;
	default:
		return false;
	}
	return (v->features & needs) == needs;
}

/** struct cutting - A frame that is finished in software
 * @v:		Where it goes
 * @seen:	Segments made
 * @done:	Segments that the guest has; these are passed over
 * @err:	Why the next one is not among them, or 0
 */
struct cutting {
	struct tap_vhost *v;
	uint32_t seen;
	uint32_t done;
	int err;
};

static int cut_emit(void *arg, const struct frame_out *f,
		    const struct iovec *payload, unsigned n)
{
	struct cutting *c = arg;

	if (c->seen++ < c->done)
		return 0;
	c->err = place(c->v, f, payload, n);
	c->done += !c->err;
	return c->err;
}

/**
 * deliver() - Place a frame, whole or in segments
 * @done:	Segments that were placed before; moved on
 *
 * Return: 0; -EAGAIN no buffer for now; -EMSGSIZE there will be none that is
 * long enough; -EBADMSG the ring is broken
 */
static int deliver(struct tap_vhost *v, const struct frame_out *f,
		   const struct iovec *payload, unsigned n, uint32_t len,
		   uint32_t *done)
{
	struct cutting c = { .v = v, .done = *done };
	int err;

	if (!c.done && takes(v, f)) {
		err = place(v, f, payload, n);
		if (err != -EMSGSIZE || f->vh.gso_type == VNET_GSO_NONE)
			return err;
	}
	(void)offload_emit(f, payload, n, len, cut_emit, &c);
	*done = c.done;
	return c.err;
}

/* block() - No buffers: nothing goes to the guest until it has more */
static void block(struct tap *t)
{
	struct vhost_queue *q = to_guest(vhost_of(t));

	if (!t->blocked)
		count(t->cnt, CNT_TAP_BLOCKED);
	t->blocked = true;
	q->kicks = true;
	/* More came before the guest knew that we wait: it may not kick */
	if (virtq_kicks_on(&q->vq))
		vhost_wake(q);
}

/* keep() - The frame waits as well, or is refused */
static int keep(struct tap_vhost *v, const struct frame_out *f,
		const struct iovec *payload, unsigned n, uint32_t len,
		uint32_t done)
{
	struct kept k = {
		.hdr_len = f->hdr_len, .len = len, .done = done, .vh = f->vh
	};
	uint8_t *p;

	k.size = (uint32_t)(sizeof(k) + k.hdr_len + len + 7) & ~7U;
	p = backlog_add(&v->backlog, k.size);
	if (!p)
		return -EAGAIN;
	memcpy(p, &k, sizeof(k));
	p += sizeof(k);
	memcpy(p, f->hdr, f->hdr_len);
	p += f->hdr_len;
	for (unsigned i = 0; i < n; i++) {
		memcpy(p, payload[i].iov_base, payload[i].iov_len);
		p += payload[i].iov_len;
	}
	return 0;
}

/* send_kept() - Send what waits, in order; -EAGAIN: some still does */
static int send_kept(struct tap *t)
{
	struct tap_vhost *v = vhost_of(t);

	while (backlog_len(&v->backlog)) {
		struct kept *k =
			(struct kept *)(void *)backlog_head(&v->backlog);
		uint8_t *hdr = (uint8_t *)(k + 1);
		struct iovec payload = { hdr + k->hdr_len, k->len };
		struct frame_out f = { .vh = k->vh, .hdr_len = k->hdr_len };
		int err;

		memcpy(f.hdr, hdr, k->hdr_len);
		err = deliver(v, &f, &payload, 1, k->len, &k->done);
		if (err == -EAGAIN)
			return err;
		if (err)
			count(t->cnt, CNT_TAP_TX_ERRORS);
		backlog_drop(&v->backlog, k->size);
	}
	return 0;
}

int vhost_write(struct tap *t, struct frame_out *f, const struct iovec *payload,
		unsigned n, uint32_t len)
{
	struct tap_vhost *v = vhost_of(t);
	struct vhost_queue *q = to_guest(v);
	uint32_t done = 0;
	int err;

	if (!vhost_runs(q) || v->err)
		return -ENOTCONN;
	if (backlog_len(&v->backlog))
		return keep(v, f, payload, n, len, 0);
	if (q->kicks)
		virtq_kicks_off(&q->vq);
	q->kicks = false;
	err = deliver(v, f, payload, n, len, &done);
	if (err == -EAGAIN) {
		block(t);
		err = keep(v, f, payload, n, len, done);
	}
	vhost_check(t, q);
	return err;
}

void vhost_room(struct tap *t)
{
	struct tap_vhost *v = vhost_of(t);
	struct vhost_queue *q = to_guest(v);

	if (!q->started)
		return;
	vhost_consume(t, q);
	if (vhost_runs(q) && t->blocked && !v->err) {
		if (send_kept(t))
			block(t);
		else
			t->blocked = false;
	}
	vhost_check(t, q);
}
