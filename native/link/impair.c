/* SPDX-License-Identifier: GPL-2.0-or-later */
/* impair.c - A worse link than there is: delay, jitter, loss, another order */

#include "link/impair.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/macros.h"
#include "base/sys.h"

/* Frames of one read, one after the other as in any backend's buffer */
#define OUT_BUF (TAP_BATCH_BYTES + TAP_FRAME_MAX + TAP_BATCH * TAP_RX_ALIGN)

/** struct waiting - A frame on its way
 * @next:	The one after it
 * @due:	ns when it is there
 * @vh:		Its virtio-net header
 * @hdr_len:	To the guest: bytes of @data that are headers
 * @len:	Bytes of @data
 */
struct waiting {
	struct waiting *next;
	uint64_t due;
	struct vnet_hdr vh;
	uint32_t hdr_len;
	uint32_t len;
	uint8_t data[];
};

/** struct way - A direction
 * @link:	What it is like
 * @head:	First frame to be there, or NULL
 * @last:	When the last one is to be there, ns
 * @tail:	Last frame
 * @frames:	Frames that wait
 * @bytes:	Bytes of them
 */
struct way {
	struct impair_link link;
	struct waiting *head;
	struct waiting *tail;
	uint64_t last;
	uint32_t frames;
	uint32_t bytes;
};

/** struct impair - The state of a tap that is impaired
 * @ops:	The backend's, with functions of ours in some places
 * @inner:	The backend's
 * @now:	Where the time stands
 * @chance:	State of xorshift64*, never 0
 * @way:	Directions
 * @sent:	Frames that the backend may refer to until it is flushed
 * @out:	OUT_BUF bytes: frames of the last read
 */
struct impair {
	struct tap_ops ops;
	const struct tap_ops *inner;
	const uint64_t *now;
	uint64_t chance;
	struct way way[IMPAIR_WAYS];
	struct waiting *sent;
	uint8_t *out;
};

/* chance() - The next number (Vigna's xorshift64*): enough to choose victims */
static uint64_t chance(struct impair *im)
{
	uint64_t x = im->chance;

	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	im->chance = x;
	return (x * 0x2545f4914f6cdd1dULL) >> 16;
}

static bool is_lost(struct tap *t, const struct way *w)
{
	if (!w->link.loss_ppm ||
	    chance(t->impair) % IMPAIR_PPM >= w->link.loss_ppm)
		return false;
	count(t->cnt, CNT_IMPAIR_LOST);
	return true;
}

static bool is_straight(const struct way *w)
{
	return !w->link.delay && !w->head;
}

static bool is_full(const struct way *w)
{
	return w->frames >= IMPAIR_FRAMES || w->bytes >= IMPAIR_BYTES;
}

/* due_at() - When a frame that leaves now is there */
static uint64_t due_at(struct impair *im, const struct way *w)
{
	uint64_t due = *im->now + w->link.delay;

	if (w->link.jitter)
		due = due - w->link.jitter +
		      chance(im) % (2 * w->link.jitter + 1);
	return w->link.reorder ? due : MAX(due, w->last);
}

/* way_add() - A frame sets out; mostly it is the last to be there */
static void way_add(struct impair *im, struct way *w, struct waiting *f)
{
	struct waiting **at = &w->head;

	f->due = due_at(im, w);
	f->next = NULL;
	w->frames++;
	w->bytes += f->len;
	w->last = MAX(w->last, f->due);
	if (w->tail && w->tail->due <= f->due) {
		w->tail->next = f;
		w->tail = f;
		return;
	}
	while (*at && (*at)->due <= f->due)
		at = &(*at)->next;
	f->next = *at;
	*at = f;
	if (!f->next)
		w->tail = f;
}

static struct waiting *way_take(struct way *w)
{
	struct waiting *f = w->head;

	w->head = f->next;
	if (!w->head)
		w->tail = NULL;
	w->frames--;
	w->bytes -= f->len;
	return f;
}

