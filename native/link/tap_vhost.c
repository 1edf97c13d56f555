/* SPDX-License-Identifier: GPL-2.0-or-later */
/* tap_vhost.c - Rings of a virtual machine: starting, reading, notifying
 *
 * A frame of the guest is a chain of descriptors: virtio-net header and frame,
 * cut up in any way. It is copied once, into our own buffer, before anybody
 * looks at it, because the guest can change it at any time; what was checked
 * would not be what is used.
 *
 * A batch costs no system call. A read that its bounds end asks for the next
 * one. After the first read we are awake, and look by ourselves (vhost_poll());
 * only before we sleep kicks are asked for, and the ring is looked at once more.
 */

#include "link/tap_vhost.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/macros.h"
#include "base/sys.h"
#include "link/backends.h"

#define VHOST_HDR_MAX 12 /* virtio-net header with its count of buffers */

/* Longest chain that may be a frame. IPv6 does not count its header in 64 KiB */
#define RX_SLOT (VHOST_HDR_MAX + TAP_FRAME_MAX + 40)
#define RX_PAD	(TAP_RX_ALIGN + VHOST_HDR_MAX) /* on top of each frame */
#define RX_BUF	(TAP_BATCH_BYTES + TAP_BATCH * RX_PAD + RX_SLOT + TAP_RX_ALIGN)

/* Notifications */

/* queue_flush() - Show what was given back, and call if the guest wants it */
static void queue_flush(struct tap *t, struct vhost_queue *q)
{
	if (!q->started)
		return;
	virtq_publish(&q->vq);
	if (!virtq_wants_call(&q->vq) || q->call_fd < 0)
		return;
	count(t->cnt, CNT_VHOST_CALLS);
	vhost_signal(q->call_fd);
}

/* From the guest */

/* header_read() - The virtio-net header of a frame, in host order */
static struct vnet_hdr header_read(const struct tap_vhost *v,
				   const uint8_t *buf)
{
	struct vnet_hdr h;

	memcpy(&h, buf, sizeof(h));
	/* 5.1.6.2: only this flag is the guest's to set, and only if... */
	h.flags &= v->features & VHOST_F_CSUM ? VNET_F_NEEDS_CSUM : 0;
	h.hdr_len = le16toh(h.hdr_len);
	h.gso_size = le16toh(h.gso_size);
	h.csum_start = le16toh(h.csum_start);
	h.csum_offset = le16toh(h.csum_offset);
	return h;
}

/* frame_take() - Copy a chain; false: no frame has that length */
static bool frame_take(struct tap *t, const struct virtq_chain *chain,
		       uint8_t *buf, struct tap_rx *rx)
{
	struct tap_vhost *v = vhost_of(t);
	uint8_t *p = buf;

	if (chain->len < v->hdr_len || chain->len > RX_SLOT) {
		count(t->cnt, CNT_DROP_VHOST_LENGTH);
		return false;
	}
	for (unsigned i = 0; i < chain->n; i++) {
		memcpy(p, chain->iov[i].iov_base, chain->iov[i].iov_len);
		p += chain->iov[i].iov_len;
	}
	rx->vh = header_read(v, buf);
	rx->data = buf + v->hdr_len;
	rx->len = chain->len - v->hdr_len;
	return true;
}

/* queue_drain() - A batch of frames; bounded by chains, be they frames or not */
static int queue_drain(struct tap *t, struct vhost_queue *q)
{
	struct virtq_chain *chain = &vhost_of(t)->chain;
	size_t pos = 0, bytes = 0;
	int frames = 0;

	if (q->kicks)
		virtq_kicks_off(&q->vq);
	q->kicks = false;
	t->more = true; /* what is left may have no kick */
	for (unsigned i = 0; i < TAP_BATCH && bytes < TAP_BATCH_BYTES; i++) {
		uint8_t *buf = t->rx_buf + pos;
		int rc = virtq_next(&q->vq, false, chain);

		if (rc <= 0) {
			t->more = false;
			t->drained = true;
			if (!i) /* its kick was for what is gone already */
				vhost_consume(t, q);
			break;
		}
		virtq_give(&q->vq, chain->head, 0);
		if (!q->enabled) {
			count(t->cnt, CNT_DROP_VHOST_DISABLED);
			continue;
		}
		if (!frame_take(t, chain, buf, &t->rx[frames]))
			continue;
		pos = (pos + chain->len + TAP_RX_ALIGN - 1) &
		      ~(size_t)(TAP_RX_ALIGN - 1);
		bytes += t->rx[frames++].len;
	}
	virtq_publish(&q->vq);
	return frames;
}

