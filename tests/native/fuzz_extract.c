/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Mutations of good frames through flow_extract()
 *
 *   fuzz_extract ITERATIONS
 *
 * Each iteration takes a frame of the corpus, spoils it, often makes its
 * checksums right again, so that what lies behind them is reached too, and
 * checks what came out. The frame lies at the end of its own allocation: under
 * ASan any byte read beyond it ends the program. The seed is fixed, so that a
 * failure repeats.
 */

#include <string.h>

#include "frames.h"
#include "link/extract.h"

#define CORPUS_MAX 32

static struct sample corpus[CORPUS_MAX];
static unsigned corpus_size;

static struct sample *corpus_add(void)
{
	CHECK(corpus_size < CORPUS_MAX);
	return &corpus[corpus_size++];
}

static void corpus_add_services(void)
{
	struct sample *s = corpus_add();

	sample_arp(s);
	s = corpus_add();
	sample_ip(s, true, IPPROTO_UDP, NULL, 0, 0, 300);
	sample_ip4(s)->saddr = 0;
	sample_fill(s, 68, 67, 0);
	s = corpus_add();
	sample_ip(s, false, IPPROTO_UDP, NULL, 0, 0, 100);
	sample_fill(s, 546, 547, 0);
	s = corpus_add();
	sample_ip(s, false, IPPROTO_ICMPV6, NULL, 0, 0, 32);
	memset(sample_ip6(s)->saddr, 0, 16);
	sample_fill(s, 0, 0, 135);
}

static void corpus_add_headers(void)
{
	static const uint8_t options[12] = { 0x94, 4, 0, 0, 1, 1, 1, 1 };
	static const uint8_t ext[40] = {
		60, 0, 1, 4, 0,	 0, 0, 0, 43, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0,
		0,  0, 0, 0, 44, 0, 4, 0, 0,  0, 0, 0,	6, 0, 0, 0, 1, 2, 3, 4,
	};
	static const uint8_t more[8] = { 17, 0, 0, 1 };
	struct sample *s = corpus_add();

	sample_ip(s, true, IPPROTO_TCP, options, sizeof(options), 0, 200);
	sample_fill(s, 1, 2, 0);
	s = corpus_add();
	sample_ip(s, true, IPPROTO_UDP, NULL, 0, 0, 100);
	sample_ip4(s)->frag_off = htons(IP4_MF);
	sample_fill(s, 1, 2, 0);
	s = corpus_add();
	sample_extended(s, IPPROTO_TCP, ext, sizeof(ext), IPPROTO_HOPOPTS);
	s = corpus_add();
	sample_extended(s, IPPROTO_UDP, more, sizeof(more), IPPROTO_FRAGMENT);
}

static void corpus_make(void)
{
	static const uint8_t protos[] = { IPPROTO_TCP, IPPROTO_UDP };
	static const uint16_t lens[] = { 20, 60, 1480, 4000 };

	for (unsigned i = 0; i < 4; i++) {
		sample_simple(corpus_add(), i & 1, protos[i / 2]);
		sample_ip(corpus_add(), true, IPPROTO_TCP, NULL, 0, 0, lens[i]);
		sample_fill(&corpus[corpus_size - 1], 1, 2, 0);
	}
	sample_simple(corpus_add(), true, IPPROTO_ICMP);
	sample_simple(corpus_add(), false, IPPROTO_ICMPV6);
	corpus_add_services();
	corpus_add_headers();
}

/* mutate_byte() - Headers are where it matters: mostly within 100 bytes */
static void mutate_byte(struct sample *s, struct test_random *r)
{
	static const uint8_t edges[] = { 0, 1, 0x7f, 0x80, 0xff };
	uint32_t within = test_below(r, 4) ? MIN(s->len, 100U) : s->len;
	uint8_t *p;

	if (!within)
		return;
	p = &s->data[test_below(r, within)];
	switch (test_below(r, 3)) {
	case 0:
		*p ^= (uint8_t)(1 << test_below(r, 8));
		break;
	case 1:
		*p = edges[test_below(r, ARRAY_SIZE(edges))];
		break;
	default:
		*p = (uint8_t)test_random64(r);
	}
}

static void mutate(struct sample *s, struct test_random *r)
{
	uint32_t n = test_below(r, 6);

	while (n--)
		mutate_byte(s, r);
	if (!test_below(r, 4))
		s->len = test_below(r, s->len + 1);
	if (!test_below(r, 8))
		s->len = MIN(s->len + test_below(r, 64), (uint32_t)SAMPLE_MAX);
	/* What the seal writes must still be within the frame */
	if (s->l4 && s->len >= s->l4 + 20 && test_below(r, 2))
		sample_seal(s);
}

