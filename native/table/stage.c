/* SPDX-License-Identifier: GPL-2.0-or-later */
/* stage.c - Pending misses: frames, datagrams or sockets parked for a verdict
 *
 * A hash of twice as many buckets as slots, linear probing, finds a miss by
 * its key. Slots that Python has not seen wait in a ring, in the order in
 * which they were made.
 */

#include "table/stage.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/macros.h"
#include "base/reset.h"
#include "base/sys.h"

#define HASH_SIZE	 (STAGE_MAX * 2)
#define HASH_MASK	 (HASH_SIZE - 1)
#define RING_MASK	 (STAGE_MAX - 1)
#define STAGE_EXPIRE_MAX 64 /* misses released at a time: sockets are closed */
#define ITEM_ALIGN	 8  /* items start where struct stage_item may */

_Static_assert(!(STAGE_MAX & RING_MASK), "STAGE_MAX: a power of two");
_Static_assert(STAGE_MAX < UINT16_MAX, "a slot fits into a bucket");

/** struct stage_key - What is hashed; packed, no uninitialised bytes */
struct stage_key {
	union inany eaddr;
	union inany oaddr;
	uint16_t eport;
	uint16_t oport;
	uint8_t ipproto;
	uint8_t pif;
} __attribute__((packed));

/**
 * stage_init() - Reserve slots and buffers
 * @s:		Filled
 * @key:	Secret of the hash
 * @cnt:	Counters
 *
 * Return: 0, or -ENOMEM
 */
int stage_init(struct stage *s, const struct siphash_key *key,
	       struct counters *cnt)
{
	struct miss *slots;
	int rc;

	slots = sys_mmap(NULL, STAGE_MAX * sizeof(*slots),
			 PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			 -1, 0);
	if (slots == MAP_FAILED)
		return -ENOMEM;
	*s = (struct stage){
		.miss = slots,
		.next_expiry = UINT64_MAX,
		.key = *key,
		.cnt = cnt,
	};
	rc = pool_init(&s->bufs, STAGE_BUF, STAGE_MAX);
	if (rc) {
		munmap(slots, STAGE_MAX * sizeof(*slots));
		s->miss = NULL;
		return rc;
	}
	/* A stack: slot 0 on top */
	for (unsigned i = 0; i < STAGE_MAX; i++)
		s->vacant[i] = (uint16_t)(STAGE_MAX - 1 - i);
	return 0;
}

/* turn_away() - Nobody takes an accepted connection: its peer is to hear that,
 * and not that all was said */
static void turn_away(int fd)
{
	reset_on_close(fd);
	close(fd);
}

void stage_free(struct stage *s)
{
	if (!s->miss)
		return;
	for (unsigned i = 0; i < STAGE_MAX; i++)
		if (s->miss[i].used && s->miss[i].fd >= 0)
			turn_away(s->miss[i].fd);
	munmap(s->miss, STAGE_MAX * sizeof(*s->miss));
	s->miss = NULL;
	pool_free(&s->bufs);
}

static unsigned home_of(const struct stage *s, uint8_t ipproto, uint8_t pif,
			const struct flowside *side)
{
	struct stage_key key = {
		.eaddr = side->eaddr,
		.oaddr = side->oaddr,
		.eport = side->eport,
		.oport = side->oport,
		.ipproto = ipproto,
		.pif = pif,
	};

	return siphash(&s->key, &key, sizeof(key)) & HASH_MASK;
}

static unsigned home_of_miss(const struct stage *s, const struct miss *m)
{
	return home_of(s, m->ipproto, m->pif, &m->key);
}

/* bucket_find() - Bucket that holds a key, or the empty one where it belongs */
static unsigned bucket_find(const struct stage *s, uint8_t ipproto, uint8_t pif,
			    const struct flowside *key)
{
	unsigned b = home_of(s, ipproto, pif, key);

	for (; s->hash[b]; b = (b + 1) & HASH_MASK) {
		const struct miss *m = &s->miss[s->hash[b] - 1];

		if (m->ipproto == ipproto && m->pif == pif &&
		    m->key.eport == key->eport && m->key.oport == key->oport &&
		    inany_equal(&m->key.eaddr, &key->eaddr) &&
		    inany_equal(&m->key.oaddr, &key->oaddr))
			break;
	}
	return b;
}

