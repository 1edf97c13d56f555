/* SPDX-License-Identifier: GPL-2.0-or-later */
/* flow_addr.c - The flow table by frames' and by sockets' addresses
 *
 * Both are turned into a flowside here, and go the way of any flowside.
 */

#include <errno.h>

#include "table/flow_table.h"

static int addr_from_af(union inany *a, int af, const void *addr)
{
	struct in6_addr a6;
	struct in_addr a4;

	/* Frames give addresses at any alignment */
	switch (af) {
	case AF_INET:
		memcpy(&a4, addr, sizeof(a4));
		inany_from_v4(a, a4);
		return 0;
	case AF_INET6:
		memcpy(&a6, addr, sizeof(a6));
		inany_from_v6(a, &a6);
		return 0;
	default:
		return -EAFNOSUPPORT;
	}
}

static int side_from_af(struct flowside *side, int af, const void *eaddr,
			uint16_t eport, const void *oaddr, uint16_t oport)
{
	int rc = addr_from_af(&side->eaddr, af, eaddr);

	if (rc)
		return rc;
	side->eport = eport;
	side->oport = oport;
	return addr_from_af(&side->oaddr, af, oaddr);
}

static int side_from_sa(struct flowside *side, const union sockaddr_inany *peer,
			const union inany *oaddr, uint16_t oport)
{
	side->oaddr = *oaddr;
	side->oport = oport;
	return inany_from_sa(&side->eaddr, &side->eport, peer);
}

/**
 * flow_initiate_af() - NEW to INI, from a frame's addresses
 * @af:		AF_INET or AF_INET6
 * @eaddr:	struct in_addr or in6_addr of the remote party, any alignment
 * @oaddr:	Our address, the same family
 *
 * Return: 0, or -EAFNOSUPPORT (the flow stays NEW)
 */
int flow_initiate_af(struct flow_table *ft, struct flow *flow, enum pif pif,
		     int af, const void *eaddr, uint16_t eport,
		     const void *oaddr, uint16_t oport, uint64_t now)
{
	struct flowside side;
	int rc = side_from_af(&side, af, eaddr, eport, oaddr, oport);

	if (rc)
		return rc;
	flow_initiate(ft, flow, pif, &side, now);
	return 0;
}

/**
 * flow_initiate_sa() - NEW to INI, from a socket's peer
 * @peer:	As accept() or recvmsg() gave it
 *
 * Return: 0, or -EAFNOSUPPORT (the flow stays NEW)
 */
int flow_initiate_sa(struct flow_table *ft, struct flow *flow, enum pif pif,
		     const union sockaddr_inany *peer, const union inany *oaddr,
		     uint16_t oport, uint64_t now)
{
	struct flowside side;
	int rc = side_from_sa(&side, peer, oaddr, oport);

	if (rc)
		return rc;
	flow_initiate(ft, flow, pif, &side, now);
	return 0;
}

/* flow_lookup_af() - flow_lookup() by a frame's addresses */
flow_sidx_t flow_lookup_af(const struct flow_table *ft, uint8_t ipproto,
			   enum pif pif, int af, const void *eaddr,
			   uint16_t eport, const void *oaddr, uint16_t oport)
{
	struct flowside side;

	if (side_from_af(&side, af, eaddr, eport, oaddr, oport))
		return FLOW_SIDX_NONE;
	return flow_lookup(ft, ipproto, pif, &side);
}

/* flow_lookup_sa() - flow_lookup() by a socket's peer */
flow_sidx_t flow_lookup_sa(const struct flow_table *ft, uint8_t ipproto,
			   enum pif pif, const union sockaddr_inany *peer,
			   const union inany *oaddr, uint16_t oport)
{
	struct flowside side;

	if (side_from_sa(&side, peer, oaddr, oport))
		return FLOW_SIDX_NONE;
	return flow_lookup(ft, ipproto, pif, &side);
}
