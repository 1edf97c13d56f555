/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A guest says that nobody has a port: whose flow that is, and what is no such word */

#include "extract.h"

#define IP4_QUOTED ((struct ip4_hdr *)(void *)sample_quoted(&s))
#define IP6_QUOTED ((struct ip6_hdr_ *)(void *)sample_quoted(&s))

/* is_refusal() - Of the flow that the sample is about */
static void is_refusal(bool v4)
{
	union inany ours, theirs;

	sample_seal(&s);
	CHECK_EQ(extract(NULL), EXTRACT_REFUSAL);
	CHECK_EQ(frame.ipproto, IPPROTO_UDP);
	CHECK_EQ(frame.key.oport, 5353);
	CHECK_EQ(frame.key.eport, 53);
	if (v4) {
		inany_from_v4(&ours, (struct in_addr){ IP4_QUOTED->saddr });
		inany_from_v4(&theirs, (struct in_addr){ IP4_QUOTED->daddr });
	} else {
		memcpy(&ours, IP6_QUOTED->saddr, sizeof(ours));
		memcpy(&theirs, IP6_QUOTED->daddr, sizeof(theirs));
	}
	CHECK(inany_equal(&frame.key.oaddr, &ours));
	CHECK(inany_equal(&frame.key.eaddr, &theirs));
}

/* is_none() - Nothing that is known of */
static void is_none(void)
{
	sample_seal(&s);
	is_dropped(CNT_DROP_ICMP_TYPE);
}

static void test_the_quoted_datagram_names_the_flow(void)
{
	for (int v4 = 0; v4 < 2; v4++) {
		sample_refusal(&s, v4);
		is_refusal(v4);
	}
}

static void test_only_a_port_is_refused(void)
{
	for (int v4 = 0; v4 < 2; v4++) {
		for (unsigned code = 0; code < 16; code++) {
			sample_refusal(&s, v4);
			((struct icmp_hdr *)sample_l4(&s))->code =
				(uint8_t)code;
			if (code == (v4 ? 3 : 4))
				is_refusal(v4);
			else
				is_none();
		}
	}
}

static void test_a_quote_may_end_behind_its_ports(void)
{
	for (int v4 = 0; v4 < 2; v4++) {
		uint32_t least = 8 + (v4 ? 20 : 40) + 8;

		for (uint32_t len = 8; len <= least + 1; len++) {
			sample_refusal(&s, v4);
			s.len = s.l4 + len;
			if (v4)
				sample_ip4(&s)->tot_len =
					htons((uint16_t)(s.len - ETH_HLEN_));
			else
				sample_ip6(&s)->payload_len =
					htons((uint16_t)len);
			if (len < least)
				is_none();
			else
				is_refusal(v4);
		}
	}
}

static void test_quotes_of_something_else(void)
{
	static const uint8_t heads[] = { 0x05, 0x44, 0x4f, 0x65 };

	for (unsigned i = 0; i < ARRAY_SIZE(heads); i++) {
		sample_refusal(&s, true);
		IP4_QUOTED->ver_ihl = heads[i];
		is_none();
	}
	sample_refusal(&s, true);
	IP4_QUOTED->protocol = IPPROTO_TCP;
	is_none();
	sample_refusal(&s, true);
	IP4_QUOTED->frag_off = htons(1); /* no ports in there */
	is_none();
	sample_refusal(&s, false);
	IP6_QUOTED->vtc_flow = htonl(0x40000000);
	is_none();
	sample_refusal(&s, false);
	IP6_QUOTED->nexthdr = IPPROTO_TCP;
	is_none();
	sample_refusal(&s, false); /* a mapped address is no IPv6 one */
	memset(IP6_QUOTED->daddr, 0, 10);
	memset(IP6_QUOTED->daddr + 10, 0xff, 2);
	is_none();
}

static void test_a_quote_without_ports(void)
{
	for (int v4 = 0; v4 < 2; v4++) {
		for (unsigned at = 0; at < 4; at += 2) {
			sample_refusal(&s, v4);
			memset(sample_quoted(&s) + (v4 ? 20 : 40) + at, 0, 2);
			is_none();
		}
	}
}

/* What was too long for the link is quoted by its first fragment */
static void test_a_fragment_is_quoted(void)
{
	uint8_t *ext;

	sample_refusal(&s, true);
	IP4_QUOTED->frag_off = htons(IP4_MF);
	is_refusal(true);

	for (unsigned i = 0; i < 4; i++) {
		sample_refusal(&s, false);
		ext = sample_quoted(&s) + sizeof(struct ip6_hdr_);
		memmove(ext + 8, ext, 8);
		memset(ext, 0, 8);
		IP6_QUOTED->nexthdr = IPPROTO_FRAGMENT;
		ext[0] = i == 1 ? IPPROTO_TCP : IPPROTO_UDP;
		ext[2] = i == 2;
		ext[3] = i == 3 ? 8 : 1;
		if (!i)
			is_refusal(false);
		else
			is_none();
	}
}

static void test_the_outer_packet_is_checked_as_any(void)
{
	for (int v4 = 0; v4 < 2; v4++) {
		sample_refusal(&s, v4);
		s.data[s.len - 1] ^= 1;
		is_dropped(CNT_DROP_CHECKSUM);
	}
	sample_refusal(&s, false);
	memset(sample_ip6(&s)->saddr, 0, 16);
	sample_seal(&s);
	is_dropped(CNT_DROP_ADDRESS);
}

int main(void)
{
	RUN(test_the_quoted_datagram_names_the_flow);
	RUN(test_only_a_port_is_refused);
	RUN(test_a_quote_may_end_behind_its_ports);
	RUN(test_quotes_of_something_else);
	RUN(test_a_quote_without_ports);
	RUN(test_a_fragment_is_quoted);
	RUN(test_the_outer_packet_is_checked_as_any);
	return 0;
}
