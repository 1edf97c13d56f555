/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Good frames, spoiled, and bytes of any kind through flow_extract()
 *
 * Each step takes a good frame and spoils it, or makes one of bytes, often makes
 * its checksums right, so that what lies behind them is reached too, and checks
 * what came out. The frame lies at the end of its own allocation: under ASan any
 * byte read beyond it ends the program.
 */

#include <string.h>

#include "drive.h"
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
	sample_refusal(corpus_add(), true);
	sample_refusal(corpus_add(), false);
	corpus_add_services();
	corpus_add_headers();
}

/* mutate_byte() - Headers are where it matters: mostly within 100 bytes */
static void mutate_byte(struct sample *s)
{
	static const uint8_t edges[] = { 0, 1, 0x7f, 0x80, 0xff };
	uint32_t within = below(4) ? MIN(s->len, 100U) : s->len;
	uint8_t *p;

	if (!within)
		return;
	p = &s->data[below(within)];
	switch (below(3)) {
	case 0:
		*p ^= (uint8_t)(1 << below(8));
		break;
	case 1:
		*p = edges[below(ARRAY_SIZE(edges))];
		break;
	default:
		*p = (uint8_t)test_random64(&rnd);
	}
}

static void mutate(struct sample *s)
{
	uint32_t n = below(6);

	while (n--)
		mutate_byte(s);
	if (!below(4))
		s->len = below(s->len + 1);
	if (!below(8))
		s->len = MIN(s->len + below(64), (uint32_t)SAMPLE_MAX);
	/* What the seal writes must still be within the frame */
	if (s->l4 && s->len >= s->l4 + 20 && below(2))
		sample_seal(s);
}

/* make_raw() - Bytes of any kind, with a right IPv4 header checksum */
static void make_raw(struct sample *s)
{
	struct ip4_hdr *ih = sample_ip4(s);
	uint32_t ihl;

	*s = (struct sample){ .l4 = ETH_HLEN_ + 40, .proto = IPPROTO_TCP };
	s->len = below(1 + (one_in(4) ? 2000 : 128));
	any_bytes(s->data, MIN(s->len, 256U));
	if (one_in(4))
		return;
	s->data[12] = one_in(2) ? 0x86 : 0x08;
	s->data[13] = s->data[12] == 0x86 ? 0xdd : 0x00;
	ihl = (ih->ver_ihl & 15U) * 4;
	if (s->data[12] == 0x86 || s->len < ETH_HLEN_ + ihl)
		return;
	s->l4 = ETH_HLEN_ + ihl;
	ih->check = 0;
	ih->check = (uint16_t)~csum_fold(csum_add(ih, ihl, 0));
}

static const struct vnet_hdr *random_vnet_hdr(struct vnet_hdr *vh,
					      const struct sample *s)
{
	static const uint8_t types[] = { 0, 1, 4, 5, 0x81, 0xff };

	if (!below(3))
		return NULL;
	if (!below(3)) {
		*vh = (struct vnet_hdr){ .flags = VNET_F_DATA_VALID };
		return vh;
	}
	*vh = (struct vnet_hdr){
		.flags = (uint8_t)below(4),
		.gso_type = types[below(ARRAY_SIZE(types))],
		.gso_size = (uint16_t)below(3000),
		.csum_start = (uint16_t)s->l4,
		.csum_offset = sample_check_offset(s),
	};
	if (!below(4))
		vh->csum_start = (uint16_t)test_random64(&rnd);
	if (!below(4))
		vh->csum_offset = (uint16_t)test_random64(&rnd);
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

static enum extract run_one(void)
{
	struct sample s = corpus[below(corpus_size)];
	struct counters cnt = { 0 };
	const struct vnet_hdr *vh;
	enum extract result;
	struct frame frame;
	struct vnet_hdr space;
	uint8_t *data;

	if (one_in(3))
		make_raw(&s);
	else
		mutate(&s);
	vh = random_vnet_hdr(&space, &s);
	data = malloc(s.len ? s.len : 1);
	CHECK(data);
	memcpy(data, s.data, s.len);
	result = flow_extract(&frame, data, s.len, vh, &cnt);
	CHECK_EQ(counted(&cnt), result == EXTRACT_DROP);
	if (result == EXTRACT_FLOW)
		check_flow(&frame, data, s.len, vh);
	else if (result == EXTRACT_REFUSAL)
		CHECK(frame.ipproto == IPPROTO_UDP && frame.key.eport &&
		      frame.key.oport &&
		      inany_is_v4(&frame.key.eaddr) ==
			      inany_is_v4(&frame.key.oaddr));
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

static uint64_t results[EXTRACT_NUM], steps;

static void begin(void)
{
	if (!corpus_size)
		corpus_make();
}

static void step(void)
{
	steps++;
	results[run_one()]++;
}

static void end(void)
{
	/* Else the mutations got stuck at the first check */
	CHECK(!drive_long || results[EXTRACT_FLOW] > steps / 20);
	CHECK(!drive_long || results[EXTRACT_REFUSAL]);
}

static const struct target target = { begin, step, end, 1 };

FUZZ(target)
