// SPDX-License-Identifier: GPL-2.0-or-later
/* Floods: packets that only want to hurt, as fast as one core can send them.
 *
 * A flood goes on until its standard input ends. It says "flooding" when its
 * first packets are out, and its rate at the end. One that nobody has stopped
 * after seconds=N has failed.
 *
 * kind=syn and kind=udp send to the given address and port from random source
 * addresses and ports; guest=ADDRESS: always from that one, with random ports at
 * both ends. kind=uso sends super-segments of one-byte datagrams from a socket.
 * kind=arp, ns and dhcp put frames on the interface dev=NAME.
 */

#define _GNU_SOURCE

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "load.h"

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

#define BURST	   64 /* packets between two looks at clock and input */
#define FRAME_MAX_ 128

static uint32_t next_random(void)
{
	static uint64_t state = 88172645463325252ULL;

	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (uint32_t)(state >> 16);
}

static uint32_t sum16(uint32_t sum, const void *data, size_t len)
{
	const uint8_t *p = data;

	for (; len > 1; p += 2, len -= 2)
		sum += (uint32_t)p[0] << 8 | p[1];
	return len ? sum + ((uint32_t)p[0] << 8) : sum;
}

static uint16_t fold(uint32_t sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return htons((uint16_t)~sum);
}

/* The sum over addresses, protocol and length that TCP and UDP include */
static uint32_t pseudo(const void *addrs, size_t len, uint8_t proto,
		       size_t l4_len)
{
	return sum16(proto + (uint32_t)l4_len, addrs, len);
}

/* An IPv4 packet for the given address; returns its length */
static size_t make_ip4(const struct options *o, uint8_t *buf)
{
	const struct sockaddr_in *to = (const struct sockaddr_in *)&o->addr;
	bool tcp = !strcmp(o->kind, "syn");
	struct iphdr *ip = (struct iphdr *)buf;
	uint8_t *l4 = buf + sizeof(*ip);
	size_t len = tcp ? sizeof(struct tcphdr) : sizeof(struct udphdr) + 8;
	uint16_t sport = (uint16_t)(1024 + next_random() % 60000);
	uint16_t dport = ntohs(to->sin_port);
	uint32_t sum;

	memset(buf, 0, sizeof(*ip) + len);
	ip->version = 4;
	ip->ihl = 5;
	ip->ttl = 64;
	ip->protocol = tcp ? IPPROTO_TCP : IPPROTO_UDP;
	ip->daddr = to->sin_addr.s_addr;
	/* 198.18.0.0/15 is there for benchmarks (RFC 2544) */
	ip->saddr = htonl(0xc6120000U | (next_random() & 0x1ffff));
	if (o->guest) {
		ip->saddr = htonl(o->guest);
		dport = (uint16_t)(1024 + next_random() % 60000);
	}
	sum = pseudo(&ip->saddr, 8, ip->protocol, len);
	if (tcp) {
		struct tcphdr *th = (struct tcphdr *)l4;

		th->source = htons(sport);
		th->dest = htons(dport);
		th->seq = next_random();
		th->doff = 5;
		th->syn = 1;
		th->window = htons(65535);
		th->check = fold(sum16(sum, th, len));
	} else {
		struct udphdr *uh = (struct udphdr *)l4;

		uh->source = htons(sport);
		uh->dest = htons(dport);
		uh->len = htons((uint16_t)len);
		uh->check = fold(sum16(sum, uh, len));
	}
	return sizeof(*ip) + len;
}

static size_t make_arp(uint8_t *buf)
{
	static const uint8_t head[] = { 0, 1, 8, 0, 6, 4, 0, 1 };
	uint32_t who = htonl(0xc6336400U | (next_random() & 0xff));

	memcpy(buf, head, sizeof(head));
	memset(buf + 8, 0x02, 6);
	memset(buf + 14, 0, 10);
	memcpy(buf + 24, &who, 4);
	return 28;
}

static size_t make_ns(uint8_t *buf)
{
	struct ip6_hdr *ip = (struct ip6_hdr *)buf;
	struct nd_neighbor_solicit *ns = (void *)(ip + 1);
	uint32_t sum;

	memset(buf, 0, sizeof(*ip) + sizeof(*ns));
	ip->ip6_vfc = 0x60;
	ip->ip6_plen = htons(sizeof(*ns));
	ip->ip6_nxt = IPPROTO_ICMPV6;
	ip->ip6_hlim = 255;
	inet_pton(AF_INET6, "fe80::1234", &ip->ip6_src);
	inet_pton(AF_INET6, "ff02::1:ff00:1", &ip->ip6_dst);
	ns->nd_ns_type = ND_NEIGHBOR_SOLICIT;
	inet_pton(AF_INET6, "fe80::1", &ns->nd_ns_target);
	sum = pseudo(&ip->ip6_src, 32, IPPROTO_ICMPV6, sizeof(*ns));
	ns->nd_ns_cksum = fold(sum16(sum, ns, sizeof(*ns)));
	return sizeof(*ip) + sizeof(*ns);
}

