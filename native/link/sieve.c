/* SPDX-License-Identifier: GPL-2.0-or-later */
/* sieve.c - A program that has the kernel drop frames before they are read
 *
 * A kind is a row of conditions, or two: a frame for which all of a row hold is
 * dropped. A row becomes instructions each of which skips the rest of the row.
 * To read behind the end of a frame ends a program as "drop": such a frame is
 * shorter than its own headers say.
 */

#include "link/sieve.h"

#include <assert.h>
#include <netinet/in.h>
#include <stdbool.h>

#include "base/macros.h"
#include "base/wire.h"

#define CONDITIONS 4
#define ALL_BITS   UINT32_MAX
#define SYN_ACK	   (TCP_FLAG_SYN | TCP_FLAG_ACK)

/** struct condition - A field of a frame is within bounds
 * @size:	BPF_B or BPF_H
 * @behind_ip4:	@offset is from the end of the IPv4 header
 * @mask:	Bits of it that count; a row ends before the first that has none
 */
struct condition {
	uint16_t size;
	bool behind_ip4;
	uint16_t offset;
	uint32_t mask;
	uint32_t low;
	uint32_t high;
};

#define FIELD(size, offset, mask, low, high)               \
	{                                                  \
		BPF_##size, false, offset, mask, low, high \
	}
#define IS(size, offset, value) FIELD(size, offset, ALL_BITS, value, value)
#define BEHIND_IP4(size, offset, mask, value)                \
	{                                                    \
		BPF_##size, true, offset, mask, value, value \
	}
#define ETHERTYPE(name)	 IS(H, 12, ETHERTYPE_##name##_)
#define IP4_PROTO(proto) IS(B, 23, proto)
#define IP4_FIRST	 FIELD(H, 20, IP4_OFF, 0, 0) /* fragment, or whole */
#define IP6_PROTO(proto) IS(B, 20, proto)
#define BEHIND_IP6(n)	 (54 + (n))

static const struct row {
	enum sieve_kind kind;
	struct condition all[CONDITIONS];
} rows[] = {
	{ SIEVE_SYN,
	  { ETHERTYPE(IPV4), IP4_PROTO(IPPROTO_TCP), IP4_FIRST,
	    BEHIND_IP4(B, 13, SYN_ACK, TCP_FLAG_SYN) } },
	{ SIEVE_SYN,
	  { ETHERTYPE(IPV6), IP6_PROTO(IPPROTO_TCP),
	    FIELD(B, BEHIND_IP6(13), SYN_ACK, TCP_FLAG_SYN, TCP_FLAG_SYN) } },
	{ SIEVE_ARP, { ETHERTYPE(ARP) } },
	{ SIEVE_ND,
	  { ETHERTYPE(IPV6), IP6_PROTO(IPPROTO_ICMPV6),
	    FIELD(B, BEHIND_IP6(0), ALL_BITS, ICMP6_ND_FIRST, ICMP6_ND_LAST) } },
	{ SIEVE_DHCP4,
	  { ETHERTYPE(IPV4), IP4_PROTO(IPPROTO_UDP), IP4_FIRST,
	    BEHIND_IP4(H, 2, ALL_BITS, PORT_DHCP_SERVER) } },
	{ SIEVE_DHCP6,
	  { ETHERTYPE(IPV6), IP6_PROTO(IPPROTO_UDP),
	    IS(H, BEHIND_IP6(2), PORT_DHCPV6_SERVER) } },
	{ SIEVE_MEMBERSHIP, { ETHERTYPE(IPV4), IP4_PROTO(IPPROTO_IGMP) } },
	/* MLD has a hop-by-hop header, and nothing else that we serve has */
	{ SIEVE_MEMBERSHIP,
	  { ETHERTYPE(IPV6), IP6_PROTO(IPPROTO_HOPOPTS),
	    IS(B, BEHIND_IP6(0), IPPROTO_ICMPV6) } },
};

static struct sock_filter *put(struct sock_filter *p, uint16_t code, uint32_t k)
{
	*p = (struct sock_filter){ .code = code, .k = k };
	return p + 1;
}

/* put_condition() - Load the field and compare it; where to go is not known yet */
static struct sock_filter *put_condition(struct sock_filter *p,
					 const struct condition *c)
{
	if (c->behind_ip4) {
		p = put(p, BPF_LDX | BPF_B | BPF_MSH, ETH_HLEN_);
		p = put(p, BPF_LD | c->size | BPF_IND, ETH_HLEN_ + c->offset);
	} else {
		p = put(p, BPF_LD | c->size | BPF_ABS, c->offset);
	}
	if (c->mask != ALL_BITS)
		p = put(p, BPF_ALU | BPF_AND | BPF_K, c->mask);
	p = put(p, BPF_JMP | BPF_JGE | BPF_K, c->low);
	return put(p, BPF_JMP | BPF_JGT | BPF_K, c->high);
}

/* put_row() - Drop what meets all conditions, else go to what follows */
static struct sock_filter *put_row(struct sock_filter *p, const struct row *row)
{
	struct sock_filter *first = p;

	for (unsigned i = 0; i < CONDITIONS && row->all[i].mask; i++)
		p = put_condition(p, &row->all[i]);
	p = put(p, BPF_RET | BPF_K, 0);
	for (struct sock_filter *at = first; at < p; at++) {
		uint8_t out = (uint8_t)(p - at - 1);

		if (at->code == (BPF_JMP | BPF_JGE | BPF_K))
			at->jf = out;
		else if (at->code == (BPF_JMP | BPF_JGT | BPF_K))
			at->jt = out;
	}
	return p;
}

unsigned sieve_program(struct sock_filter *prog, uint32_t kinds)
{
	struct sock_filter *p = prog;

	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++)
		if (kinds >> rows[i].kind & 1)
			p = put_row(p, &rows[i]);
	p = put(p, BPF_RET | BPF_K, UINT32_MAX);
	assert(p <= prog + SIEVE_PROG_MAX);
	return (unsigned)(p - prog);
}