static int vhost_read(struct tap *t)
{
	struct tap_vhost *v = vhost_of(t);
	struct vhost_queue *q = &v->queue[VHOST_FROM_GUEST];
	int n = 0;

	t->drained = false;
	if (q->started && !v->err) {
		if (q->vq.fault)
			vhost_consume(t, q);
		else
			n = queue_drain(t, q);
		vhost_check(t, q);
	}
	return v->err ? -v->err : n;
}

/* vhost_poll() - As long as we are awake it needs no kick, which would cost the
 * guest more than looking costs us: on real hardware it leaves the guest */
static bool vhost_poll(struct tap *t)
{
	struct vhost_queue *q = &vhost_of(t)->queue[VHOST_FROM_GUEST];

	return q->started && !q->kicks && !q->vq.fault &&
	       virtq_poll(&q->vq) > 0;
}

/* vhost_settle() - Ask for kicks; more may have come before the guest knew */
static void vhost_settle(struct tap *t)
{
	struct vhost_queue *q = &vhost_of(t)->queue[VHOST_FROM_GUEST];

	if (!q->started || q->kicks || q->vq.fault)
		return;
	q->kicks = true;
	if (virtq_kicks_on(&q->vq))
		t->more = true;
}

/* Coming and going */

static void vhost_flush(struct tap *t)
{
	struct tap_vhost *v = vhost_of(t);

	for (unsigned i = 0; i < VHOST_QUEUES; i++) {
		queue_flush(t, &v->queue[i]);
		vhost_check(t, &v->queue[i]);
	}
}

static int vhost_init(struct tap *t, const struct tap_env *env);

/* check() - Is the tap of this kind, and has it such a queue? */
static int check(const struct tap *t, unsigned index)
{
	if (t->ops->init != vhost_init)
		return -EOPNOTSUPP;
	return index < VHOST_QUEUES ? 0 : -EINVAL;
}

/* kind_of() - A kick for the ring to the guest means that there is room */
static enum epoll_type kind_of(unsigned index)
{
	return index % 2 == VHOST_TO_GUEST ? EPOLL_ROOM : EPOLL_TAP;
}

int vhost_set_features(struct tap *t, uint64_t features)
{
	struct tap_vhost *v = vhost_of(t);
	const uint64_t uso = VHOST_F_GUEST_USO4 | VHOST_F_GUEST_USO6;
	const uint64_t sends = VHOST_F_CSUM | VHOST_F_HOST_TSO4 |
			       VHOST_F_HOST_TSO6;
	int err = check(t, 0);

	if (err)
		return err;
	if (features & ~VHOST_FEATURES)
		return -EINVAL;
	for (unsigned i = 0; i < VHOST_QUEUES; i++)
		if (v->queue[i].started)
			return -EBUSY;
	v->features = features;
	/* 5.1.6.1: the count is there with either of the two */
	v->hdr_len = features & (VHOST_F_VERSION_1 | VHOST_F_MRG_RXBUF) ?
			     VHOST_HDR_MAX :
			     (uint32_t)sizeof(struct vnet_hdr);
	t->uso = (features & uso) == uso;
	t->merge = !(features & sends);
	return 0;
}

int vhost_set_memory(struct tap *t, const struct guest_region *regions,
		     unsigned n)
{
	struct tap_vhost *v = vhost_of(t);
	int err = check(t, 0);

	if (err)
		return err;
	vhost_flush(t);
	err = guest_mem_set(&v->mem, regions, n);
	if (err)
		return err;
	count_n(t->cnt, CNT_VHOST_MEMORY_UNSEALED, v->mem.unsealed);
	for (unsigned i = 0; i < VHOST_QUEUES; i++) {
		struct vhost_queue *q = &v->queue[i];

		if (!q->started)
			continue;
		(void)virtq_remap(&q->vq);
		vhost_check(t, q);
	}
	return 0;
}

/* unblock() - Both are shared with the front-end, which has no reason to undo
 * this: it would stop nobody but its own guest */
static int unblock(int kick_fd, int call_fd)
{
	if (sys_fcntl(kick_fd, F_SETFL, O_NONBLOCK) ||
	    (call_fd >= 0 && sys_fcntl(call_fd, F_SETFL, O_NONBLOCK)))
		return -errno;
	return 0;
}