/* A datagram to port 67: what is in it does not matter to who counts them */
static size_t make_dhcp(uint8_t *buf)
{
	struct iphdr *ip = (struct iphdr *)buf;
	struct udphdr *uh = (struct udphdr *)(ip + 1);

	memset(buf, 0, sizeof(*ip) + sizeof(*uh));
	*ip = (struct iphdr){ .version = 4,
			      .ihl = 5,
			      .ttl = 64,
			      .protocol = IPPROTO_UDP,
			      .tot_len = htons(sizeof(*ip) + sizeof(*uh)),
			      .daddr = INADDR_NONE };
	ip->check = fold(sum16(0, ip, sizeof(*ip)));
	uh->source = htons(68);
	uh->dest = htons(67);
	uh->len = htons(sizeof(*uh));
	return sizeof(*ip) + sizeof(*uh);
}

static void send_frames(const struct options *o, int fd, uint64_t *sent)
{
	struct sockaddr_ll to = { .sll_family = AF_PACKET,
				  .sll_ifindex = (int)if_nametoindex(o->dev),
				  .sll_halen = ETH_ALEN };
	uint8_t buf[FRAME_MAX_];
	size_t len;

	memset(to.sll_addr, 0xff, ETH_ALEN);
	if (!strcmp(o->kind, "arp")) {
		to.sll_protocol = htons(ETH_P_ARP);
		len = make_arp(buf);
	} else if (!strcmp(o->kind, "ns")) {
		to.sll_protocol = htons(ETH_P_IPV6);
		len = make_ns(buf);
	} else {
		to.sll_protocol = htons(ETH_P_IP);
		len = make_dhcp(buf);
	}
	for (int i = 0; i < BURST; i++)
		if (sendto(fd, buf, len, 0, (struct sockaddr *)&to,
			   sizeof(to)) >= 0)
			(*sent)++;
}

static void send_packets(const struct options *o, int fd, uint64_t *sent)
{
	uint8_t buf[FRAME_MAX_];

	for (int i = 0; i < BURST; i++) {
		size_t len = make_ip4(o, buf);

		if (sendto(fd, buf, len, 0, (const struct sockaddr *)&o->addr,
			   o->addr_len) >= 0)
			(*sent)++;
	}
}

static void send_segments(const struct options *o, int fd, uint64_t *sent)
{
	static const uint8_t payload[BURST];

	for (int i = 0; i < BURST; i++)
		if (sendto(fd, payload, sizeof(payload), 0,
			   (const struct sockaddr *)&o->addr, o->addr_len) >= 0)
			*sent += BURST;
}

/* A socket that has its datagrams cut after each byte */
static int segment_socket(void)
{
	int fd = socket(AF_INET, SOCK_DGRAM, 0), one = 1;

	if (fd >= 0 &&
	    setsockopt(fd, SOL_UDP, UDP_SEGMENT, &one, sizeof(one))) {
		close(fd);
		return -1;
	}
	return fd;
}

/* A socket for what the options say, or -1 with errno set */
static int flood_socket(const struct options *o)
{
	if (!strcmp(o->kind, "uso"))
		return segment_socket();
	return o->dev ? socket(AF_PACKET, SOCK_DGRAM, 0) :
			socket(AF_INET, SOCK_RAW, IPPROTO_RAW);
}

static void send_burst(const struct options *o, int fd, uint64_t *sent)
{
	if (!strcmp(o->kind, "uso"))
		send_segments(o, fd, sent);
	else if (o->dev)
		send_frames(o, fd, sent);
	else
		send_packets(o, fd, sent);
}

/* True once standard input has ended */
static bool told_to_stop(void)
{
	struct pollfd in = { .fd = STDIN_FILENO, .events = POLLIN };

	return poll(&in, 1, 0) > 0;
}

/**
 * run_flood() - Send until told to stop, and say how much went out
 * @o:		Options
 *
 * Return: exit status
 */
int run_flood(const struct options *o)
{
	uint64_t begin = now_ns(), sent = 0;
	int fd;

	if (!o->kind)
		return fail("kind");
	fd = flood_socket(o);
	if (fd < 0)
		return fail("socket");
	send_burst(o, fd, &sent);
	if (!sent)
		return fail("first packets");
	fprintf(stderr, "flooding\n");
	while (!told_to_stop()) {
		send_burst(o, fd, &sent);
		if (now_ns() - begin > o->seconds_ns) {
			errno = ETIMEDOUT;
			return fail("nobody stopped the flood");
		}
	}
	printf("{\"per_second\": %.0f}\n",
	       (double)sent * (double)NS_PER_S / (double)(now_ns() - begin));
	close(fd);
	return 0;
}
