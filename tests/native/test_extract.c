/* SPDX-License-Identifier: GPL-2.0-or-later */
/* flow_extract(): headers of each layer, what is a flow, what a service gets */

#include "extract.h"

static void test_tcp_and_udp_give_their_addresses(void)
{
	static const uint8_t protos[] = { IPPROTO_TCP, IPPROTO_UDP };

	for (int i = 0; i < 4; i++) {
		bool v4 = i & 1;
		uint32_t header = i / 2 ? 8 : 20;

		simple(v4, protos[i / 2]);
		is_flow();
		CHECK(frame.eth == s.data && !frame.next);
		CHECK_EQ(frame.len, s.len);
		CHECK_EQ(frame.l3, 14);
		CHECK_EQ(frame.l4, v4 ? 34 : 54);
		CHECK_EQ(frame.payload, frame.l4 + header);
		CHECK_EQ(frame.payload_len, 100 - header);
		CHECK_EQ(frame.ipproto, protos[i / 2]);
		CHECK_EQ(frame.gso_type, 0);
		CHECK_EQ(frame.gso_size, 0);
		CHECK_EQ(frame.ttl, 64);
		CHECK_EQ(frame.tos, 0x10);
		CHECK_EQ(frame.key.eport, 40000);
		CHECK_EQ(frame.key.oport, 443);
		CHECK_EQ(inany_is_v4(&frame.key.eaddr), v4);
		CHECK_EQ(inany_is_v4(&frame.key.oaddr), v4);
		CHECK_EQ(frame.key.eaddr.a6.s6_addr[15], 2);
		CHECK_EQ(frame.key.oaddr.a6.s6_addr[15], 1);
		if (protos[i / 2] == IPPROTO_TCP)
			CHECK_EQ(frame.tcp_flags, TCP_FLAG_ACK | TCP_FLAG_PSH);
	}
}

static void test_echo_gives_its_identifier_twice(void)
{
	for (int v4 = 0; v4 < 2; v4++) {
		simple(v4, v4 ? IPPROTO_ICMP : IPPROTO_ICMPV6);
		is_flow();
		CHECK_EQ(frame.key.eport, 40000);
		CHECK_EQ(frame.key.oport, 40000);
		CHECK_EQ(frame.payload_len, 92);

		((struct icmp_hdr *)sample_l4(&s))->id = 0;
		sample_seal(&s);
		is_flow();

		((struct icmp_hdr *)sample_l4(&s))->code = 1;
		sample_seal(&s);
		is_dropped(CNT_DROP_ICMP_TYPE);
	}
}

static void test_other_icmp_is_dropped(void)
{
	sample_ip(&s, true, IPPROTO_ICMP, NULL, 0, 0, 64);
	sample_fill(&s, 1, 1, 0); /* echo reply */
	is_dropped(CNT_DROP_ICMP_TYPE);
	sample_ip(&s, false, IPPROTO_ICMPV6, NULL, 0, 0, 64);
	sample_fill(&s, 1, 1, 144); /* mobile IP: home agent discovery */
	is_dropped(CNT_DROP_ICMP_TYPE);
	sample_ip(&s, false, IPPROTO_ICMP, NULL, 0, 0, 64);
	sample_fill(&s, 1, 1, 8); /* ICMP has no place in IPv6 */
	is_dropped(CNT_DROP_IP_PROTO);
}