struct miss *stage_find(struct stage *s, uint8_t ipproto, enum pif pif,
			const struct flowside *key)
{
	unsigned b;

	if (!s->pending)
		return NULL;
	b = bucket_find(s, ipproto, (uint8_t)pif, key);
	return s->hash[b] ? &s->miss[s->hash[b] - 1] : NULL;
}

static void untold_add(struct stage *s, uint16_t slot)
{
	s->untold[s->untold_head++ & RING_MASK] = slot;
}

struct miss *stage_add(struct stage *s, uint8_t ipproto, enum pif pif,
		       const struct flowside *key, int32_t listener, int fd,
		       uint64_t now)
{
	uint32_t generation;
	uint16_t slot;
	unsigned b;

	if (s->pending == STAGE_MAX ||
	    (pif == PIF_HOST && s->outside == STAGE_OUTSIDE)) {
		count(s->cnt, CNT_DROP_STAGE_FULL);
		return NULL;
	}
	b = bucket_find(s, ipproto, (uint8_t)pif, key);
	assert(!s->hash[b]);

	slot = s->vacant[STAGE_MAX - 1 - s->pending++];
	s->hash[b] = (uint16_t)(slot + 1);
	untold_add(s, slot);
	generation = s->miss[slot].generation + 1;
	s->miss[slot] = (struct miss){
		.used = true,
		.generation = generation ? generation : 1,
		.ipproto = ipproto,
		.pif = (uint8_t)pif,
		.key = *key,
		.listener = listener,
		.fd = fd,
		.given_fd = -1,
		.deadline = now + STAGE_DEADLINE,
		.buf = POOL_NONE,
	};
	s->outside += pif == PIF_HOST;
	s->next_expiry = MIN(s->next_expiry, s->miss[slot].deadline);
	return &s->miss[slot];
}

struct miss *stage_refused(struct stage *s, const struct flow *flow, int fd,
			   uint64_t now)
{
	uint8_t ipproto = fd >= 0 ? IPPROTO_TCP : IPPROTO_UDP;
	const struct flowside *key = &flow->f.side[INISIDE];
	enum pif pif = flow->f.pif[INISIDE];
	struct miss *m;

	/* A client that gave up may have come again from the same port */
	if (stage_find(s, ipproto, pif, key))
		return NULL;
	m = stage_add(s, ipproto, pif, key, flow->f.listener, fd, now);
	if (m)
		m->again = m->begun = true;
	return m;
}

static uint32_t item_size(uint32_t len)
{
	return (uint32_t)(sizeof(struct stage_item) + len + ITEM_ALIGN - 1) /
	       ITEM_ALIGN * ITEM_ALIGN;
}

static struct stage_item *item_at(struct stage *s, const struct miss *m,
				  uint32_t pos)
{
	return (struct stage_item *)(void *)(pool_at(&s->bufs, m->buf) + pos);
}

/* datagrams_of() - What an item is for the socket; headers count as payload */
static uint32_t datagrams_of(uint32_t len, const struct vnet_hdr *vh)
{
	if (!vh || vh->gso_type != VNET_GSO_UDP_L4 || !vh->gso_size)
		return 1;
	return len / vh->gso_size + 1;
}

int stage_park(struct stage *s, struct miss *m, const void *data, uint32_t len,
	       const struct vnet_hdr *vh)
{
	struct stage_item *item;

	if (len > STAGE_BUF || item_size(len) > STAGE_BUF - m->fill ||
	    m->datagrams + datagrams_of(len, vh) > STAGE_DATAGRAMS)
		return -ENOBUFS;
	if (m->buf == POOL_NONE) {
		m->buf = pool_get(&s->bufs);
		if (m->buf == POOL_NONE)
			return -ENOBUFS;
	}
	item = item_at(s, m, m->fill);
	item->len = len;
	item->vh = vh ? *vh : (struct vnet_hdr){ 0 };
	memcpy(stage_item_data(item), data, len);
	m->fill += item_size(len);
	m->items++;
	m->datagrams += datagrams_of(len, vh);
	return 0;
}

void stage_unpark(struct miss *m)
{
	m->fill = m->items = m->datagrams = 0;
}

struct stage_item *stage_next(struct stage *s, const struct miss *m,
			      uint32_t *pos)
{
	struct stage_item *item;

	if (*pos >= m->fill)
		return NULL;
	item = item_at(s, m, *pos);
	*pos += item_size(item->len);
	return item;
}

