/* SPDX-License-Identifier: GPL-2.0-or-later */
/* merge.c - Super-segments out of the guest's single ones */

#include "link/merge.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

#include "base/checksum.h"
#include "base/macros.h"

/* Longest payload of IP that its length field can tell, and that an offset in
 * struct frame can reach */
#define MERGE_IP_MAX 65535

/** struct seg - A TCP segment while it may be merged
 * @ip:		Its IP header
 * @th:		Its TCP header
 * @ip_len:	Bytes of @ip's header: 20 or 40
 * @th_len:	Bytes of the TCP header with options
 * @len:	Bytes of payload
 */
struct seg {
	uint8_t *ip;
	struct tcp_hdr *th;
	uint32_t ip_len;
	uint32_t th_len;
	uint32_t len;
};

/** struct run - Segments merged so far
 * @rx:		The frame they are in, or NULL: none
 * @first:	Its headers; @len is that of each whole segment
 * @next_seq:	Sequence number that continues it
 * @segs:	Segments merged
 */
struct run {
	struct tap_rx *rx;
	struct seg first;
	uint32_t next_seq;
	uint32_t segs;
};

/* find_ip4() - IPv4 without options and fragments
 * Return: bytes of the IP packet, 0 if it is no such */
static uint32_t find_ip4(const struct ip4_hdr *ih)
{
	if (ih->ver_ihl != 0x45 || ih->protocol != IPPROTO_TCP ||
	    ntohs(ih->frag_off) & (IP4_MF | IP4_OFF) ||
	    csum_fold(csum_add(ih, sizeof(*ih), 0)) != 0xffff)
		return 0;
	return ntohs(ih->tot_len);
}

/* find_ip6() - IPv6 without extension headers */
static uint32_t find_ip6(const struct ip6_hdr_ *ih)
{
	if (ntohl(ih->vtc_flow) >> 28 != 6 || ih->nexthdr != IPPROTO_TCP)
		return 0;
	return (uint32_t)sizeof(*ih) + ntohs(ih->payload_len);
}

/* sum_is_right() - Is the TCP checksum? */
static bool sum_is_right(const struct seg *s, bool v4)
{
	uint32_t len = s->th_len + s->len;
	union inany src, dst;

	if (v4) {
		const struct ip4_hdr *ih = (const struct ip4_hdr *)s->ip;

		inany_from_v4(&src, (struct in_addr){ ih->saddr });
		inany_from_v4(&dst, (struct in_addr){ ih->daddr });
	} else {
		const struct ip6_hdr_ *ih = (const struct ip6_hdr_ *)s->ip;

		memcpy(&src, ih->saddr, sizeof(src));
		memcpy(&dst, ih->daddr, sizeof(dst));
	}
	return csum_fold(csum_add(s->th, len,
				  csum_pseudo(&src, &dst, IPPROTO_TCP, len))) ==
	       0xffff;
}

/**
 * find_seg() - Is this frame a TCP segment that may be part of a run?
 *
 * All of the frame is checked before it is read, as flow_extract() does again
 * with whatever comes of it.
 */
static bool find_seg(struct seg *s, const struct tap_rx *rx)
{
	const struct eth_hdr *eh = (const struct eth_hdr *)rx->data;
	uint32_t room = rx->len - ETH_HLEN_, total;
	bool v4;

	if (rx->len < ETH_HLEN_ + sizeof(struct ip4_hdr) + sizeof(*s->th) ||
	    rx->vh.flags || rx->vh.gso_type != VNET_GSO_NONE)
		return false;
	v4 = eh->type == htons(ETHERTYPE_IPV4_);
	if (!v4 && eh->type != htons(ETHERTYPE_IPV6_))
		return false;
	s->ip = rx->data + ETH_HLEN_;
	s->ip_len = v4 ? sizeof(struct ip4_hdr) : sizeof(struct ip6_hdr_);
	if (room < s->ip_len + sizeof(*s->th))
		return false;
	total = v4 ? find_ip4((const struct ip4_hdr *)s->ip) :
		     find_ip6((const struct ip6_hdr_ *)s->ip);
	if (total > room || total < s->ip_len + sizeof(*s->th))
		return false;
	s->th = (struct tcp_hdr *)(s->ip + s->ip_len);
	s->th_len = (uint32_t)(s->th->off_res >> 4) * 4;
	if (s->th_len < sizeof(*s->th) || s->ip_len + s->th_len >= total ||
	    (s->th->flags & ~TCP_FLAG_PSH) != TCP_FLAG_ACK)
		return false;
	s->len = total - s->ip_len - s->th_len;
	return true;
}