static void test_membership_reports_are_told_apart(void)
{
	static const uint8_t types[] = { 130, 131, 132, 143 };

	for (unsigned i = 0; i < ARRAY_SIZE(types); i++) {
		sample_ip(&s, false, IPPROTO_ICMPV6, NULL, 0, 0, 64);
		memset(sample_ip6(&s)->saddr, 0, 16); /* before DAD is over */
		sample_fill(&s, 1, 1, types[i]);
		CHECK_EQ(extract(NULL), EXTRACT_GROUP);
		CHECK_EQ(frame.punt, PUNT_MEMBERSHIP);
		s.data[s.len - 1] ^= 1;
		is_dropped(CNT_DROP_CHECKSUM);
	}
	sample_ip(&s, true, IPPROTO_IGMP, NULL, 0, 0, 8);
	sample_fill(&s, 1, 1, 0x16);
	CHECK_EQ(extract(NULL), EXTRACT_GROUP);
	sample_ip(&s, false, IPPROTO_IGMP, NULL, 0, 0, 8);
	sample_fill(&s, 1, 1, 0x16);
	is_dropped(CNT_DROP_IP_PROTO);
}

static void test_services_get_their_frames(void)
{
	sample_arp(&s);
	is_punted(PUNT_ARP);
	CHECK(frame.eth == s.data);
	CHECK_EQ(frame.len, s.len);
	for (uint8_t type = 133; type <= 137; type++) {
		sample_ip(&s, false, IPPROTO_ICMPV6, NULL, 0, 0, 32);
		memset(sample_ip6(&s)->saddr, 0, 16); /* DAD asks so */
		sample_fill(&s, 0, 0, type);
		is_punted(PUNT_ND);
	}
	sample_ip(&s, true, IPPROTO_UDP, NULL, 0, 0, 300);
	sample_ip4(&s)->saddr = 0;
	sample_ip4(&s)->daddr = 0xffffffff;
	sample_fill(&s, 68, 67, 0);
	is_punted(PUNT_DHCP4);
	sample_ip(&s, false, IPPROTO_UDP, NULL, 0, 0, 100);
	sample_ip6(&s)->daddr[0] = 0xff;
	sample_fill(&s, 546, 547, 0);
	is_punted(PUNT_DHCP6);

	/* The other family's port is a port like any */
	sample_ip(&s, false, IPPROTO_UDP, NULL, 0, 0, 100);
	sample_fill(&s, 546, 67, 0);
	is_flow();
}

static void test_checksum_left_to_us_is_made_for_services(void)
{
	struct vnet_hdr vh = { .flags = VNET_F_NEEDS_CSUM,
			       .csum_start = 34,
			       .csum_offset = 6 };
	uint16_t want, partial;

	sample_ip(&s, true, IPPROTO_UDP, NULL, 0, 0, 300);
	sample_fill(&s, 68, 67, 0);
	memcpy(&want, s.data + 40, 2);
	partial = csum_fold(sample_pseudo(&s));
	memcpy(s.data + 40, &partial, 2);
	CHECK_EQ(extract(&vh), EXTRACT_PUNT);
	CHECK(!memcmp(s.data + 40, &want, 2));
}

static void test_padding_is_cut_off(void)
{
	simple(true, IPPROTO_UDP);
	s.len += 30;
	is_flow();
	CHECK_EQ(frame.len, s.len - 30);
	CHECK_EQ(frame.payload_len, 92);
	simple(false, IPPROTO_TCP);
	s.len += 6;
	is_flow();
	CHECK_EQ(frame.len, s.len - 6);
	CHECK_EQ(frame.payload_len, 80);
}

static void test_ip4_options_are_skipped(void)
{
	static const uint8_t options[40] = { 1, 1, 1, 1, 0x94, 4, 0, 0 };

	for (uint32_t len = 4; len <= 40; len += 4) {
		sample_ip(&s, true, IPPROTO_TCP, options, len, 0, 100);
		sample_fill(&s, 1, 2, 0);
		is_flow();
		CHECK_EQ(frame.l4, 34 + len);
		CHECK_EQ(frame.payload_len, 80);
	}
}

