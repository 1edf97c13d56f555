/* SPDX-License-Identifier: GPL-2.0-or-later */
/* reassembly.c - Datagrams of the guest that come in fragments
 *
 * A buffer is a page of headers and 64 KiB of payload, so that any fragment is
 * copied once, to where it belongs, and the headers end where the payload
 * begins: the datagram is a frame as it lies. The page starts with a bitmap of
 * the blocks of 8 bytes that came. It makes overlaps impossible to miss, and
 * its cost does not depend on how the guest cuts and orders its fragments.
 *
 * Fragments that overlap are no accident: IPv6 forbids them (RFC 8200 4.5), and
 * for IPv4 nothing sane sends them, while filters and hosts are known to read
 * them differently. Both lose the whole datagram. A copy of what came already
 * is none of this, and is ignored.
 */

#include "link/reassembly.h"

#include <arpa/inet.h>
#include <netinet/icmp6.h>
#include <netinet/ip_icmp.h>
#include <string.h>

#include "base/checksum.h"
#include "base/macros.h"
#include "link/frame.h"

#define PAYLOAD_MAX   65535
#define BLOCKS	      8192 /* of 8 bytes */
#define BITMAP	      (BLOCKS / 8)
#define HEAD	      4096 /* bitmap, room for headers; payload follows */
#define BUF_SIZE      (HEAD + 65536)
#define FRAGMENT_HLEN 8 /* IPv6 Fragment header */

int reassembly_init(struct reassembly *r)
{
	*r = (struct reassembly){ .next_expiry = UINT64_MAX };
	return pool_init(&r->bufs, BUF_SIZE, REASSEMBLY_MAX);
}

void reassembly_free(struct reassembly *r)
{
	pool_free(&r->bufs);
}

static uint64_t *bitmap_of(const struct reassembly *r, const struct datagram *d)
{
	return (uint64_t *)(void *)pool_at(&r->bufs, d->buf);
}

static uint8_t *payload_of(const struct reassembly *r, const struct datagram *d)
{
	return pool_at(&r->bufs, d->buf) + HEAD;
}

static void drop_buf(struct reassembly *r, struct datagram *d)
{
	if (d->buf != POOL_NONE)
		pool_put(&r->bufs, d->buf);
	d->buf = POOL_NONE;
}

static void release(struct reassembly *r, struct datagram *d)
{
	drop_buf(r, d);
	d->state = REASSEMBLY_FREE;
}

/* spoil() - Drop what is there, and whatever of it is yet to come */
static bool spoil(struct reassembly *r, struct tap *t, struct datagram *d)
{
	count(t->cnt, CNT_DROP_FRAGMENT);
	drop_buf(r, d);
	d->state = REASSEMBLY_SPOILED;
	return false;
}

static bool is_of(const struct datagram *d, const struct frame *f)
{
	if (d->state != REASSEMBLY_OPEN && d->state != REASSEMBLY_SPOILED)
		return false;
	/* IPv6 does not ask for the protocol, which may differ (RFC 8200 4.5) */
	return d->id == f->frag_id && inany_equal(&d->src, &f->key.eaddr) &&
	       inany_equal(&d->dst, &f->key.oaddr) &&
	       (d->ipproto == f->ipproto || !inany_is_v4(&d->src));
}

/* make_room() - A free slot, if need be that of the oldest datagram; or NULL */
static struct datagram *make_room(struct reassembly *r, struct tap *t)
{
	struct datagram *oldest = NULL;

	for (unsigned i = 0; i < REASSEMBLY_MAX; i++) {
		struct datagram *d = &r->slot[i];

		if (d->state == REASSEMBLY_FREE)
			return d;
		if (d->state != REASSEMBLY_DONE &&
		    (!oldest || d->deadline < oldest->deadline))
			oldest = d;
	}
	if (!oldest)
		return NULL;
	count(t->cnt, CNT_REASSEMBLY_EVICTED);
	release(r, oldest);
	return oldest;
}

