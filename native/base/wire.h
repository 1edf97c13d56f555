/* SPDX-License-Identifier: GPL-2.0-or-later */
/* wire.h - Layouts of the headers that cross the tap, all in network order
 *
 * Owns: packed structs for Ethernet, IPv4 (RFC 791), IPv6 (RFC 8200), TCP
 * (RFC 9293), UDP (RFC 768), ICMP (RFC 792, RFC 4443) and the virtio-net
 * header (host order, as the tun driver reads it). Packed, because frames
 * start at any address: never take a pointer to a member.
 */
#ifndef PASSTPY_BASE_WIRE_H
#define PASSTPY_BASE_WIRE_H

#include <stdint.h>

#define WIRE_PACKED __attribute__((packed))

enum {
	ETH_ALEN_ = 6,	/* Ethernet address, bytes */
	ETH_HLEN_ = 14, /* Ethernet header, bytes */
	ETHERTYPE_IPV4_ = 0x0800,
	ETHERTYPE_ARP_ = 0x0806,
	ETHERTYPE_IPV6_ = 0x86dd,
};

struct eth_hdr {
	uint8_t dst[ETH_ALEN_];
	uint8_t src[ETH_ALEN_];
	uint16_t type;
} WIRE_PACKED;

struct ip4_hdr {
	uint8_t ver_ihl; /* version << 4 | header length in words */
	uint8_t tos;
	uint16_t tot_len; /* header and payload, bytes */
	uint16_t id;
	uint16_t frag_off; /* flags << 13 | offset in 8 bytes */
	uint8_t ttl;
	uint8_t protocol;
	uint16_t check;
	uint32_t saddr;
	uint32_t daddr;
} WIRE_PACKED;

#define IP4_DF	0x4000
#define IP4_MF	0x2000
#define IP4_OFF 0x1fff

struct ip6_hdr_ {
	uint32_t vtc_flow; /* version, traffic class, flow label */
	uint16_t payload_len;
	uint8_t nexthdr;
	uint8_t hop_limit;
	uint8_t saddr[16];
	uint8_t daddr[16];
} WIRE_PACKED;

struct tcp_hdr {
	uint16_t source;
	uint16_t dest;
	uint32_t seq;
	uint32_t ack_seq;
	uint8_t off_res; /* data offset in words << 4 */
	uint8_t flags;	 /* TCP_FLAG_* */
	uint16_t window;
	uint16_t check;
	uint16_t urg_ptr;
} WIRE_PACKED;

enum {
	TCP_FLAG_FIN = 0x01,
	TCP_FLAG_SYN = 0x02,
	TCP_FLAG_RST = 0x04,
	TCP_FLAG_PSH = 0x08,
	TCP_FLAG_ACK = 0x10,
	TCP_FLAG_URG = 0x20,
	TCP_FLAG_ECE = 0x40,
	TCP_FLAG_CWR = 0x80,
};

enum {
	TCP_OPT_EOL = 0,
	TCP_OPT_NOP_ = 1,
	TCP_OPT_MSS = 2,
	TCP_OPT_WSCALE = 3,
	TCP_OPT_SACK_PERM = 4,
	TCP_OPT_SACK = 5,
};

struct udp_hdr {
	uint16_t source;
	uint16_t dest;
	uint16_t len; /* header and payload, bytes */
	uint16_t check;
} WIRE_PACKED;

/** struct icmp_hdr - Common start of ICMP and ICMPv6; echo uses id and seq */
struct icmp_hdr {
	uint8_t type;
	uint8_t code;
	uint16_t check;
	uint16_t id;  /* echo: identifier; errors: unused/MTU high */
	uint16_t seq; /* echo: sequence; errors: MTU low */
} WIRE_PACKED;

/* What tells a frame for a service */
enum {
	PORT_DNS = 53,		  /* RFC 1035 4.2.1 */
	PORT_DHCP_SERVER = 67,	  /* RFC 2131 4.1 */
	PORT_DHCPV6_SERVER = 547, /* RFC 8415 7.2 */
	ICMP6_ND_FIRST = 133,	  /* RFC 4861: router solicitation */
	ICMP6_ND_LAST = 137,	  /* redirect */
};

/** struct vnet_hdr - virtio-net header of the tun driver, host order
 * @flags:	VNET_F_*
 * @gso_type:	VNET_GSO_*
 * @hdr_len:	Length of all headers, bytes (a hint)
 * @gso_size:	Payload bytes of each segment
 * @csum_start:	Where to start summing, offset from the Ethernet header
 * @csum_offset: Where to put the sum, offset from @csum_start
 */
struct vnet_hdr {
	uint8_t flags;
	uint8_t gso_type;
	uint16_t hdr_len;
	uint16_t gso_size;
	uint16_t csum_start;
	uint16_t csum_offset;
} WIRE_PACKED;

enum {
	VNET_F_NEEDS_CSUM = 1,
	VNET_F_DATA_VALID = 2,
	VNET_GSO_NONE = 0,
	VNET_GSO_TCPV4 = 1,
	VNET_GSO_TCPV6 = 4,
	VNET_GSO_UDP_L4 = 5,
	VNET_GSO_ECN = 0x80,
};

#endif /* PASSTPY_BASE_WIRE_H */
