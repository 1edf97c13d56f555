/* SPDX-License-Identifier: GPL-2.0-or-later */
/* tap_faults.c - Frames lost and reordered on request, debug builds only */

#include "link/tap_faults.h"

#ifdef PASSTPY_FAULTS

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/macros.h"
#include "base/sys.h"

#define MILLION	 1000000
#define HOLD_MAX 3 /* frames that may overtake a held one */

/** struct tap_held - A frame on its detour
 * @active:	One is held
 * @lent:	It was handed out in t->rx: do not overwrite before next read
 * @after:	Frames that still are to overtake it
 * @vh:		Its virtio-net header
 * @hdr_len:	To the guest: bytes of @data that are headers
 * @len:	Bytes of @data
 */
struct tap_held {
	bool active;
	bool lent;
	unsigned after;
	struct vnet_hdr vh;
	uint32_t hdr_len;
	uint32_t len;
	uint8_t data[TAP_FRAME_MAX + 64];
};

int tap_faults_init(struct tap *t)
{
	memset(&t->faults, 0, sizeof(t->faults));
	for (unsigned i = 0; i < ARRAY_SIZE(t->faults.held); i++) {
		t->faults.held[i] = sys_calloc(1, sizeof(struct tap_held));
		if (!t->faults.held[i]) {
			tap_faults_free(t);
			return -ENOMEM;
		}
	}
	return 0;
}

void tap_faults_free(struct tap *t)
{
	for (unsigned i = 0; i < ARRAY_SIZE(t->faults.held); i++) {
		free(t->faults.held[i]);
		t->faults.held[i] = NULL;
	}
}

void tap_faults_set(struct tap *t, uint32_t drop_ppm, uint32_t reorder_ppm,
		    uint64_t seed)
{
	t->faults.drop_ppm = drop_ppm;
	t->faults.reorder_ppm = reorder_ppm;
	/* xorshift stays at zero for ever: keep the state odd */
	t->faults.state = seed * 0x9e3779b97f4a7c15ULL | 1;
}

int tap_faults_parse(struct tap *t, const char *text)
{
	unsigned long long drop = 0, reorder = 0, seed = 1;

	while (*text) {
		const char *value = strchr(text, '=');
		unsigned long long number;
		char *end;

		if (!value)
			return -EINVAL;
		number = strtoull(value + 1, &end, 10);
		if (!strncmp(text, "site=", 5))
			end += strcspn(end, ",");
		if (end == value + 1 || (*end && *end != ','))
			return -EINVAL;
		if (!strncmp(text, "drop_ppm=", 9))
			drop = MIN(number, MILLION);
		else if (!strncmp(text, "reorder_ppm=", 12))
			reorder = MIN(number, MILLION);
		else if (!strncmp(text, "seed=", 5))
			seed = number;
		else if (strncmp(text, "site=", 5))
			return -EINVAL;
		text = *end ? end + 1 : end;
	}
	tap_faults_set(t, (uint32_t)drop, (uint32_t)reorder, seed);
	return 0;
}

/* faults_random() - xorshift64* (Vigna): good enough to choose victims */
static uint32_t faults_random(struct tap_faults *faults, uint32_t below)
{
	uint64_t x = faults->state;

	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	faults->state = x;
	return (uint32_t)((x * 0x2545f4914f6cdd1dULL) >> 32) % below;
}

static bool faults_on(const struct tap_faults *faults)
{
	return faults->drop_ppm || faults->reorder_ppm;
}

/* faults_hit() - Is this frame one of the @ppm in a million? */
static bool faults_hit(struct tap *t, uint32_t ppm, enum counter counter)
{
	if (!ppm || faults_random(&t->faults, MILLION) >= ppm)
		return false;
	count(t->cnt, counter);
	return true;
}

/* held_due() - A frame of this direction passed: is it the held one's turn? */
static bool held_due(struct tap_held *held)
{
	if (!held->active)
		return false;
	if (held->after)
		held->after--;
	return !held->after;
}