/* ip_is_same() - Same addresses and treatment: all but length, id, checksum */
static bool ip_is_same(const struct seg *a, const struct seg *b)
{
	const struct ip4_hdr *x = (const struct ip4_hdr *)a->ip;
	const struct ip4_hdr *y = (const struct ip4_hdr *)b->ip;

	if (a->ip_len != b->ip_len)
		return false;
	if (a->ip_len == sizeof(struct ip6_hdr_)) /* 4, 5: payload length */
		return !memcmp(a->ip, b->ip, 4) &&
		       !memcmp(a->ip + 6, b->ip + 6, 34);
	return x->tos == y->tos && x->ttl == y->ttl && x->saddr == y->saddr &&
	       x->daddr == y->daddr;
}

/* continues() - Does @s come right after what @run holds? */
static bool continues(const struct run *run, const struct seg *s,
		      const struct tap_rx *rx)
{
	const struct tcp_hdr *a = run->first.th, *b = s->th;
	const uint8_t *end = run->rx->data + run->rx->len;

	return !memcmp(run->rx->data, rx->data, ETH_HLEN_) &&
	       ip_is_same(&run->first, s) && a->source == b->source &&
	       a->dest == b->dest && run->next_seq == ntohl(b->seq) &&
	       a->ack_seq == b->ack_seq && a->window == b->window &&
	       a->off_res == b->off_res && !(a->flags & TCP_FLAG_PSH) &&
	       !memcmp(a + 1, b + 1, s->th_len - sizeof(*a)) &&
	       s->len <= run->first.len &&
	       run->rx->len - ETH_HLEN_ + s->len <= MERGE_IP_MAX &&
	       end <= (const uint8_t *)s->th + s->th_len;
}

static void set_ip_length(const struct seg *s, uint32_t len)
{
	struct ip6_hdr_ *ip6 = (struct ip6_hdr_ *)s->ip;
	struct ip4_hdr *ip4 = (struct ip4_hdr *)s->ip;

	if (s->ip_len == sizeof(*ip6)) {
		ip6->payload_len = htons((uint16_t)(len - s->ip_len));
		return;
	}
	ip4->tot_len = htons((uint16_t)len);
	ip4->check = 0;
	ip4->check = (uint16_t)~csum_fold(csum_add(ip4, sizeof(*ip4), 0));
}

/* run_end() - Make the headers tell what was merged */
static void run_end(struct run *run)
{
	const struct seg *s = &run->first;

	if (run->rx && run->segs > 1) {
		set_ip_length(s, run->rx->len - ETH_HLEN_);
		run->rx->vh.gso_type = s->ip_len == sizeof(struct ip6_hdr_) ?
					       VNET_GSO_TCPV6 :
					       VNET_GSO_TCPV4;
		run->rx->vh.gso_size = (uint16_t)s->len;
	}
	run->rx = NULL;
}

static void run_start(struct run *run, struct tap_rx *rx, const struct seg *s)
{
	/* Ethernet padding may lie behind a short segment */
	rx->len = ETH_HLEN_ + s->ip_len + s->th_len + s->len;
	*run = (struct run){
		.rx = rx,
		.first = *s,
		.next_seq = ntohl(s->th->seq) + s->len,
		.segs = 1,
	};
}

/* run_add() - Move the payload of @s to the end of the run */
static void run_add(struct run *run, const struct seg *s)
{
	/* The move may run over the headers of @s */
	run->first.th->flags |= s->th->flags & TCP_FLAG_PSH;
	memmove(run->rx->data + run->rx->len, (uint8_t *)s->th + s->th_len,
		s->len);
	run->rx->len += s->len;
	run->next_seq += s->len;
	run->segs++;
}

unsigned merge_batch(struct tap_rx *rx, unsigned n)
{
	struct run run = { .rx = NULL };
	unsigned out = 0;
	struct seg s;

	for (unsigned i = 0; i < n; i++) {
		if (!find_seg(&s, &rx[i]) ||
		    !sum_is_right(&s, s.ip_len == sizeof(struct ip4_hdr))) {
			run_end(&run);
			rx[out++] = rx[i];
			continue;
		}
		rx[i].vh.flags = VNET_F_DATA_VALID;
		if (run.rx && continues(&run, &s, &rx[i])) {
			run_add(&run, &s);
			if (s.len < run.first.len)
				run_end(&run); /* GRO's rule: the last one */
			continue;
		}
		run_end(&run);
		rx[out] = rx[i];
		run_start(&run, &rx[out++], &s);
	}
	run_end(&run);
	return out;
}