static void test_tcp_options_are_skipped(void)
{
	for (uint32_t words = 0; words < 16; words++) {
		simple(true, IPPROTO_TCP);
		((struct tcp_hdr *)sample_l4(&s))->off_res =
			(uint8_t)(words << 4);
		sample_seal(&s);
		if (words < 5) {
			is_dropped(CNT_DROP_L4_HEADER);
			continue;
		}
		is_flow();
		CHECK_EQ(frame.payload, frame.l4 + words * 4);
		CHECK_EQ(frame.payload_len, 100 - words * 4);
	}
	sample_ip(&s, true, IPPROTO_TCP, NULL, 0, 0, 20);
	sample_fill(&s, 1, 2, 0);
	is_flow();
	CHECK_EQ(frame.payload_len, 0);
	((struct tcp_hdr *)sample_l4(&s))->off_res = 6 << 4;
	sample_seal(&s);
	is_dropped(CNT_DROP_L4_HEADER);
}

static void test_every_truncation_is_dropped(void)
{
	static const uint8_t ext[] = { 60, 0, 1, 4, 0, 0, 0, 0,
				       6,  0, 1, 4, 0, 0, 0, 0 };

	for (int i = 0; i < 5; i++) {
		if (i < 4)
			simple(i & 1, i / 2 ? IPPROTO_UDP : IPPROTO_TCP);
		else
			sample_extended(&s, IPPROTO_TCP, ext, sizeof(ext), 0);
		is_flow();
		for (uint32_t len = s.len; len-- > 0;) {
			s.len = len;
			CHECK_EQ(extract(NULL), EXTRACT_DROP);
		}
	}
}

static void test_ip_lengths_must_fit(void)
{
	simple(true, IPPROTO_UDP);
	sample_ip4(&s)->tot_len = htons((uint16_t)(s.len - 13));
	sample_seal(&s);
	is_dropped(CNT_DROP_IP_HEADER);
	sample_ip4(&s)->tot_len = htons(19);
	sample_seal(&s);
	is_dropped(CNT_DROP_IP_HEADER);
	sample_ip4(&s)->tot_len = htons(27);
	sample_seal(&s);
	is_dropped(CNT_DROP_SHORT);
	simple(true, IPPROTO_UDP);
	sample_ip4(&s)->ver_ihl = 0x44;
	is_dropped(CNT_DROP_IP_HEADER);
	sample_ip4(&s)->ver_ihl = 0x65;
	is_dropped(CNT_DROP_IP_HEADER);

	simple(false, IPPROTO_UDP);
	sample_ip6(&s)->payload_len = htons(101);
	is_dropped(CNT_DROP_IP_HEADER);
	sample_ip6(&s)->payload_len = 0;
	is_dropped(CNT_DROP_SHORT);
	simple(false, IPPROTO_UDP);
	sample_ip6(&s)->vtc_flow = htonl(0x40000000);
	is_dropped(CNT_DROP_IP_HEADER);
}

static void test_udp_length_may_be_shorter_only(void)
{
	simple(true, IPPROTO_UDP);
	((struct udp_hdr *)sample_l4(&s))->len = htons(50);
	((struct udp_hdr *)sample_l4(&s))->check = 0;
	is_flow();
	CHECK_EQ(frame.payload_len, 42);
	((struct udp_hdr *)sample_l4(&s))->len = htons(101);
	is_dropped(CNT_DROP_L4_HEADER);
	((struct udp_hdr *)sample_l4(&s))->len = htons(7);
	is_dropped(CNT_DROP_L4_HEADER);
}

static void test_wrong_checksums_are_dropped(void)
{
	for (int i = 0; i < 6; i++) {
		static const uint8_t protos[] = { IPPROTO_TCP, IPPROTO_UDP, 0 };
		bool v4 = i & 1;
		uint8_t proto = protos[i / 2];

		if (!proto)
			proto = v4 ? IPPROTO_ICMP : IPPROTO_ICMPV6;
		simple(v4, proto);
		s.data[s.len - 1] ^= 1;
		is_dropped(CNT_DROP_CHECKSUM);
	}
	simple(true, IPPROTO_TCP);
	sample_ip4(&s)->ttl--;
	is_dropped(CNT_DROP_CHECKSUM);
}

