/* SPDX-License-Identifier: GPL-2.0-or-later */
/* flow_extract(): addresses that are no flow, and virtio-net headers */

#include "extract.h"

static void source4(uint32_t addr)
{
	sample_ip4(&s)->saddr = htonl(addr);
	sample_seal(&s);
}

static void dest4(uint32_t addr)
{
	sample_ip4(&s)->daddr = htonl(addr);
	sample_seal(&s);
}

static void test_ip4_addresses_that_are_no_flow(void)
{
	static const uint32_t sources[] = { 0, 0x7f000001, 0xe0000001,
					    0xffffffff };
	static const uint32_t dests[] = { 0, 0x7f123456 };

	for (unsigned i = 0; i < ARRAY_SIZE(sources); i++) {
		simple(true, IPPROTO_UDP);
		source4(sources[i]);
		is_dropped(CNT_DROP_ADDRESS);
		simple(true, IPPROTO_ICMP);
		source4(sources[i]);
		is_dropped(CNT_DROP_ADDRESS);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(dests); i++) {
		simple(true, IPPROTO_UDP);
		dest4(dests[i]);
		is_dropped(CNT_DROP_ADDRESS);
	}
}

static void test_multicast_is_for_all_but_tcp(void)
{
	static const uint32_t dests[] = { 0xe00000fb, 0xffffffff };

	for (unsigned i = 0; i < ARRAY_SIZE(dests); i++) {
		simple(true, IPPROTO_UDP);
		dest4(dests[i]);
		is_flow();
		simple(true, IPPROTO_TCP);
		dest4(dests[i]);
		is_dropped(CNT_DROP_ADDRESS);
	}
	simple(false, IPPROTO_UDP);
	sample_ip6(&s)->daddr[0] = 0xff;
	sample_seal(&s);
	is_flow();
	simple(false, IPPROTO_TCP);
	sample_ip6(&s)->daddr[0] = 0xff;
	sample_seal(&s);
	is_dropped(CNT_DROP_ADDRESS);
}

static void test_ip6_addresses_that_are_no_flow(void)
{
	static const uint8_t bad[][16] = {
		{ 0 },				     /* unspecified */
		{ [15] = 1 },			     /* loopback */
		{ [10] = 0xff, 0xff, 192, 0, 2, 2 }, /* v4-mapped */
	};

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		simple(false, IPPROTO_UDP);
		memcpy(sample_ip6(&s)->saddr, bad[i], 16);
		sample_seal(&s);
		is_dropped(CNT_DROP_ADDRESS);
		simple(false, IPPROTO_UDP);
		memcpy(sample_ip6(&s)->daddr, bad[i], 16);
		sample_seal(&s);
		is_dropped(CNT_DROP_ADDRESS);
	}
	simple(false, IPPROTO_ICMPV6);
	sample_ip6(&s)->saddr[0] = 0xff; /* multicast source */
	sample_seal(&s);
	is_dropped(CNT_DROP_ADDRESS);
	simple(false, IPPROTO_UDP);
	sample_ip6(&s)->saddr[0] = 0xfe; /* link-local is fine */
	sample_ip6(&s)->saddr[1] = 0x80;
	sample_seal(&s);
	is_flow();
}

static void test_port_zero_is_dropped(void)
{
	for (int i = 0; i < 4; i++) {
		sample_ip(&s, true, i / 2 ? IPPROTO_TCP : IPPROTO_UDP, NULL, 0,
			  0, 100);
		sample_fill(&s, i & 1 ? 0 : 1, i & 1 ? 1 : 0, 0);
		is_dropped(CNT_DROP_ADDRESS);
	}
}

static void test_unknown_protocols_are_dropped(void)
{
	simple(true, IPPROTO_UDP);
	s.data[12] = 0x88;
	is_dropped(CNT_DROP_ETHERTYPE);
	simple(true, IPPROTO_UDP);
	sample_ip4(&s)->protocol = IPPROTO_SCTP;
	sample_seal(&s);
	is_dropped(CNT_DROP_IP_PROTO);
}