static const struct vnet_hdr *random_vnet_hdr(struct vnet_hdr *vh,
					      const struct sample *s,
					      struct test_random *r)
{
	static const uint8_t types[] = { 0, 1, 4, 5, 0x81, 0xff };

	if (!test_below(r, 3))
		return NULL;
	*vh = (struct vnet_hdr){
		.flags = (uint8_t)test_below(r, 4),
		.gso_type = types[test_below(r, ARRAY_SIZE(types))],
		.gso_size = (uint16_t)test_below(r, 3000),
		.csum_start = (uint16_t)s->l4,
		.csum_offset = sample_check_offset(s),
	};
	if (!test_below(r, 4))
		vh->csum_start = (uint16_t)test_random64(r);
	if (!test_below(r, 4))
		vh->csum_offset = (uint16_t)test_random64(r);
	return vh;
}

static void check_flow(const struct frame *f, const uint8_t *eth, uint32_t len,
		       const struct vnet_hdr *vh)
{
	bool v4 = inany_is_v4(&f->key.eaddr);
	bool ping = f->ipproto == IPPROTO_ICMP || f->ipproto == IPPROTO_ICMPV6;

	CHECK(f->eth == eth && !f->next);
	CHECK(f->len <= len);
	CHECK_EQ(f->l3, ETH_HLEN_);
	CHECK(f->l4 >= f->l3 + (v4 ? 20 : 40));
	CHECK(f->payload >= f->l4 + (f->ipproto == IPPROTO_TCP ? 20 : 8));
	CHECK(f->payload + f->payload_len <= f->len);
	CHECK_EQ(eth[12] << 8 | eth[13],
		 v4 ? ETHERTYPE_IPV4_ : ETHERTYPE_IPV6_);
	CHECK_EQ(v4, inany_is_v4(&f->key.oaddr));
	CHECK(inany_is_unicast(&f->key.eaddr));
	CHECK(!inany_is_any(&f->key.oaddr));
	CHECK(!inany_is_loopback(&f->key.eaddr));
	CHECK(!inany_is_loopback(&f->key.oaddr));
	CHECK(ping || (f->key.eport && f->key.oport));
	CHECK(f->ipproto == IPPROTO_TCP || f->ipproto == IPPROTO_UDP ||
	      f->ipproto == (v4 ? IPPROTO_ICMP : IPPROTO_ICMPV6));
	CHECK(f->ipproto != IPPROTO_TCP || inany_is_unicast(&f->key.oaddr));
	CHECK_EQ(!f->gso_type, !f->gso_size);
	CHECK(!f->gso_type || (vh && f->payload_len));
}

static unsigned counted(const struct counters *cnt)
{
	unsigned n = 0;

	for (int i = 0; i < CNT_NUM; i++)
		n += (unsigned)cnt->n[i];
	return n;
}

static enum extract run_one(struct test_random *r)
{
	struct sample s = corpus[test_below(r, corpus_size)];
	struct counters cnt = { 0 };
	const struct vnet_hdr *vh;
	enum extract result;
	struct frame frame;
	struct vnet_hdr space;
	uint8_t *data;

	mutate(&s, r);
	vh = random_vnet_hdr(&space, &s, r);
	data = malloc(s.len ? s.len : 1);
	CHECK(data);
	memcpy(data, s.data, s.len);
	result = flow_extract(&frame, data, s.len, vh, &cnt);
	CHECK_EQ(counted(&cnt), result == EXTRACT_DROP);
	if (result == EXTRACT_FLOW)
		check_flow(&frame, data, s.len, vh);
	else if (result == EXTRACT_FRAGMENT)
		CHECK(frame.payload_len &&
		      frame.payload + frame.payload_len <= frame.len &&
		      frame.len <= s.len && frame.frag_next < frame.l4);
	else if (result == EXTRACT_PUNT || result == EXTRACT_GROUP)
		CHECK(frame.eth == data && frame.len <= s.len &&
		      frame.len >= ETH_HLEN_);
	free(data);
	return result;
}

int main(int argc, char **argv)
{
	uint64_t iterations = argc > 1 ? strtoull(argv[1], NULL, 0) : 100000;
	struct test_random r = { 0x2545f4914f6cdd1d };
	uint64_t results[5] = { 0 };

	corpus_make();
	for (uint64_t i = 0; i < iterations; i++)
		results[run_one(&r)]++;
	printf("%" PRIu64 " frames: %" PRIu64 " flows, %" PRIu64
	       " for services, %" PRIu64 " others, %" PRIu64 " dropped\n",
	       iterations, results[EXTRACT_FLOW], results[EXTRACT_PUNT],
	       results[EXTRACT_FRAGMENT] + results[EXTRACT_GROUP],
	       results[EXTRACT_DROP]);
	/* Else the mutations got stuck at the first check */
	CHECK(iterations < 1000 || results[EXTRACT_FLOW] > iterations / 20);
	return 0;
}