/* find() - The datagram a fragment belongs to, new or not; or NULL */
static struct datagram *find(struct reassembly *r, struct tap *t,
			     const struct frame *f, uint64_t now)
{
	struct datagram *d;
	uint32_t buf;

	for (d = r->slot; d < r->slot + REASSEMBLY_MAX; d++)
		if (is_of(d, f))
			return d;

	d = make_room(r, t);
	if (!d)
		return NULL;
	buf = pool_get(&r->bufs);
	if (buf == POOL_NONE) /* as many buffers as slots: cannot be */
		return NULL;
	*d = (struct datagram){
		.state = REASSEMBLY_OPEN,
		.ipproto = f->ipproto,
		.id = f->frag_id,
		.src = f->key.eaddr,
		.dst = f->key.oaddr,
		.deadline = now + REASSEMBLY_TIME,
		.buf = buf,
	};
	memset(bitmap_of(r, d), 0, BITMAP);
	r->next_expiry = MIN(r->next_expiry, d->deadline);
	return d;
}

/* problem() - Tell an IPv6 guest what is wrong with its fragment */
static bool problem(struct tap *t, const struct frame *f, uint32_t pointer)
{
	count(t->cnt, CNT_DROP_FRAGMENT);
	if (inany_is_v4(&f->key.eaddr) || !inany_is_unicast(&f->key.eaddr) ||
	    !inany_is_unicast(&f->key.oaddr))
		return false;
	if (!frame_icmp_error(t, &f->key.oaddr, &f->key.eaddr, ICMP6_PARAM_PROB,
			      ICMP6_PARAMPROB_HEADER, pointer, f->eth + f->l3,
			      f->len - f->l3))
		count(t->cnt, CNT_ICMP_ERRORS_TO_TAP);
	return false;
}

/* is_sound() - Can there be such a fragment? (RFC 8200 4.5) */
static bool is_sound(struct tap *t, const struct frame *f)
{
	if (f->frag_more && f->payload_len % 8)
		return problem(t, f, offsetof(struct ip6_hdr_, payload_len));
	if ((uint32_t)f->frag_off + f->payload_len > PAYLOAD_MAX)
		return problem(t, f,
			       f->l4 - FRAGMENT_HLEN + 2U - (uint32_t)f->l3);
	return true;
}

/** enum place - What is where a fragment belongs */
enum place { PLACE_EMPTY, PLACE_TAKEN, PLACE_OVERLAPS };

static enum place look_at(const struct reassembly *r, const struct datagram *d,
			  const struct frame *f)
{
	uint32_t from = f->frag_off / 8;
	uint32_t to = (f->frag_off + f->payload_len + 7) / 8;
	const uint64_t *map = bitmap_of(r, d);
	uint32_t taken = 0;

	for (uint32_t i = from; i < to; i++)
		taken += map[i / 64] >> i % 64 & 1;
	if (!taken)
		return PLACE_EMPTY;
	if (taken == to - from && f->frag_off + f->payload_len <= d->end &&
	    !memcmp(payload_of(r, d) + f->frag_off, f->eth + f->payload,
		    f->payload_len))
		return PLACE_TAKEN;
	return PLACE_OVERLAPS;
}

static void put(struct reassembly *r, struct datagram *d, const struct frame *f)
{
	uint32_t from = f->frag_off / 8;
	uint32_t to = (f->frag_off + f->payload_len + 7) / 8;
	uint64_t *map = bitmap_of(r, d);

	for (uint32_t i = from; i < to; i++)
		map[i / 64] |= 1ULL << i % 64;
	d->blocks += to - from;
	d->end = MAX(d->end, f->frag_off + f->payload_len);
	memcpy(payload_of(r, d) + f->frag_off, f->eth + f->payload,
	       f->payload_len);
	if (!f->frag_more)
		d->total = f->frag_off + f->payload_len;
	if (f->frag_off)
		return;

	/* Its headers are the datagram's; its quote, should another be lost */
	d->headers = f->l4;
	d->first = f->payload_len;
	d->ipproto = f->ipproto;
	d->next_at = f->frag_next;
	memcpy(payload_of(r, d) - f->l4, f->eth, f->l4);
}

/* ends_well() - Does the end of a fragment agree with those before it? */
static bool ends_well(const struct datagram *d, const struct frame *f)
{
	uint32_t end = f->frag_off + f->payload_len;

	if (f->frag_more)
		return !d->total || end < d->total;
	return d->total ? end == d->total : end >= d->end;
}

static bool is_complete(const struct datagram *d)
{
	return d->headers && d->total && d->blocks == (d->total + 7) / 8;
}

