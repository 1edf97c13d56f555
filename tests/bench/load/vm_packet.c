// SPDX-License-Identifier: GPL-2.0-or-later
/* Frames of the played guest: building them, and checking those that arrive.
 *
 * Sums are of 16-bit words as numbers, modulo 65535, which is the Internet
 * checksum (RFC 1071) whatever the byte order.
 */

#define _GNU_SOURCE

#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "vm.h"

#define TCP_LEN	    20
#define SYN_OPTIONS 8
#define UDP_LEN	    8
#define OUR_SCALE   7
#define OUR_WINDOW  (4U << 20) /* what a Linux guest comes to by itself */
#define FLAG_SYN    0x02

static const uint8_t our_mac[6] = { 0x52, 0x54, 0x00, 0x12, 0x34, 0x56 };

static uint16_t fold(uint64_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

/**
 * vm_prepare_sums() - Checksums of all beginnings of the pattern
 * @g:		Guest, its link's pattern filled
 */
void vm_prepare_sums(struct vm_guest *g)
{
	uint32_t sum = 0;

	g->sums[0] = 0;
	for (size_t i = 0; i < PATTERN_SIZE; i++) {
		sum += (uint32_t)g->link->pattern[i] << (i & 1 ? 0 : 8);
		sum %= 65535;
		g->sums[i + 1] = (uint16_t)sum;
	}
}

/* vm_pattern_sum() - Sum of @len bytes of the pattern from @phase on */
uint16_t vm_pattern_sum(const struct vm_guest *g, uint32_t phase, uint32_t len)
{
	uint32_t sum = 65535U + g->sums[phase + len] - g->sums[phase];
	uint16_t folded = fold(sum);

	/* From an odd place on, all words are the other way round */
	return phase & 1 ? (uint16_t)(folded << 8 | folded >> 8) : folded;
}

/**
 * vm_make_template() - Headers that all frames of the guest begin with
 * @g:		Guest with addresses and the gateway's MAC
 */
void vm_make_template(struct vm_guest *g)
{
	uint8_t *ip = g->template + VM_ETH_LEN;
	uint64_t sum = 0;

	memcpy(g->template, g->mac, 6);
	memcpy(g->template + 6, our_mac, 6);
	put16(g->template + 12, 0x0800);
	memset(ip, 0, 20);
	ip[0] = 0x45;
	ip[6] = 0x40; /* don't fragment */
	ip[8] = 64;
	put32(ip + 12, g->addr);
	put32(ip + 16, g->peer);
	for (int i = 0; i < 20; i += 2)
		sum += get16(ip + i);
	g->ip_sum = fold(sum);
	sum = 0;
	for (int i = 12; i < 20; i += 2)
		sum += get16(ip + i);
	g->pair_sum = fold(sum);
}

/* put_ip() - Ethernet and IP header of a packet with @l4_len bytes after them */
static uint8_t *put_ip(const struct vm_guest *g, uint8_t *hdr, uint8_t proto,
		       uint32_t l4_len)
{
	uint8_t *ip = hdr + VM_ETH_LEN;

	memcpy(hdr, g->template, sizeof(g->template));
	put16(ip + 2, 20 + l4_len);
	ip[9] = proto;
	put16(ip + 10, (uint16_t)~fold(g->ip_sum + 20 + l4_len + proto));
	return ip + 20;
}

static uint64_t pseudo_sum(const struct vm_guest *g, uint8_t proto,
			   uint32_t l4_len)
{
	return (uint64_t)g->pair_sum + proto + l4_len;
}

static uint32_t put_syn_options(uint8_t *option, uint16_t mss)
{
	option[0] = 2;
	option[1] = 4;
	put16(option + 2, mss);
	option[4] = 1;
	option[5] = 3;
	option[6] = 3;
	option[7] = OUR_SCALE;
	return SYN_OPTIONS;
}

/**
 * vm_send_segment() - Send one frame of a flow
 * @g:		Guest
 * @slot:	Room for headers, from the link
 * @f:		Flow
 * @off:	Offset of its first byte; for a SYN one less than 0
 * @len:	Bytes of payload, more than an MSS only if the link cuts them
 * @flags:	Of the TCP header
 */
void vm_send_segment(struct vm_guest *g, uint8_t *slot, struct vm_flow *f,
		     uint64_t off, uint32_t len, uint8_t flags)
{
	struct vm_frame frame = { .hdr = slot, .len = len };
	uint32_t seq = f->iss + (uint32_t)off, window = OUR_WINDOW >> OUR_SCALE;
	uint32_t head = TCP_LEN;
	uint64_t sum;
	uint8_t *tcp;

	if (flags & FLAG_SYN) {
		window = 65535;
		head += put_syn_options(slot + sizeof(g->template) + TCP_LEN,
					f->mss);
	}
	tcp = put_ip(g, slot, IPPROTO_TCP, head + len);
	put16(tcp, f->port);
	put16(tcp + 2, g->peer_port);
	put32(tcp + 4, seq);
	put32(tcp + 8, f->rcv_nxt);
	put16(tcp + 12, head << 10 | flags);
	put16(tcp + 14, window);
	put32(tcp + 16, 0);

	sum = pseudo_sum(g, IPPROTO_TCP, head + len);
	frame.partial = g->link->csum && len;
	if (!frame.partial) {
		for (uint32_t i = 0; i < head; i += 2)
			sum += get16(tcp + i);
	}
	frame.phase = (uint32_t)(off % PATTERN_PERIOD);
	if (len && !frame.partial)
		sum += vm_pattern_sum(g, frame.phase, len);
	sum = fold(sum);
	put16(tcp + 16, frame.partial ? (uint32_t)sum : (uint16_t)~sum);

	frame.hdr_len = sizeof(g->template) + head;
	frame.mss = len > f->mss ? f->mss : 0;
	g->link->ops->commit(g->link, &frame);
}

/**
 * vm_send_datagram() - Send one UDP datagram
 * @g:		Guest
 * @port:	Our port
 * @len:	Bytes of payload, the beginning of the pattern
 *
 * Return: false if the link has no room
 */
bool vm_send_datagram(struct vm_guest *g, uint16_t port, uint32_t len)
{
	struct vm_frame frame = { .len = len };
	uint8_t *slot = g->link->ops->slot(g->link);
	uint64_t sum;
	uint8_t *udp;

	if (!slot)
		return false;
	udp = put_ip(g, slot, IPPROTO_UDP, UDP_LEN + len);
	put16(udp, port);
	put16(udp + 2, g->peer_port);
	put16(udp + 4, UDP_LEN + len);
	sum = pseudo_sum(g, IPPROTO_UDP, UDP_LEN + len);
	frame.partial = g->link->csum;
	if (!frame.partial) {
		sum += (uint32_t)port + g->peer_port + UDP_LEN + len;
		sum = (uint16_t)~fold(sum + vm_pattern_sum(g, 0, len));
		sum = sum ? sum : 0xffff;
	}
	put16(udp + 6, fold(sum));
	frame.hdr = slot;
	frame.hdr_len = sizeof(g->template) + UDP_LEN;
	g->link->ops->commit(g->link, &frame);
	return true;
}

/**
 * vm_send_arp() - Ask for an address, or tell ours
 * @g:		Guest
 * @op:		1 to ask, 2 to answer
 * @mac:	Who is answered; all ones to ask
 * @target:	IPv4 address asked for or answered
 */
void vm_send_arp(struct vm_guest *g, uint16_t op, const uint8_t *mac,
		 uint32_t target)
{
	uint8_t *slot = g->link->ops->slot(g->link);
	struct vm_frame frame = { .hdr = slot, .hdr_len = VM_ETH_LEN + 28 };
	uint8_t *arp;

	if (!slot)
		return;
	arp = slot + VM_ETH_LEN;
	memcpy(slot, mac, 6);
	memcpy(slot + 6, our_mac, 6);
	put16(slot + 12, 0x0806);
	memcpy(arp, "\0\1\x08\0\6\4", 6);
	put16(arp + 6, op);
	memcpy(arp + 8, our_mac, 6);
	put32(arp + 14, g->addr);
	memcpy(arp + 18, mac, 6);
	put32(arp + 24, target);
	g->link->ops->commit(g->link, &frame);
}

/* vm_checksum_ok() - Are the checksums of a TCP or UDP packet right? */
bool vm_checksum_ok(const struct vm_packet *p, const uint8_t *ip)
{
	uint32_t head = (ip[0] & 15) * 4U, l4_len = get16(ip + 2) - head;
	uint64_t sum = 0, total = (uint64_t)ip[9] + l4_len;
	size_t skip = VM_ETH_LEN + head, left = l4_len, done = 0;

	for (uint32_t i = 0; i < head; i += 2)
		sum += get16(ip + i);
	if (fold(sum) != 0xffff)
		return false;
	if (p->partial)
		return true;
	for (uint32_t i = 12; i < 20; i += 2)
		total += get16(ip + i);
	for (unsigned int k = 0; k < p->n && left; k++) {
		const uint8_t *data = p->pieces[k].iov_base;
		size_t len = p->pieces[k].iov_len;

		for (size_t i = skip; i < len && left; i++, left--, done++)
			total += (uint64_t)data[i] << (done & 1 ? 0 : 8);
		skip = skip > len ? skip - len : 0;
	}
	return !left && fold(total) == 0xffff;
}

/**
 * vm_payload_ok() - Does a packet carry the pattern?
 * @g:		Guest
 * @p:		Packet
 * @skip:	Bytes before the payload
 * @off:	Offset of the payload in its stream
 * @len:	Bytes of payload
 *
 * Return: whether it does
 */
bool vm_payload_ok(const struct vm_guest *g, const struct vm_packet *p,
		   size_t skip, uint64_t off, size_t len)
{
	for (unsigned int k = 0; k < p->n && len; k++) {
		const uint8_t *data = p->pieces[k].iov_base;
		size_t n = p->pieces[k].iov_len;
		size_t begin = skip < n ? skip : n;

		skip -= begin;
		n = n - begin < len ? n - begin : len;
		if (memcmp(data + begin,
			   g->link->pattern + off % PATTERN_PERIOD, n))
			return false;
		off += n;
		len -= n;
	}
	return !len;
}