static void free_all(struct waiting **list)
{
	while (*list) {
		struct waiting *f = *list;

		*list = f->next;
		free(f);
	}
}

static void way_clear(struct way *w)
{
	free_all(&w->head);
	w->tail = NULL;
	w->frames = w->bytes = 0;
}

static bool is_due(const struct impair *im, const struct way *w)
{
	return w->head && w->head->due <= *im->now;
}

/* Towards the guest */

static int impair_write(struct tap *t, struct frame_out *f,
			const struct iovec *payload, unsigned n, uint32_t len)
{
	struct impair *im = t->impair;
	struct way *w = &im->way[IMPAIR_TO_GUEST];
	struct waiting *copy;

	if (is_lost(t, w))
		return 0;
	if (is_straight(w))
		return im->inner->write(t, f, payload, n, len);
	if (is_full(w))
		return -EAGAIN;
	copy = sys_malloc(sizeof(*copy) + f->hdr_len + len);
	if (!copy)
		return -ENOMEM;
	copy->vh = f->vh;
	copy->hdr_len = copy->len = f->hdr_len;
	memcpy(copy->data, f->hdr, f->hdr_len);
	for (unsigned i = 0; i < n; i++) {
		memcpy(copy->data + copy->len, payload[i].iov_base,
		       payload[i].iov_len);
		copy->len += (uint32_t)payload[i].iov_len;
	}
	way_add(im, w, copy);
	return 0;
}

/* arrive() - A frame is there; one that the guest does not take is lost */
static void arrive(struct tap *t, struct waiting *copy)
{
	struct frame_out f = { .vh = copy->vh, .hdr_len = copy->hdr_len };
	struct iovec payload = {
		.iov_base = copy->data + copy->hdr_len,
		.iov_len = copy->len - copy->hdr_len,
	};

	memcpy(f.hdr, copy->data, copy->hdr_len);
	if (t->impair->inner->write(t, &f, &payload, !!payload.iov_len,
				    (uint32_t)payload.iov_len))
		count(t->cnt, CNT_TAP_TX_ERRORS);
	copy->next = t->impair->sent;
	t->impair->sent = copy;
}

static void impair_flush(struct tap *t)
{
	struct impair *im = t->impair;
	struct way *w = &im->way[IMPAIR_TO_GUEST];

	while (is_due(im, w) && !t->blocked)
		arrive(t, way_take(w));
	im->inner->flush(t);
	free_all(&im->sent);
}

static void impair_room(struct tap *t)
{
	t->impair->inner->room(t);
	impair_flush(t);
}

/* From the guest */

static void set_out(struct tap *t, const struct tap_rx *rx)
{
	struct impair *im = t->impair;
	struct waiting *copy = sys_malloc(sizeof(*copy) + rx->len);

	if (!copy) {
		count(t->cnt, CNT_IMPAIR_LOST);
		return;
	}
	copy->vh = rx->vh;
	copy->hdr_len = 0;
	copy->len = rx->len;
	memcpy(copy->data, rx->data, rx->len);
	way_add(im, &im->way[IMPAIR_FROM_GUEST], copy);
}

/* depart() - What the guest sent: lost, or on its way
 * Return: frames in t->rx that need not wait */
static int depart(struct tap *t, int n)
{
	struct way *w = &t->impair->way[IMPAIR_FROM_GUEST];
	bool straight = is_straight(w);
	int out = 0;

	for (int i = 0; i < n; i++) {
		if (is_lost(t, w))
			continue;
		if (straight)
			t->rx[out++] = t->rx[i];
		else
			set_out(t, &t->rx[i]);
	}
	return out;
}