static void held_lend(struct tap_held *held, struct tap_rx *rx)
{
	rx->data = held->data;
	rx->len = held->len;
	rx->vh = held->vh;
	held->active = false;
	held->lent = true;
}

int tap_faults_read(struct tap *t, int n)
{
	struct tap_held *held = t->faults.held[FAULT_FROM_GUEST];
	struct tap_rx in[TAP_BATCH];
	int out = 0;

	held->lent = false;
	if (!faults_on(&t->faults) && !held->active)
		return n;

	memcpy(in, t->rx, (size_t)n * sizeof(in[0]));
	for (int i = 0; i < n; i++) {
		const struct tap_rx *rx = &in[i];

		if (faults_hit(t, t->faults.drop_ppm, CNT_FAULT_DROPPED))
			continue;
		if (!held->active && !held->lent &&
		    rx->len <= sizeof(held->data) &&
		    faults_hit(t, t->faults.reorder_ppm, CNT_FAULT_REORDERED)) {
			memcpy(held->data, rx->data, rx->len);
			held->len = rx->len;
			held->vh = rx->vh;
			held->after = 1 + faults_random(&t->faults, HOLD_MAX);
			held->active = true;
			continue;
		}
		t->rx[out++] = *rx;
		/* A full batch keeps it for the next one */
		if (held_due(held) && out <= i)
			held_lend(held, &t->rx[out++]);
	}
	if (!n && held->active)
		held_lend(held, &t->rx[out++]);
	return out;
}

static int held_send(struct tap *t, struct tap_held *held)
{
	struct iovec payload = {
		.iov_base = held->data + held->hdr_len,
		.iov_len = held->len - held->hdr_len,
	};
	struct frame_out f = { .vh = held->vh, .hdr_len = held->hdr_len };
	int err;

	memcpy(f.hdr, held->data, held->hdr_len);
	held->active = false;
	err = t->ops->write(t, &f, &payload, payload.iov_len ? 1 : 0,
			    (uint32_t)payload.iov_len);
	t->ops->flush(t); /* the next held frame takes the place of its bytes */
	return err;
}

static void held_keep(struct tap *t, struct tap_held *held,
		      const struct frame_out *f, const struct iovec *payload,
		      unsigned n)
{
	held->vh = f->vh;
	held->hdr_len = f->hdr_len;
	held->len = f->hdr_len;
	memcpy(held->data, f->hdr, f->hdr_len);
	for (unsigned i = 0; i < n; i++) {
		memcpy(held->data + held->len, payload[i].iov_base,
		       payload[i].iov_len);
		held->len += (uint32_t)payload[i].iov_len;
	}
	held->after = 1 + faults_random(&t->faults, HOLD_MAX);
	held->active = true;
}

int tap_faults_write(struct tap *t, struct frame_out *f,
		     const struct iovec *payload, unsigned n, uint32_t len)
{
	struct tap_held *held = t->faults.held[FAULT_TO_GUEST];
	int err;

	if (!faults_on(&t->faults) && !held->active)
		return t->ops->write(t, f, payload, n, len);
	if (faults_hit(t, t->faults.drop_ppm, CNT_FAULT_DROPPED))
		return 0;
	if (!held->active && f->hdr_len + len <= sizeof(held->data) &&
	    faults_hit(t, t->faults.reorder_ppm, CNT_FAULT_REORDERED)) {
		held_keep(t, held, f, payload, n);
		return 0;
	}
	err = t->ops->write(t, f, payload, n, len);
	if (held_due(held))
		(void)held_send(t, held); /* as if the guest had lost it */
	return err;
}

bool tap_faults_settle(struct tap *t)
{
	if (t->faults.held[FAULT_TO_GUEST]->active)
		(void)held_send(t, t->faults.held[FAULT_TO_GUEST]);
	t->more |= t->faults.held[FAULT_FROM_GUEST]->active;
	return t->more;
}

#endif /* PASSTPY_FAULTS */