static void test_udp_without_checksum_is_for_ip4_only(void)
{
	for (int v4 = 0; v4 < 2; v4++) {
		simple(v4, IPPROTO_UDP);
		((struct udp_hdr *)sample_l4(&s))->check = 0;
		if (v4)
			is_flow();
		else
			is_dropped(CNT_DROP_CHECKSUM);
	}
}

static void test_fragments_are_for_reassembly(void)
{
	static const uint16_t bits[] = { IP4_MF, 1, IP4_OFF, IP4_MF | 100 };
	struct vnet_hdr vh = { .flags = VNET_F_NEEDS_CSUM };

	for (unsigned i = 0; i < ARRAY_SIZE(bits); i++) {
		simple(true, IPPROTO_UDP);
		sample_ip4(&s)->id = htons(0x1234);
		sample_ip4(&s)->frag_off = htons(bits[i]);
		sample_seal(&s);
		CHECK_EQ(extract(NULL), EXTRACT_FRAGMENT);
		CHECK_EQ(frame.frag_id, 0x1234);
		CHECK_EQ(frame.frag_off, (bits[i] & IP4_OFF) * 8);
		CHECK_EQ(frame.frag_more, !!(bits[i] & IP4_MF));
		CHECK_EQ(frame.ipproto, IPPROTO_UDP);
		CHECK_EQ(frame.payload, s.l4);
		CHECK_EQ(frame.payload_len, 100);
		is_dropped_with(&vh, CNT_DROP_VNET_HDR);
	}
}

static void test_fragments_of_tcp_keep_their_flags(void)
{
	simple(true, IPPROTO_TCP);
	sample_ip4(&s)->frag_off = htons(1);
	sample_seal(&s);
	is_dropped(CNT_DROP_FRAGMENT); /* would overwrite them */
	sample_ip4(&s)->frag_off = htons(2);
	sample_seal(&s);
	CHECK_EQ(extract(NULL), EXTRACT_FRAGMENT);
	sample_ip4(&s)->frag_off = htons(IP4_MF);
	sample_ip4(&s)->tot_len = htons(20 + 8); /* has none */
	sample_seal(&s);
	is_dropped(CNT_DROP_FRAGMENT);
}

static void test_extension_headers_are_walked(void)
{
	/* Hop-by-hop, 16 bytes of destination options, routing, destination */
	static const uint8_t ext[] = {
		60, 0, 1, 4, 0,	 0, 0, 0, 43, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0,
		0,  0, 0, 0, 60, 0, 4, 0, 0,  0, 0, 0,	6, 0, 1, 4, 0, 0, 0, 0,
	};

	sample_extended(&s, IPPROTO_TCP, ext, sizeof(ext), IPPROTO_HOPOPTS);
	is_flow();
	CHECK_EQ(frame.l4, 54 + sizeof(ext));
	CHECK_EQ(frame.ipproto, IPPROTO_TCP);
	CHECK_EQ(frame.payload_len, 80);
}

static void test_extension_headers_are_bounded(void)
{
	uint8_t ext[9 * 8] = { 0 };

	for (unsigned i = 0; i < 9; i++)
		ext[i * 8] = 60;
	ext[7 * 8] = 17;
	sample_extended(&s, IPPROTO_UDP, ext, 8 * 8, 60);
	is_flow();
	ext[7 * 8] = 60;
	ext[8 * 8] = 17;
	sample_extended(&s, IPPROTO_UDP, ext, 9 * 8, 60);
	is_dropped(CNT_DROP_IP_HEADER);
}

static void test_bad_extension_headers_are_dropped(void)
{
	uint8_t ext[16] = { 0, [8] = 17 };

	sample_extended(&s, IPPROTO_UDP, ext, 16, 60); /* hop-by-hop second */
	is_dropped(CNT_DROP_IP_HEADER);
	ext[0] = 17;
	ext[1] = 200; /* beyond the end */
	sample_extended(&s, IPPROTO_UDP, ext, 8, 60);
	is_dropped(CNT_DROP_IP_HEADER);
	ext[1] = 0;
	ext[3] = 1; /* segments left */
	sample_extended(&s, IPPROTO_UDP, ext, 8, 43);
	is_dropped(CNT_DROP_IP_HEADER);
	ext[0] = 59; /* no next header */
	sample_extended(&s, IPPROTO_UDP, ext, 8, 60);
	is_dropped(CNT_DROP_IP_PROTO);
}