struct miss *stage_get(struct stage *s, uint64_t miss_id)
{
	uint32_t slot = (uint32_t)miss_id;

	if (slot >= STAGE_MAX || !s->miss[slot].used ||
	    s->miss[slot].generation != miss_id >> 32)
		return NULL;
	return &s->miss[slot];
}

struct miss *stage_take_untold(struct stage *s)
{
	struct miss *m;

	if (s->untold_head == s->untold_tail)
		return NULL;
	m = &s->miss[s->untold[s->untold_tail++ & RING_MASK]];
	m->told = true;
	return m;
}

/* untold_remove() - A miss ends before Python saw it: rare, so we search */
static void untold_remove(struct stage *s, uint32_t slot)
{
	uint32_t i = s->untold_tail;

	while (s->untold[i & RING_MASK] != slot)
		i++;
	for (; i + 1 != s->untold_head; i++)
		s->untold[i & RING_MASK] = s->untold[(i + 1) & RING_MASK];
	s->untold_head--;
}

static void hash_remove(struct stage *s, const struct miss *m)
{
	unsigned hole = bucket_find(s, m->ipproto, m->pif, &m->key);

	/* As in flow_hash.c: close the gap, leave no tombstone */
	for (unsigned b = (hole + 1) & HASH_MASK; s->hash[b];
	     b = (b + 1) & HASH_MASK) {
		unsigned home = home_of_miss(s, &s->miss[s->hash[b] - 1]);

		if (((b - home) & HASH_MASK) >= ((b - hole) & HASH_MASK)) {
			s->hash[hole] = s->hash[b];
			hole = b;
		}
	}
	s->hash[hole] = 0;
}

bool stage_wait(struct stage *s, struct miss *m, uint64_t flow_id, uint64_t now)
{
	if (s->n_behind == STAGE_BEHIND || !m->told)
		return false;
	assert(!m->behind);
	m->behind = flow_id;
	m->deadline = now + STAGE_PATIENCE;
	s->behind[s->n_behind++] = (uint16_t)(m - s->miss);
	return true;
}

void stage_ask_again(struct stage *s, uint32_t i, uint64_t now)
{
	uint16_t slot = s->behind[i];
	struct miss *m = &s->miss[slot];

	s->behind[i] = s->behind[--s->n_behind];
	m->behind = 0;
	m->told = false;
	m->deadline = now + STAGE_DEADLINE;
	s->next_expiry = MIN(s->next_expiry, m->deadline);
	untold_add(s, slot);
}

/* behind_remove() - A miss ends while it waits for a flow */
static void behind_remove(struct stage *s, uint16_t slot)
{
	uint32_t i = 0;

	while (s->behind[i] != slot)
		i++;
	s->behind[i] = s->behind[--s->n_behind];
}

void stage_release(struct stage *s, struct miss *m)
{
	uint16_t slot = (uint16_t)(m - s->miss);

	assert(m->used);
	if (m->fd >= 0)
		turn_away(m->fd);
	if (m->given_fd >= 0)
		close(m->given_fd);
	if (m->buf != POOL_NONE)
		pool_put(&s->bufs, m->buf);
	if (!m->told)
		untold_remove(s, slot);
	if (m->behind)
		behind_remove(s, slot);
	hash_remove(s, m);
	s->outside -= m->pif == PIF_HOST;
	m->used = false;
	m->fd = -1;
	m->buf = POOL_NONE;
	s->vacant[STAGE_MAX - s->pending--] = slot;
}

unsigned stage_expire(struct stage *s, uint64_t now)
{
	uint64_t next = UINT64_MAX;
	unsigned n = 0;

	if (now < s->next_expiry)
		return 0;
	for (unsigned i = 0; i < STAGE_MAX; i++) {
		struct miss *m = &s->miss[i];

		if (!m->used)
			continue;
		if (now < m->deadline) {
			next = MIN(next, m->deadline);
			continue;
		}
		if (n == STAGE_EXPIRE_MAX) {
			next = now; /* the rest at the next call */
			break;
		}
		stage_release(s, m);
		n++;
	}
	s->next_expiry = next;
	count_n(s->cnt, CNT_MISS_EXPIRED, n);
	return n;
}
