/* SPDX-License-Identifier: GPL-2.0-or-later */
/* tap_vhost.h - Backend of the tap for rings in a virtual machine's memory
 *
 * The datapath's half of vhost-user: the messages are Python's, the rings are
 * ours. Queues come in pairs, as virtio numbers them: 2n is where the guest
 * receives, 2n + 1 where it sends. One pair is offered today; nothing but
 * VHOST_PAIRS, and the choice of a pair for a frame, would change with more.
 *
 * tap_vhost.c has what comes from the guest and how rings start and stop,
 * vhost_place.c what goes to it.
 */
#ifndef PASSTPY_LINK_TAP_VHOST_H
#define PASSTPY_LINK_TAP_VHOST_H

#include "link/backlog.h"
#include "link/guest_mem.h"
#include "link/tap.h"
#include "link/virtq.h"
#include "table/flow_log.h"

#define VHOST_PAIRS  1
#define VHOST_QUEUES (2 * VHOST_PAIRS)

enum { VHOST_TO_GUEST, VHOST_FROM_GUEST }; /* of a pair */

/* Feature bits (virtio 1.2, 5.1.3 and 6), as far as they matter here */
#define VHOST_F(bit)	   (UINT64_C(1) << (bit))
#define VHOST_F_CSUM	   VHOST_F(0)
#define VHOST_F_GUEST_CSUM VHOST_F(1)
#define VHOST_F_GUEST_TSO4 VHOST_F(7)
#define VHOST_F_GUEST_TSO6 VHOST_F(8)
#define VHOST_F_GUEST_ECN  VHOST_F(9)
#define VHOST_F_HOST_TSO4  VHOST_F(11)
#define VHOST_F_HOST_TSO6  VHOST_F(12)
#define VHOST_F_HOST_ECN   VHOST_F(13)
#define VHOST_F_MRG_RXBUF  VHOST_F(15)
#define VHOST_F_INDIRECT   VHOST_F(28)
#define VHOST_F_EVENT_IDX  VHOST_F(29)
#define VHOST_F_VERSION_1  VHOST_F(32)
#define VHOST_F_GUEST_USO4 VHOST_F(54)
#define VHOST_F_GUEST_USO6 VHOST_F(55)
#define VHOST_F_HOST_USO   VHOST_F(56)

/* What we can do; GUEST_* is what the guest takes, HOST_* what it may send */
#define VHOST_FEATURES                                                \
	(VHOST_F_CSUM | VHOST_F_GUEST_CSUM | VHOST_F_GUEST_TSO4 |     \
	 VHOST_F_GUEST_TSO6 | VHOST_F_GUEST_ECN | VHOST_F_HOST_TSO4 | \
	 VHOST_F_HOST_TSO6 | VHOST_F_HOST_ECN | VHOST_F_MRG_RXBUF |   \
	 VHOST_F_INDIRECT | VHOST_F_EVENT_IDX | VHOST_F_VERSION_1 |   \
	 VHOST_F_GUEST_USO4 | VHOST_F_GUEST_USO6 | VHOST_F_HOST_USO)

/** struct vhost_queue
 * @vq:		The rings; sound only while @started
 * @started:	Rings are known and used
 * @enabled:	Frames pass; else those of the guest are thrown away, and it
 *		gets none
 * @kicks:	The guest was asked to kick
 * @told:	That @vq is broken was counted and logged
 * @kick_fd:	Readable when the guest wants something, or -1
 * @call_fd:	Written when we do, or -1
 */
struct vhost_queue {
	struct virtq vq;
	bool started;
	bool enabled;
	bool kicks;
	bool told;
	int kick_fd;
	int call_fd;
};

/** struct tap_vhost
 * @mem:	The guest's memory
 * @queue:	Queues
 * @features:	VHOST_F_* negotiated
 * @hdr_len:	Bytes of the virtio-net header: 10, or 12 with a buffer count
 * @err:	errno that ends this guest's session, told by the next read
 * @backlog:	Frames that wait for buffers, the one that met the end of them
 *		first
 * @chain:	The chain at hand
 * @log:	Where broken rings are told
 * @now:	ns, for the log
 */
struct tap_vhost {
	struct guest_mem mem;
	struct vhost_queue queue[VHOST_QUEUES];
	uint64_t features;
	uint32_t hdr_len;
	int err;
	struct backlog backlog;
	struct virtq_chain chain;
	struct flow_log *log;
	const uint64_t *now;
};

static inline struct tap_vhost *vhost_of(const struct tap *t)
{
	return t->own;
}

/* What vhost-user's messages mean. Each returns -EOPNOTSUPP when the tap is of
 * another kind, and -EINVAL when it has no such queue. The tap is blocked until
 * there is a ring to the guest, started and enabled; any of these may change
 * that, which the gate before host sockets is to follow. */

/* vhost_set_features() - What was negotiated
 * Return: 0; -EINVAL not ours to grant; -EBUSY a ring runs */
int vhost_set_features(struct tap *t, uint64_t features);

/* vhost_set_memory() - Map the guest's memory anew; running rings go on there,
 * or break if they are no longer in it
 * Return: 0, or the errors of guest_mem_set(): all stays as it was */
int vhost_set_memory(struct tap *t, const struct guest_region *regions,
		     unsigned n);

/**
 * vhost_start() - Start a ring, and hear its kicks; it stays disabled
 * @index:	Queue
 * @addr:	Where its parts are
 * @base:	First entry to take
 * @kick_fd:	Taken over on success, like @call_fd
 * @call_fd:	Or -1: the guest polls
 *
 * Return: 0; -EINVAL what virtq_start() refuses; -EBUSY it runs; -EFAULT not in
 * memory
 */
int vhost_start(struct tap *t, unsigned index, const struct virtq_addr *addr,
		uint16_t base, int kick_fd, int call_fd);

/* vhost_stop() - Stop a ring, close its descriptors; nothing if it does not run
 * Return: entry of the available ring that would have been next, or -errno */
int vhost_stop(struct tap *t, unsigned index);

/* vhost_enable() - Let frames pass, or not
 * Return: 0; -ENOTCONN it does not run */
int vhost_enable(struct tap *t, unsigned index, bool enabled);

/* vhost_set_call() - Replace the call descriptor of a running ring
 * Return: 0, and the descriptor is taken over; -ENOTCONN it does not run */
int vhost_set_call(struct tap *t, unsigned index, int call_fd);

/* What both files share */

static inline bool vhost_runs(const struct vhost_queue *q)
{
	return q->started && q->enabled && !q->vq.fault;
}

/* vhost_notify.c */

/* vhost_signal() - Add to an eventfd; when its counter is full the other end
 * has not heard the last one yet, and will */
void vhost_signal(int fd);

/* vhost_wake() - Be called again as if the guest had kicked */
void vhost_wake(const struct vhost_queue *q);

/* vhost_consume() - The kick was heard. A descriptor that is no eventfd, or at
 * its end, would keep us busy for ever: that ends the session */
void vhost_consume(struct tap *t, struct vhost_queue *q);

/* vhost_check() - Tell of a ring that broke, of memory that is gone; to be
 * called after a queue was used */
void vhost_check(struct tap *t, struct vhost_queue *q);

/* vhost_write(), vhost_room() - Of struct tap_ops, in vhost_place.c */
int vhost_write(struct tap *t, struct frame_out *f, const struct iovec *payload,
		unsigned n, uint32_t len);
void vhost_room(struct tap *t);

#endif /* PASSTPY_LINK_TAP_VHOST_H */
