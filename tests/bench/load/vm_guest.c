// SPDX-License-Identifier: GPL-2.0-or-later
/* The played guest itself: coming up, its loop, and what it does with frames. */

#define _GNU_SOURCE

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vm.h"

#define ARP_REQUEST 1
#define ARP_REPLY   2
#define ARP_NS	    (200 * NS_PER_MS)
#define ARP_TRIES   25
#define STEP_NS	    (50 * NS_PER_MS) /* longest wait: programs watch the time */

static const uint8_t broadcast[6] = { 255, 255, 255, 255, 255, 255 };

static void arp_input(struct vm_guest *g, const uint8_t *arp, size_t len)
{
	uint16_t op;

	if (len < 28)
		return;
	op = get16(arp + 6);
	if (op == ARP_REQUEST && get32(arp + 24) == g->addr &&
	    get32(arp + 14) != g->addr)
		vm_send_arp(g, ARP_REPLY, arp + 8, get32(arp + 14));
	if (op == ARP_REPLY && get32(arp + 14) == g->gateway) {
		memcpy(g->mac, arp + 8, 6);
		g->resolved = true;
	}
}

/**
 * vm_input() - A frame has arrived
 * @g:		Guest
 * @p:		The frame
 */
void vm_input(struct vm_guest *g, const struct vm_packet *p)
{
	const uint8_t *eth = p->pieces->iov_base, *ip = eth + VM_ETH_LEN;
	size_t first = p->pieces->iov_len;
	uint32_t head, total;

	if (first < VM_ETH_LEN + 28)
		return;
	if (get16(eth + 12) == 0x0806) {
		arp_input(g, ip, first - VM_ETH_LEN);
		return;
	}
	head = (ip[0] & 15) * 4U;
	total = get16(ip + 2);
	if (get16(eth + 12) != 0x0800 || ip[0] >> 4 != 4 || head < 20 ||
	    VM_ETH_LEN + head + 20 > first + 12 || total < head ||
	    VM_ETH_LEN + total > p->len || get32(ip + 16) != g->addr ||
	    get16(ip + 6) & 0x3fff)
		return;
	if (g->o->verify && !vm_checksum_ok(p, ip)) {
		g->bad++;
		return;
	}
	if (ip[9] == IPPROTO_TCP && VM_ETH_LEN + head + 20 <= first)
		vm_tcp_input(g, p, ip, ip + head, total - head);
	else if (ip[9] == IPPROTO_UDP && g->work->datagram &&
		 get16(ip + head) == g->peer_port && total >= head + 8)
		g->work->datagram(g, total - head - 8);
}

/**
 * vm_step() - Wait for something, then do all there is to do
 * @g:		Guest
 *
 * Return: false when the translator has gone; errno is set
 */
bool vm_step(struct vm_guest *g)
{
	struct vm_link *l = g->link;
	uint64_t next;

	if (!l->hot) {
		next = vm_tcp_timers(g);
		if (next > g->now + STEP_NS)
			next = g->now + STEP_NS;
		l->ops->wait(l, next > g->now ? (int64_t)(next - g->now) : 0);
	}
	l->hot = false;
	g->now = now_ns();
	l->ops->receive(l, g);
	vm_tcp_timers(g);
	if (g->work->output)
		g->work->output(g);
	vm_tcp_output(g);
	l->ops->flush(l);
	if (l->gone)
		errno = l->gone;
	return !l->gone;
}

static int resolve(struct vm_guest *g)
{
	uint64_t again = 0;
	int tries = 0;

	while (!g->resolved) {
		g->now = now_ns();
		if (g->now >= again) {
			if (tries++ == ARP_TRIES) {
				errno = EHOSTUNREACH;
				return -1;
			}
			vm_send_arp(g, ARP_REQUEST, broadcast, g->gateway);
			again = g->now + ARP_NS;
		}
		if (!vm_step(g))
			return -1;
	}
	return 0;
}

/**
 * vm_attach() - Come up: find the translator, and its MAC
 * @g:		Guest, with its work set
 * @o:		Options
 *
 * Return: 0, or -1 with errno set
 */
int vm_attach(struct vm_guest *g, const struct options *o)
{
	const struct sockaddr_in *peer = (const struct sockaddr_in *)&o->addr;

	if (o->addr.ss_family != AF_INET) {
		errno = EAFNOSUPPORT;
		return -1;
	}
	g->o = o;
	g->addr = o->guest;
	g->gateway = o->gateway;
	g->peer = ntohl(peer->sin_addr.s_addr);
	g->peer_port = ntohs(peer->sin_port);
	g->flows = calloc(VM_FLOWS, sizeof(*g->flows));
	g->sums = calloc(PATTERN_SIZE + 1, sizeof(*g->sums));
	if (!g->flows || !g->sums)
		return -1;
	g->link = o->vhost ? vm_vhost_link(o) : vm_stream_link(o);
	if (!g->link)
		return -1;
	fill_pattern(g->link->pattern);
	vm_prepare_sums(g);
	if (resolve(g))
		return -1;
	vm_make_template(g);
	return 0;
}

/**
 * vm_leave() - Reset what is open: nothing shall come for us any more
 * @g:		Guest
 */
void vm_leave(struct vm_guest *g)
{
	uint64_t limit = now_ns() + 2 * NS_PER_S;
	struct vm_link *l = g->link;
	unsigned int i = 0;

	while (i < g->count && now_ns() < limit && !l->gone) {
		struct vm_flow *f = &g->flows[i];

		if (f->state != VM_OPEN) {
			i++;
			continue;
		}
		if (l->ops->slot(l))
			vm_reset(g, f);
		else
			l->ops->wait(l, (int64_t)NS_PER_MS);
		l->ops->flush(l);
		l->ops->receive(l, g);
	}
	/* A translator may not read what waits on a closed socket */
	usleep(20000);
}
