/* SPDX-License-Identifier: GPL-2.0-or-later */
/* tap.c - What all backends share: counting, capture, injected faults */

#include "link/tap.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/macros.h"
#include "base/sys.h"
#include "link/fragment.h"
#include "link/merge.h"
#include "link/tap_faults.h"
#include "link/tap_lent.h"

/* Copies of one flush; beyond, what waits is sent earlier */
#define COPIES (64 * 1024)
_Static_assert(TAP_COPY_MAX <= COPIES, "a copy has its place");

int tap_init(struct tap *t, const struct tap_ops *ops,
	     const struct tap_env *env)
{
	t->fd = -1;
	t->ops = ops;
	t->cnt = env->cnt;
	t->epoll = env->epoll;
	t->blocked = ops->room;
	pcap_init(&t->pcap);
	t->rx_buf = sys_aligned_alloc(
		TAP_RX_ALIGN,
		ROUND_DOWN(ops->rx_size + TAP_RX_ALIGN - 1, TAP_RX_ALIGN));
	t->copies = sys_malloc(COPIES);
	if (!t->rx_buf || !t->copies || tap_lent_init(t))
		return -ENOMEM;
#ifdef PASSTPY_FAULTS
	if (tap_faults_init(t))
		return -ENOMEM;
#endif
	return ops->init ? ops->init(t, env) : 0;
}

void tap_free(struct tap *t)
{
	if (!t->ops) /* it never was made */
		return;
#ifdef PASSTPY_FAULTS
	tap_faults_free(t);
#endif
	pcap_free(&t->pcap);
	capture_stop_all(&t->captures);
	if (t->ops->free)
		t->ops->free(t);
	tap_lent_free(t);
	free(t->copies);
	t->copies = NULL;
	free(t->rx_buf);
	t->rx_buf = NULL;
	if (t->fd >= 0)
		close(t->fd);
	t->fd = -1;
}

/* tap_is_watched() - Does anybody capture? One question for all of them */
static inline bool tap_is_watched(const struct tap *t)
{
	return (t->pcap.fd >= 0) | (t->captures != NULL);
}

/* tap_show() - Show a frame to those who capture */
static void tap_show(struct tap *t, bool from_guest, const struct iovec *iov,
		     unsigned n)
{
	if (!pcap_frame(&t->pcap, iov, n))
		count(t->cnt, CNT_PCAP_LOST);
	if (t->captures)
		capture_frame(t->captures, from_guest, iov, n);
}

/* tap_count_read() - Count and capture a batch as it came from the guest */
static void tap_count_read(struct tap *t, int n)
{
	uint64_t bytes = 0;

	for (int i = 0; i < n; i++)
		bytes += t->rx[i].len;
	count_n(t->cnt, CNT_TAP_RX_FRAMES, (uint64_t)n);
	count_n(t->cnt, CNT_TAP_RX_BYTES, bytes);

	if (!tap_is_watched(t))
		return;
	for (int i = 0; i < n; i++) {
		struct iovec iov = { t->rx[i].data, t->rx[i].len };

		tap_show(t, true, &iov, 1);
	}
}

int tap_read(struct tap *t)
{
	int n;

	assert(!t->batches); /* their payload may lie where frames go now */
	t->more = false;     /* or the backend says so again */
	n = t->ops->read(t);
	if (n > 0)
		tap_count_read(t, n);
#ifdef PASSTPY_FAULTS
	if (n >= 0)
		n = tap_faults_read(t, n);
#endif
	if (t->merge && n > 1)
		n = (int)merge_batch(t->rx, (unsigned)n);
	return n;
}

static void tap_capture_sent(struct tap *t, const struct frame_out *f,
			     const struct iovec *payload, unsigned n)
{
	struct iovec iov[1 + TAP_IOV_MAX];

	iov[0].iov_base = (void *)f->hdr;
	iov[0].iov_len = f->hdr_len;
	for (unsigned i = 0; i < n; i++)
		iov[1 + i] = payload[i];
	tap_show(t, false, iov, 1 + n);
}

/* tap_put() - Hand one frame to the backend, count and capture it */
static int tap_put(struct tap *t, struct frame_out *f,
		   const struct iovec *payload, unsigned n, uint32_t len)
{
	int err;

	assert(n <= TAP_IOV_MAX && f->hdr_len <= TAP_HDR_MAX);
#ifdef PASSTPY_FAULTS
	err = tap_faults_write(t, f, payload, n, len);
#else
	err = t->ops->write(t, f, payload, n, len);
#endif
	if (err) {
		count(t->cnt, CNT_TAP_TX_ERRORS);
		return err;
	}
	count(t->cnt, CNT_TAP_TX_FRAMES);
	count_n(t->cnt, CNT_TAP_TX_BYTES, (uint64_t)f->hdr_len + len);
	if (tap_is_watched(t))
		tap_capture_sent(t, f, payload, n);
	return 0;
}