static void test_atomic_fragment_is_no_fragment(void)
{
	/* Next header, reserved, offset and more, identification */
	uint8_t ext[8] = { 17, 0, 0, 0, 1, 2, 3, 4 };

	sample_extended(&s, IPPROTO_UDP, ext, 8, 44);
	is_flow();
	CHECK_EQ(frame.l4, 62);
}

static void test_fragments_of_ip6(void)
{
	/* Destination options, then a Fragment header */
	uint8_t ext[16] = { 44, 0, 1, 4, [8] = 17, [11] = 1, 1, 2, 3, 4 };

	sample_extended(&s, IPPROTO_UDP, ext, 16, 60);
	CHECK_EQ(extract(NULL), EXTRACT_FRAGMENT);
	CHECK_EQ(frame.frag_id, 0x01020304);
	CHECK_EQ(frame.frag_off, 0);
	CHECK(frame.frag_more);
	CHECK_EQ(frame.frag_next, 54);
	CHECK_EQ(frame.ipproto, IPPROTO_UDP);
	CHECK_EQ(frame.payload, 70);
	CHECK_EQ(frame.payload_len, 100);
	ext[10] = 0x10;
	ext[11] = 0x08;
	sample_extended(&s, IPPROTO_UDP, ext, 16, 60);
	CHECK_EQ(extract(NULL), EXTRACT_FRAGMENT);
	CHECK_EQ(frame.frag_off, 0x1008);
	CHECK(!frame.frag_more);
}

static void test_first_fragment_has_all_headers(void)
{
	/* A first fragment of destination options, and what they announce */
	uint8_t ext[24] = { 60, 0, 0, 1, 0, 0, 0, 1, 17, 0, 1, 4 };

	sample_extended(&s, IPPROTO_UDP, ext, 16, 44);
	CHECK_EQ(extract(NULL), EXTRACT_FRAGMENT);
	sample_ip6(&s)->payload_len = htons(16);
	is_dropped(CNT_DROP_FRAGMENT);
	ext[8] = 44; /* a fragment within a fragment */
	ext[16] = 17;
	ext[19] = 1;
	sample_extended(&s, IPPROTO_UDP, ext, 24, 44);
	is_dropped(CNT_DROP_FRAGMENT);
}

int main(void)
{
	RUN(test_tcp_and_udp_give_their_addresses);
	RUN(test_echo_gives_its_identifier_twice);
	RUN(test_other_icmp_is_dropped);
	RUN(test_membership_reports_are_told_apart);
	RUN(test_services_get_their_frames);
	RUN(test_checksum_left_to_us_is_made_for_services);
	RUN(test_padding_is_cut_off);
	RUN(test_ip4_options_are_skipped);
	RUN(test_tcp_options_are_skipped);
	RUN(test_every_truncation_is_dropped);
	RUN(test_ip_lengths_must_fit);
	RUN(test_udp_length_may_be_shorter_only);
	RUN(test_wrong_checksums_are_dropped);
	RUN(test_udp_without_checksum_is_for_ip4_only);
	RUN(test_fragments_are_for_reassembly);
	RUN(test_fragments_of_tcp_keep_their_flags);
	RUN(test_extension_headers_are_walked);
	RUN(test_extension_headers_are_bounded);
	RUN(test_bad_extension_headers_are_dropped);
	RUN(test_atomic_fragment_is_no_fragment);
	RUN(test_fragments_of_ip6);
	RUN(test_first_fragment_has_all_headers);
	return 0;
}