/* hand_out() - Frames that are there, as one read of a backend */
static int hand_out(struct tap *t)
{
	struct impair *im = t->impair;
	struct way *w = &im->way[IMPAIR_FROM_GUEST];
	uint32_t fill = 0;
	int n = 0;

	while (n < TAP_BATCH && fill < TAP_BATCH_BYTES && is_due(im, w)) {
		struct waiting *f = way_take(w);

		memcpy(im->out + fill, f->data, f->len);
		t->rx[n++] = (struct tap_rx){ im->out + fill, f->len, f->vh };
		fill = (fill + f->len + TAP_RX_ALIGN - 1) / TAP_RX_ALIGN *
		       TAP_RX_ALIGN;
		free(f);
	}
	t->more |= is_due(im, w);
	return n;
}

static int impair_read(struct tap *t)
{
	struct impair *im = t->impair;
	struct way *w = &im->way[IMPAIR_FROM_GUEST];
	int n = 0;

	if (!is_full(w)) {
		n = im->inner->read(t);
		if (n < 0)
			return n;
		n = depart(t, n);
	}
	/* Either all pass, or all wait */
	return n ? n : hand_out(t);
}

static bool impair_poll(struct tap *t)
{
	struct impair *im = t->impair;
	const struct way *w = &im->way[IMPAIR_FROM_GUEST];

	return is_due(im, w) ||
	       (!is_full(w) && im->inner->poll && im->inner->poll(t));
}

/* impair_due() - When the next frame is there */
static uint64_t impair_due(const struct tap *t)
{
	const struct way *from = &t->impair->way[IMPAIR_FROM_GUEST];
	const struct way *to = &t->impair->way[IMPAIR_TO_GUEST];
	uint64_t at = from->head ? from->head->due : UINT64_MAX;

	/* A guest that takes nothing tells when it does */
	return to->head && !t->blocked ? MIN(at, to->head->due) : at;
}

/* Life */

static void forget(struct impair *im)
{
	for (unsigned i = 0; i < IMPAIR_WAYS; i++)
		way_clear(&im->way[i]);
	free_all(&im->sent);
}

static void impair_detach(struct tap *t)
{
	t->impair->inner->detach(t);
	forget(t->impair);
}

static void impair_free(struct tap *t)
{
	struct impair *im = t->impair;

	t->ops = im->inner;
	t->impair = NULL;
	if (t->ops->free)
		t->ops->free(t);
	forget(im);
	free(im->out);
	free(im);
}

/* stand_between() - Our functions in the place of the backend's */
static void stand_between(struct tap *t, struct impair *im)
{
	im->inner = t->ops;
	im->ops = *t->ops;
	im->ops.read = impair_read;
	im->ops.write = impair_write;
	im->ops.flush = impair_flush;
	im->ops.poll = impair_poll;
	im->ops.due = impair_due;
	im->ops.free = impair_free;
	im->ops.room = im->inner->room ? impair_room : NULL;
	im->ops.detach = im->inner->detach ? impair_detach : NULL;
	t->impair = im;
	t->ops = &im->ops;
}

static int impair_init(struct tap *t)
{
	struct impair *im = sys_calloc(1, sizeof(*im));

	if (!im)
		return -ENOMEM;
	im->out = sys_aligned_alloc(TAP_RX_ALIGN,
				    ROUND_DOWN(OUT_BUF, TAP_RX_ALIGN));
	if (!im->out) {
		free(im);
		return -ENOMEM;
	}
	stand_between(t, im);
	return 0;
}

int impair_set(struct tap *t, const struct impair_link *links, uint64_t seed,
	       const uint64_t *now)
{
	if (!t->impair && impair_init(t))
		return -ENOMEM;
	t->impair->now = now;
	/* 0 would stay 0 for ever */
	t->impair->chance = seed * 0x9e3779b97f4a7c15ULL | 1;
	for (unsigned i = 0; i < IMPAIR_WAYS; i++) {
		assert(links[i].jitter <= links[i].delay);
		t->impair->way[i].link = links[i];
	}
	return 0;
}