int vhost_start(struct tap *t, unsigned index, const struct virtq_addr *addr,
		uint16_t base, int kick_fd, int call_fd)
{
	struct tap_vhost *v = vhost_of(t);
	struct vhost_queue *q;
	int err = check(t, index);

	if (err)
		return err;
	q = &v->queue[index];
	if (kick_fd < 0)
		return -EINVAL;
	if (q->started)
		return -EBUSY;
	err = virtq_start(&q->vq, &v->mem, addr, base,
			  v->features & VHOST_F_EVENT_IDX,
			  v->features & VHOST_F_INDIRECT);
	if (!err)
		err = unblock(kick_fd, call_fd);
	if (!err)
		err = tap_fd_add(t, kind_of(index), kick_fd);
	if (err)
		return err;
	q->started = true;
	q->enabled = false;
	q->kicks = true;
	q->told = false;
	q->kick_fd = kick_fd;
	q->call_fd = call_fd;
	if (index == VHOST_FROM_GUEST)
		t->fd = kick_fd;
	return 0;
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

int vhost_stop(struct tap *t, unsigned index)
{
	struct vhost_queue *q;
	int err = check(t, index);

	if (err)
		return err;
	q = &vhost_of(t)->queue[index];
	if (q->started) {
		queue_flush(t, q);
		/* The front-end has it too: closing it is not enough */
		tap_fd_del(t, kind_of(index), q->kick_fd);
	}
	q->started = false;
	q->enabled = false;
	close_fd(&q->kick_fd);
	close_fd(&q->call_fd);
	if (index == VHOST_FROM_GUEST)
		t->fd = -1;
	if (index == VHOST_TO_GUEST)
		t->blocked = true;
	return q->vq.next_avail;
}

int vhost_enable(struct tap *t, unsigned index, bool enabled)
{
	struct vhost_queue *q;
	int err = check(t, index);

	if (err)
		return err;
	q = &vhost_of(t)->queue[index];
	if (!q->started)
		return -ENOTCONN;
	q->enabled = enabled;
	if (index == VHOST_TO_GUEST)
		t->blocked = true; /* until vhost_room() has looked */
	if (enabled) /* it may have kicked whoever was here before us */
		vhost_wake(q);
	vhost_room(t);
	return 0;
}

int vhost_set_call(struct tap *t, unsigned index, int call_fd)
{
	struct vhost_queue *q;
	int err = check(t, index);

	if (err)
		return err;
	q = &vhost_of(t)->queue[index];
	if (!q->started)
		return -ENOTCONN;
	if (call_fd >= 0 && sys_fcntl(call_fd, F_SETFL, O_NONBLOCK))
		return -errno;
	close_fd(&q->call_fd);
	q->call_fd = call_fd;
	/* Whatever the old one was told, perhaps nobody heard */
	if (call_fd >= 0)
		vhost_signal(call_fd);
	return 0;
}

static void vhost_detach(struct tap *t)
{
	struct tap_vhost *v = vhost_of(t);

	for (unsigned i = 0; i < VHOST_QUEUES; i++)
		(void)vhost_stop(t, i);
	(void)guest_mem_set(&v->mem, NULL, 0);
	v->err = 0;
	backlog_clear(&v->backlog);
	(void)vhost_set_features(t, 0);
}

static void vhost_free(struct tap *t)
{
	struct tap_vhost *v = vhost_of(t);

	if (!v)
		return;
	vhost_detach(t);
	guest_mem_free(&v->mem);
	backlog_free(&v->backlog);
	free(v);
	t->own = NULL;
}

static int vhost_init(struct tap *t, const struct tap_env *env)
{
	struct tap_vhost *v = sys_calloc(1, sizeof(*v));
	int err;

	if (!v)
		return -ENOMEM;
	t->own = v;
	for (unsigned i = 0; i < VHOST_QUEUES; i++)
		v->queue[i].kick_fd = v->queue[i].call_fd = -1;
	v->log = env->log;
	v->now = env->now;
	err = backlog_init(&v->backlog);
	if (!err)
		err = guest_mem_init(&v->mem);
	return err ? err : vhost_set_features(t, 0);
}

const struct tap_ops tap_vhost_ops = {
	.name = "vhost",
	.mtu_max = TAP_FRAME_MAX - ETH_HLEN_,
	.rx_size = RX_BUF,
	.init = vhost_init,
	.read = vhost_read,
	.write = vhost_write,
	.flush = vhost_flush,
	.poll = vhost_poll,
	.settle = vhost_settle,
	.room = vhost_room,
	.detach = vhost_detach,
	.free = vhost_free,
};
