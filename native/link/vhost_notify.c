/* SPDX-License-Identifier: GPL-2.0-or-later */
/* vhost_notify.c - What rings and their eventfds tell, each way
 *
 * For those who read frames from rings (tap_vhost.c) and those who place them
 * there (vhost_place.c).
 */

#include <errno.h>
#include <unistd.h>

#include "base/sys.h"
#include "link/tap_vhost.h"

void vhost_signal(int fd)
{
	uint64_t one = 1;

	(void)!sys_write(fd, &one, sizeof(one));
}

void vhost_wake(const struct vhost_queue *q)
{
	vhost_signal(q->kick_fd);
}

void vhost_consume(struct tap *t, struct vhost_queue *q)
{
	uint64_t kicks;
	ssize_t n;

	do
		n = sys_read(q->kick_fd, &kicks, sizeof(kicks));
	while (n < 0 && errno == EINTR);
	if (n == (ssize_t)sizeof(kicks) || (n < 0 && errno == EAGAIN))
		return;
	virtq_break(&q->vq, VIRTQ_BAD_KICK);
	vhost_of(t)->err = EPROTO;
	t->more = true;
}

void vhost_check(struct tap *t, struct vhost_queue *q)
{
	struct tap_vhost *v = vhost_of(t);
	long index = q - v->queue;

	if (v->mem.lost && !v->err) {
		count(t->cnt, CNT_VHOST_MEMORY_LOST);
		v->err = EFAULT;
	}
	if (v->err) {
		t->more = true; /* the next read tells it */
		t->blocked = true;
	}
	if (!q->started || !q->vq.fault || q->told)
		return;
	q->told = true;
	if (index % 2 == VHOST_TO_GUEST)
		t->blocked = true;
	count(t->cnt, CNT_VHOST_BROKEN);
	flow_log(v->log, *v->now, VHOST_BROKEN, NULL, index, q->vq.fault, 0, 0);
}