/* finish4() - IPv4 header of the whole; false if it would be too long */
static bool finish4(struct datagram *d, uint8_t *eth)
{
	struct ip4_hdr *ih = (struct ip4_hdr *)(eth + ETH_HLEN_);
	uint32_t len = d->headers - ETH_HLEN_;

	if (len + d->total > UINT16_MAX)
		return false;
	ih->tot_len = htons((uint16_t)(len + d->total));
	ih->frag_off = 0;
	ih->check = 0;
	ih->check = (uint16_t)~csum_fold(csum_add(ih, len, 0));
	return true;
}

/* finish6() - The same for IPv6; the Fragment header is taken out */
static bool finish6(struct datagram *d, uint8_t *eth)
{
	struct ip6_hdr_ *ih =
		(struct ip6_hdr_ *)(eth + FRAGMENT_HLEN + ETH_HLEN_);
	uint32_t len;

	d->headers -= FRAGMENT_HLEN;
	len = d->headers - ETH_HLEN_ - (uint32_t)sizeof(*ih) + d->total;
	if (len > UINT16_MAX)
		return false;
	memmove(eth + FRAGMENT_HLEN, eth, d->headers);
	eth[FRAGMENT_HLEN + d->next_at] = d->ipproto;
	ih->payload_len = htons((uint16_t)len);
	return true;
}

bool reassembly_add(struct reassembly *r, struct tap *t, const struct frame *f,
		    uint64_t now, uint8_t **ret_eth, uint32_t *ret_len)
{
	struct datagram *d;
	enum place place;
	bool fits;

	count(t->cnt, CNT_FRAGMENTS);
	if (!is_sound(t, f))
		return false;
	d = find(r, t, f, now);
	if (!d || d->state == REASSEMBLY_SPOILED || f->l4 > HEAD - BITMAP) {
		count(t->cnt, CNT_DROP_FRAGMENT);
		return false;
	}
	place = look_at(r, d, f);
	if (place == PLACE_OVERLAPS || !ends_well(d, f))
		return spoil(r, t, d);
	if (place == PLACE_TAKEN)
		return false;
	put(r, d, f);
	if (!is_complete(d))
		return false;

	*ret_eth = payload_of(r, d) - d->headers;
	fits = inany_is_v4(&d->src) ? finish4(d, *ret_eth) :
				      finish6(d, *ret_eth);
	if (!fits)
		return spoil(r, t, d);
	*ret_eth = payload_of(r, d) - d->headers;
	*ret_len = d->headers + d->total;
	d->state = REASSEMBLY_DONE;
	r->done++;
	count(t->cnt, CNT_REASSEMBLED);
	return true;
}

void reassembly_release(struct reassembly *r)
{
	for (unsigned i = 0; r->done && i < REASSEMBLY_MAX; i++) {
		if (r->slot[i].state != REASSEMBLY_DONE)
			continue;
		release(r, &r->slot[i]);
		r->done--;
	}
}

/* give_up() - Time is over: say so, as the destination would, if the guest can
 * know what it was (RFC 792, RFC 8200 4.5: only with the first fragment) */
static void give_up(struct reassembly *r, struct tap *t,
		    const struct datagram *d)
{
	bool v4 = inany_is_v4(&d->src);

	count(t->cnt, CNT_REASSEMBLY_TIMEOUT);
	if (d->state != REASSEMBLY_OPEN || !d->headers ||
	    !inany_is_unicast(&d->src) || !inany_is_unicast(&d->dst))
		return;
	if (!frame_icmp_error(t, &d->dst, &d->src,
			      v4 ? ICMP_TIME_EXCEEDED : ICMP6_TIME_EXCEEDED,
			      v4 ? ICMP_EXC_FRAGTIME :
				   ICMP6_TIME_EXCEED_REASSEMBLY,
			      0, payload_of(r, d) - d->headers + ETH_HLEN_,
			      d->headers - ETH_HLEN_ + d->first))
		count(t->cnt, CNT_ICMP_ERRORS_TO_TAP);
}

void reassembly_expire(struct reassembly *r, struct tap *t, uint64_t now)
{
	if (now < r->next_expiry)
		return;
	r->next_expiry = UINT64_MAX;
	for (unsigned i = 0; i < REASSEMBLY_MAX; i++) {
		struct datagram *d = &r->slot[i];

		if (d->state == REASSEMBLY_FREE || d->state == REASSEMBLY_DONE)
			continue;
		if (now < d->deadline) {
			r->next_expiry = MIN(r->next_expiry, d->deadline);
			continue;
		}
		give_up(r, t, d);
		release(r, d);
	}
}