static int put_part(void *arg, struct frame_out *f, const struct iovec *payload,
		    unsigned n, uint32_t len)
{
	struct tap *t = arg;
	int err = tap_put(t, f, payload, n, len);

	if (!err)
		count(t->cnt, CNT_FRAGMENTS_TO_TAP);
	return err;
}

/* tap_put_packet() - The same, as fragments if the guest's MTU asks for it */
static int tap_put_packet(struct tap *t, struct frame_out *f,
			  const struct iovec *payload, unsigned n, uint32_t len)
{
	if (!fragment_is_needed(f, len, t->mtu))
		return tap_put(t, f, payload, n, len);
	return fragment_emit(f, payload, n, len, t->mtu, t->frag_id++, put_part,
			     t);
}

/* flush() - Send what waits; whatever was lent or copied is not needed then */
static void flush(struct tap *t)
{
	tap_lent_check(t);
	t->ops->flush(t);
	t->copied = 0;
}

/* copy() - Bytes for a backend that refers to them until the flush */
static void *copy(struct tap *t, const void *payload, uint32_t len)
{
	uint8_t *p;

	if (t->copied + len > COPIES)
		flush(t);
	p = t->copies + t->copied;
	memcpy(p, payload, len);
	t->copied += len;
	return p;
}

int tap_send(struct tap *t, struct frame_out *f, const void *payload,
	     uint32_t len)
{
	struct iovec iov = { (void *)(uintptr_t)payload, len };

	assert(len <= TAP_COPY_MAX);
	if (!len)
		return tap_put_packet(t, f, NULL, 0, 0);
	if (t->ops->refers)
		iov.iov_base = copy(t, payload, len);
	return tap_put_packet(t, f, &iov, 1, len);
}

struct tap_batch tap_batch_begin(struct tap *t)
{
	t->batches++;
	return (struct tap_batch){ .t = t };
}

int tap_batch_send(struct tap_batch *b, struct frame_out *f,
		   const struct iovec *payload, unsigned n, uint32_t len)
{
	b->frames++;
	tap_lent_add(b->t, payload, n);
	return tap_put_packet(b->t, f, payload, n, len);
}

void tap_batch_end(struct tap_batch *b)
{
	assert(b->t->batches);
	if (b->frames)
		flush(b->t);
	b->t->batches--;
}

int tap_inject(struct tap *t, const uint8_t *frame, uint32_t len)
{
	struct frame_out f = { .hdr_len = ETH_HLEN_ };
	struct iovec payload;
	int err;

	if (len < ETH_HLEN_ || len > TAP_FRAME_MAX)
		return -EMSGSIZE;
	memcpy(f.hdr, frame, ETH_HLEN_);
	payload.iov_base = (void *)(uintptr_t)(frame + ETH_HLEN_);
	payload.iov_len = len - ETH_HLEN_;
	err = tap_put(t, &f, &payload, 1, len - ETH_HLEN_);
	flush(t); /* the frame is the caller's */
	return err;
}

void tap_flush(struct tap *t)
{
	assert(!t->batches);
	flush(t);
}

bool tap_poll(struct tap *t)
{
	if (!t->more && t->ops->poll)
		t->more = t->ops->poll(t);
	return t->more;
}

void tap_settle(struct tap *t)
{
	if (t->ops->settle)
		t->ops->settle(t);
}

void tap_room(struct tap *t)
{
	if (t->ops->room)
		t->ops->room(t);
}

void tap_watch(struct tap *t)
{
	if (t->ops->watch)
		t->ops->watch(t);
}

int tap_fd_add(struct tap *t, enum epoll_type type, int fd)
{
	return t->epoll ? epoll_add_fixed(t->epoll, type, fd, 0, EPOLLIN) : 0;
}

void tap_fd_del(struct tap *t, enum epoll_type type, int fd)
{
	if (t->epoll)
		epoll_del_fixed(t->epoll, type, fd);
}

void tap_deafen(struct tap *t)
{
	tap_fd_del(t, EPOLL_TAP, t->fd);
}

void tap_detach(struct tap *t)
{
	if (!t->ops->detach)
		return;
	t->ops->detach(t);
	if (t->fd >= 0)
		close(t->fd);
	t->fd = -1;
	t->more = false;
	t->blocked = true;
}