static struct vnet_hdr offload(uint8_t gso_type, uint16_t gso_size)
{
	return (struct vnet_hdr){
		.flags = VNET_F_NEEDS_CSUM,
		.gso_type = gso_type,
		.gso_size = gso_size,
		.csum_start = (uint16_t)s.l4,
		.csum_offset = sample_check_offset(&s),
	};
}

static void test_checksum_left_to_us_is_not_verified(void)
{
	struct vnet_hdr vh;

	for (int i = 0; i < 4; i++) {
		simple(i & 1, i / 2 ? IPPROTO_TCP : IPPROTO_UDP);
		s.data[s.len - 1] ^= 1;
		vh = (struct vnet_hdr){ 0 };
		is_dropped_with(&vh, CNT_DROP_CHECKSUM);
		vh.flags = VNET_F_DATA_VALID;
		CHECK_EQ(extract(&vh), EXTRACT_FLOW);
		vh = offload(0, 0);
		CHECK_EQ(extract(&vh), EXTRACT_FLOW);
		vh.csum_start++;
		is_dropped_with(&vh, CNT_DROP_VNET_HDR);
		vh = offload(0, 0);
		vh.csum_offset += 2;
		is_dropped_with(&vh, CNT_DROP_VNET_HDR);
	}
}

static void test_segments_must_fit_the_protocol(void)
{
	static const uint8_t types[] = { VNET_GSO_TCPV4,
					 VNET_GSO_TCPV6,
					 VNET_GSO_UDP_L4,
					 VNET_GSO_UDP_L4 | VNET_GSO_ECN,
					 2,
					 3,
					 6,
					 VNET_GSO_ECN };

	for (unsigned i = 0; i < ARRAY_SIZE(types); i++) {
		for (int kind = 0; kind < 4; kind++) {
			bool v4 = kind & 1, tcp = kind / 2;
			struct vnet_hdr vh;
			bool good;

			simple(v4, tcp ? IPPROTO_TCP : IPPROTO_UDP);
			vh = offload(types[i], 10);
			good = types[i] == VNET_GSO_UDP_L4 ? !tcp :
			       types[i] == VNET_GSO_TCPV4  ? tcp && v4 :
			       types[i] == VNET_GSO_TCPV6  ? tcp && !v4 :
							     false;
			if (!good) {
				is_dropped_with(&vh, CNT_DROP_VNET_HDR);
				continue;
			}
			CHECK_EQ(extract(&vh), EXTRACT_FLOW);
			CHECK_EQ(frame.gso_type, types[i]);
			CHECK_EQ(frame.gso_size, 10);
			vh.gso_size = 0;
			is_dropped_with(&vh, CNT_DROP_VNET_HDR);
		}
	}
	simple(true, IPPROTO_TCP);
	CHECK_EQ(extract(&(struct vnet_hdr[]){
			 offload(VNET_GSO_TCPV4 | VNET_GSO_ECN, 10) }[0]),
		 EXTRACT_FLOW);
	CHECK_EQ(frame.gso_type, VNET_GSO_TCPV4);
}

static void test_segments_need_payload(void)
{
	struct vnet_hdr vh;

	sample_ip(&s, true, IPPROTO_TCP, NULL, 0, 0, 20);
	sample_fill(&s, 1, 2, 0);
	vh = offload(VNET_GSO_TCPV4, 10);
	is_dropped_with(&vh, CNT_DROP_VNET_HDR);
}

int main(void)
{
	RUN(test_ip4_addresses_that_are_no_flow);
	RUN(test_multicast_is_for_all_but_tcp);
	RUN(test_ip6_addresses_that_are_no_flow);
	RUN(test_port_zero_is_dropped);
	RUN(test_unknown_protocols_are_dropped);
	RUN(test_checksum_left_to_us_is_not_verified);
	RUN(test_segments_must_fit_the_protocol);
	RUN(test_segments_need_payload);
	return 0;
}
