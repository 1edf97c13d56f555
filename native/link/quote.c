/* SPDX-License-Identifier: GPL-2.0-or-later */
/* quote.c - Packets of ours that the guest's ICMP errors bring back
 *
 * The quote is as hostile as any other bytes of the guest: what it names is no
 * more than a question to the flow table. Its checksums may be anything, for
 * whoever answers has it as it arrived, offloads and all.
 */

#include "link/quote.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

enum {
	ICMP4_UNREACHABLE = 3,
	ICMP4_PORT = 3,
	ICMP6_UNREACHABLE = 1,
	ICMP6_PORT = 4,
};

bool quote_is_refusal(bool v4, const struct icmp_hdr *ih)
{
	if (v4)
		return ih->type == ICMP4_UNREACHABLE && ih->code == ICMP4_PORT;
	return ih->type == ICMP6_UNREACHABLE && ih->code == ICMP6_PORT;
}

/* ip4_ends() - Addresses of an IPv4 header; return: its length, 0: none, or not
 * followed by the start of a UDP datagram */
static uint32_t ip4_ends(const uint8_t *at, uint32_t len, struct flowside *key)
{
	const struct ip4_hdr *ih = (const void *)at;
	uint32_t header;

	if (len < sizeof(*ih))
		return 0;
	header = (uint32_t)(ih->ver_ihl & 0xf) * 4;
	if (ih->ver_ihl >> 4 != 4 || header < sizeof(*ih) ||
	    ih->protocol != IPPROTO_UDP || ntohs(ih->frag_off) & IP4_OFF)
		return 0;
	inany_from_v4(&key->oaddr, (struct in_addr){ ih->saddr });
	inany_from_v4(&key->eaddr, (struct in_addr){ ih->daddr });
	return header;
}

/* ip6_ends() - The same for IPv6, where a Fragment header may follow: what was
 * too long is quoted by its first part */
static uint32_t ip6_ends(const uint8_t *at, uint32_t len, struct flowside *key)
{
	const struct ip6_hdr_ *ih = (const void *)at;
	const uint8_t *ext = at + sizeof(*ih);
	uint8_t next;

	if (len < sizeof(*ih) + 8 || ntohl(ih->vtc_flow) >> 28 != 6)
		return 0;
	memcpy(&key->oaddr, ih->saddr, sizeof(ih->saddr));
	memcpy(&key->eaddr, ih->daddr, sizeof(ih->daddr));
	/* Past this, v4-mapped means IPv4: the two may never be confused */
	if (inany_is_v4(&key->oaddr) || inany_is_v4(&key->eaddr))
		return 0;
	if (ih->nexthdr == IPPROTO_UDP)
		return sizeof(*ih);
	if (ih->nexthdr != IPPROTO_FRAGMENT)
		return 0;
	next = ext[0];
	return next == IPPROTO_UDP && !ext[2] && !(ext[3] & 0xf8) ?
		       sizeof(*ih) + 8 :
		       0;
}

bool quote_udp(const uint8_t *at, uint32_t len, bool v4, struct flowside *key)
{
	uint32_t header = v4 ? ip4_ends(at, len, key) : ip6_ends(at, len, key);
	const struct udp_hdr *uh = (const void *)(at + header);

	if (!header || len < header || len - header < sizeof(*uh))
		return false;
	key->oport = ntohs(uh->source);
	key->eport = ntohs(uh->dest);
	return key->oport && key->eport;
}
