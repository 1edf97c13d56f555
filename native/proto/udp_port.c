/* SPDX-License-Identifier: GPL-2.0-or-later */
/* udp_port.c - The host's port of a guest's UDP socket, for all its remotes */

#include "proto/udp_port.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>

#include "base/room.h"
#include "base/sys.h"
#include "proto/dgram.h"
#include "proto/udp_flow.h"
#include "proto/udp_sock.h"
#include "table/admit.h"

#define EVICT_MAX 16 /* flows that end for one port: several may share it */

/** struct port_key - What a port is found by; packed: no uninitialised bytes */
struct port_key {
	union inany guest;
	uint16_t port;
} __attribute__((packed));

/** struct remote_key - What a remote is found by; packed as well */
struct remote_key {
	union inany addr;
	uint32_t port;
} __attribute__((packed));

static void *reserve(size_t bytes)
{
	void *p = room_reserve(bytes);

	return p == MAP_FAILED ? NULL : p;
}

static struct udp_ports *ports_of(const struct ctx *c)
{
	return c->shared[FLOW_UDP];
}

int udp_ports_init(struct ctx *c, const uint8_t secret[16])
{
	struct udp_ports *ports = sys_calloc(1, sizeof(*ports));

	if (!ports)
		return -ENOMEM;
	c->shared[FLOW_UDP] = ports;
	ports->probe[0] = ports->probe[1] = -1;
	memcpy(&ports->key, secret, sizeof(ports->key));
	if (keyed_init(&ports->ports, UDP_PORTS_MAX) ||
	    keyed_init(&ports->remotes, c->ft.max))
		return -ENOMEM;
	ports->port = reserve(UDP_PORTS_MAX * sizeof(*ports->port));
	ports->remote = reserve(c->ft.max * sizeof(*ports->remote));
	return ports->port && ports->remote ? 0 : -ENOMEM;
}

void udp_ports_fini(struct ctx *c)
{
	struct udp_ports *ports = ports_of(c);

	for (unsigned i = 0; i < 2; i++)
		if (ports->probe[i] >= 0)
			close(ports->probe[i]);
	if (ports->port)
		munmap(ports->port, UDP_PORTS_MAX * sizeof(*ports->port));
	if (ports->remote)
		munmap(ports->remote, c->ft.max * sizeof(*ports->remote));
	keyed_free(&ports->ports);
	keyed_free(&ports->remotes);
	free(ports);
	c->shared[FLOW_UDP] = NULL;
}

/* Asking for routes */

/* probe_connect() - Route a socket towards an endpoint; it, or -errno */
static int probe_connect(struct ctx *c, const struct flow *flow, unsigned sidei)
{
	const struct flowside *side = &flow->f.side[sidei];
	bool v4 = udp_is_v4(flow, sidei);
	int *probe = &ports_of(c)->probe[v4 ? 0 : 1];
	int rc;

	if (*probe < 0) {
		rc = dgram_socket(c, flow, IPPROTO_UDP, v4);
		if (rc < 0)
			return rc;
		*probe = rc;
	}
	rc = dgram_outbound(c, *probe, v4);
	if (!rc)
		rc = dgram_connect(c, *probe, &side->eaddr, side->eport);
	if (rc)
		dgram_disconnect(*probe);
	return rc ? rc : *probe;
}

int udp_source(struct ctx *c, const struct flow *flow, union inany *ret_addr)
{
	int fd = probe_connect(c, flow, TGTSIDE), rc;
	uint16_t port;

	if (fd < 0)
		return fd;
	rc = dgram_name(fd, ret_addr, &port);
	dgram_disconnect(fd);
	return rc;
}

int udp_path_mtu(struct ctx *c, const struct flow *flow, unsigned sidei)
{
	bool v4 = udp_is_v4(flow, sidei);
	int fd = probe_connect(c, flow, sidei), mtu, rc = 0;
	socklen_t len = sizeof(mtu);

	if (fd < 0)
		return fd;
	if (sys_getsockopt(fd, v4 ? IPPROTO_IP : IPPROTO_IPV6,
			   v4 ? IP_MTU : IPV6_MTU, &mtu, &len))
		rc = -errno;
	dgram_disconnect(fd);
	return rc ? rc : mtu;
}

/* Remotes: who is let in */

static uint32_t remote_hash(const struct udp_ports *ports, uint32_t port,
			    const union inany *addr)
{
	struct remote_key key = { .addr = *addr, .port = port };

	return (uint32_t)siphash(&ports->key, &key, sizeof(key));
}

static uint32_t remote_find(const struct udp_ports *ports, uint32_t port,
			    const union inany *addr)
{
	uint32_t i =
		keyed_first(&ports->remotes, remote_hash(ports, port, addr));

	for (; i != KEYED_NONE; i = keyed_next(&ports->remotes, i)) {
		const struct udp_remote *r = &ports->remote[i];

		if (r->port == port && inany_equal(&r->addr, addr))
			break;
	}
	return i;
}

/* remote_take() - Let in whom a flow of the guest speaks to; its index, or
 * KEYED_NONE: there are as many as flows */
static uint32_t remote_take(struct udp_ports *ports, uint32_t port,
			    const struct flow *flow, const struct verdict *v)
{
	const struct flowside *guest = &flow->f.side[INISIDE];
	const union inany *addr = &flow->f.side[TGTSIDE].eaddr;
	uint32_t i = remote_find(ports, port, addr);
	struct udp_remote *r;

	if (i == KEYED_NONE) {
		i = keyed_add(&ports->remotes, remote_hash(ports, port, addr));
		if (i == KEYED_NONE)
			return i;
		ports->remote[i] =
			(struct udp_remote){ .port = port, .addr = *addr };
	}
	r = &ports->remote[i];
	if (!r->flows++) {
		r->v = *v;
		r->v.pif = PIF_TAP;
		r->v.side = *guest;
	}
	return i;
}

static void remote_drop(struct udp_ports *ports, uint32_t i, bool unasked)
{
	struct udp_remote *r = &ports->remote[i];

	if (unasked)
		r->unasked--;
	else
		r->flows--;
	if (!r->flows && !r->unasked)
		keyed_del(&ports->remotes,
			  remote_hash(ports, r->port, &r->addr), i);
}

/* Ports */

static uint32_t port_hash(const struct udp_ports *ports,
			  const union inany *guest, uint16_t port)
{
	struct port_key key = { .guest = *guest, .port = port };

	return (uint32_t)siphash(&ports->key, &key, sizeof(key));
}

/**
 * port_find() - Port of a guest's socket on an address of ours, or NULL
 * @ret_number:	Set to the number of one on another address, if there is one
 */
static struct udp_port *port_find(struct udp_ports *ports,
				  const struct flowside *guest,
				  const union inany *addr, uint16_t *ret_number)
{
	uint32_t i = keyed_first(&ports->ports,
				 port_hash(ports, &guest->eaddr, guest->eport));

	for (; i != KEYED_NONE; i = keyed_next(&ports->ports, i)) {
		struct udp_port *p = &ports->port[i];

		if (p->guest_port != guest->eport ||
		    !inany_equal(&p->guest, &guest->eaddr))
			continue;
		if (inany_equal(&p->addr, addr))
			return p;
		*ret_number = p->number;
	}
	return NULL;
}

static uint32_t port_index(const struct udp_ports *ports,
			   const struct udp_port *p)
{
	return (uint32_t)(p - ports->port);
}

/**
 * port_bind() - Bind a new socket to the number that is best to have
 * @other:	That of the guest's socket on another address, or 0
 *
 * Return: 0 or -errno
 */
static int port_bind(const struct ctx *c, int fd, const struct flow *flow,
		     const union inany *addr, uint16_t other)
{
	const struct flowside *tgt = &flow->f.side[TGTSIDE];
	uint16_t own = flow->f.side[INISIDE].eport;
	bool v4 = inany_is_v4(addr);

	if (other && !dgram_bind(c, fd, v4, addr, other))
		return 0;
	/* Its own number on the target's address: it would hear itself */
	if (ports_of(c)->kept < UDP_PORTS_KEPT &&
	    !(own == tgt->eport && inany_equal(addr, &tgt->eaddr)) &&
	    !dgram_bind(c, fd, v4, addr, own))
		return 0;
	return dgram_bind(c, fd, v4, addr, 0);
}

/* port_close() - The last flow has gone */
static void port_close(struct ctx *c, struct udp_port *p)
{
	struct udp_ports *ports = ports_of(c);

	if (p->number == p->guest_port)
		ports->kept--;
	c->ft.sockets--;
	close(p->fd);
	p->fd = -1;
	keyed_del(&ports->ports, port_hash(ports, &p->guest, p->guest_port),
		  port_index(ports, p));
}

/* port_socket() - The bound socket of a new port, or -errno */
static int port_socket(struct ctx *c, const struct flow *flow,
		       const union inany *addr, uint16_t other)
{
	bool v4 = inany_is_v4(addr);
	int fd = dgram_socket(c, flow, IPPROTO_UDP, v4), rc;

	if (fd < 0)
		return fd;
	udp_setup(fd);
	rc = dgram_outbound(c, fd, v4);
	if (!rc)
		rc = port_bind(c, fd, flow, addr, other);
	if (rc) {
		close(fd);
		return rc;
	}
	return fd;
}

/* port_number() - A number for a new port, if need be of one whose flows have
 * been idle for longer than others; or KEYED_NONE (counted) */
static uint32_t port_number(struct ctx *c, uint32_t hash)
{
	struct udp_ports *ports = ports_of(c);
	uint32_t i = keyed_add(&ports->ports, hash);

	for (unsigned n = 0; i == KEYED_NONE && n < EVICT_MAX; n++) {
		struct flow *flow =
			admit_evict(&c->ft, IDLE_GUEST, FLOW_UDP, c->now);

		if (!flow) /* a port with several may be idle as a whole */
			flow = admit_evict(&c->ft, IDLE_SHARING, FLOW_UDP,
					   c->now);
		if (!flow)
			break;
		udp_port_drop(c, flow);
		i = keyed_add(&ports->ports, hash);
	}
	if (i == KEYED_NONE)
		count(&c->cnt, CNT_UDP_PORTS_FULL);
	return i;
}

/* port_make() - A port without flows */
static int port_make(struct ctx *c, const struct flow *flow,
		     const union inany *addr, uint16_t other,
		     struct udp_port **ret_port)
{
	const struct flowside *guest = &flow->f.side[INISIDE];
	struct udp_ports *ports = ports_of(c);
	uint32_t hash = port_hash(ports, &guest->eaddr, guest->eport);
	struct udp_port *p;
	uint32_t i;
	int fd, rc;

	fd = port_socket(c, flow, addr, other);
	if (fd < 0)
		return fd;
	i = port_number(c, hash);
	if (i == KEYED_NONE) {
		rc = -ENFILE;
		goto fail;
	}
	p = &ports->port[i];
	*p = (struct udp_port){ .guest = guest->eaddr,
				.guest_port = guest->eport,
				.fd = fd,
				.last = FLOW_SIDX_NONE,
				.batch = 2 };
	rc = dgram_name(fd, &p->addr, &p->number);
	if (!rc)
		rc = epoll_add_fixed(&c->epoll, EPOLL_SHARED, fd,
				     epoll_shared(FLOW_UDP, i), EPOLLIN);
	if (rc) {
		keyed_del(&ports->ports, hash, i);
		goto fail;
	}
	if (p->number == p->guest_port)
		ports->kept++;
	c->ft.sockets++;
	*ret_port = p;
	return 0;

fail:
	close(fd);
	return rc;
}

/* port_join() - A flow uses a port, alone or with others */
static void port_join(struct ctx *c, struct udp_port *p, struct flow *flow)
{
	if (p->flows++ == 1)
		idle_set_sharing(&c->ft, &c->ft.flows[p->members], true);
	idle_set_sharing(&c->ft, flow, p->flows > 1);
	p->members ^= flow_index(&c->ft, flow);
}

/* port_part() - It uses it no more */
static void port_part(struct ctx *c, struct udp_port *p, struct flow *flow)
{
	p->members ^= flow_index(&c->ft, flow);
	if (--p->flows == 1)
		idle_set_sharing(&c->ft, &c->ft.flows[p->members], false);
	if (!p->flows)
		port_close(c, p);
}

bool udp_is_free(const struct ctx *c, const struct flowside *local)
{
	/* The target is this very host, and nobody is there */
	if (local->oport == local->eport &&
	    inany_equal(&local->oaddr, &local->eaddr))
		return false;
	/* The guest has two names for one remote, or that one began: what it
	 * sends could not be told apart */
	return flow_sidx_is_none(
		flow_lookup(&c->ft, IPPROTO_UDP, PIF_HOST, local));
}

int udp_port_take(struct ctx *c, struct flow *flow, const struct verdict *v,
		  const union inany *source, struct flowside *local)
{
	struct udp_flow *u = udp_flow_of(flow);
	struct udp_ports *ports = ports_of(c);
	struct udp_port *p;
	uint16_t other = 0;
	int rc;

	p = port_find(ports, &flow->f.side[INISIDE], source, &other);
	if (!p) {
		rc = port_make(c, flow, source, other, &p);
		if (rc)
			return rc;
	}
	*local = flow->f.side[TGTSIDE];
	local->oaddr = p->addr;
	local->oport = p->number;
	rc = -EADDRINUSE;
	if (!udp_is_free(c, local))
		goto fail;
	rc = -ENFILE;
	u->remote = remote_take(ports, port_index(ports, p), flow, v);
	if (u->remote == KEYED_NONE)
		goto fail;
	u->port = port_index(ports, p);
	port_join(c, p, flow);
	return 0;

fail:
	if (!p->flows)
		port_close(c, p);
	return rc;
}

void udp_port_ruled(struct ctx *c, struct flow *flow)
{
	const struct udp_flow *u = udp_flow_of(flow);
	struct verdict *v;

	if (u->port == UDP_INDEX_NONE || u->unasked)
		return;
	v = &ports_of(c)->remote[u->remote].v;
	v->rule = flow->f.rule;
	v->generation = flow->f.policy;
}

void udp_port_drop(struct ctx *c, struct flow *flow)
{
	struct udp_flow *u = udp_flow_of(flow);
	struct udp_port *p = udp_port_of(c, flow);

	if (!p)
		return;
	remote_drop(ports_of(c), u->remote, u->unasked);
	u->port = UDP_INDEX_NONE;
	port_part(c, p, flow);
}

struct udp_port *udp_port_at(struct ctx *c, uint32_t i)
{
	if (i >= ports_of(c)->ports.top || !ports_of(c)->port[i].flows)
		return NULL;
	return &ports_of(c)->port[i];
}

struct udp_port *udp_port_of(struct ctx *c, struct flow *flow)
{
	return udp_port_at(c, udp_flow_of(flow)->port);
}

/* Who sends to a port */

/* last_flow() - The flow that was found last, if it is that of a sender too: a
 * hash for each datagram costs more than all else that is done for it here */
static struct flow *last_flow(struct ctx *c, const struct udp_port *p,
			      const union inany *addr, uint16_t port)
{
	struct flow *flow = flow_at(&c->ft, p->last);
	const struct flowside *side;

	if (!flow || flow->f.type != FLOW_UDP ||
	    udp_flow_of(flow)->port != port_index(ports_of(c), p))
		return NULL;
	side = &flow->f.side[p->last.side];
	return side->eport == port && inany_equal(&side->eaddr, addr) ? flow :
									NULL;
}

struct flow *udp_port_flow(struct ctx *c, const struct udp_port *p,
			   const union inany *addr, uint16_t port)
{
	struct flowside key = {
		.eaddr = *addr,
		.oaddr = p->addr,
		.eport = port,
		.oport = p->number,
	};

	return flow_at(&c->ft,
		       flow_lookup(&c->ft, IPPROTO_UDP, PIF_HOST, &key));
}

/* unasked_open() - Begin a flow for a sender whose address may */
static struct flow *unasked_open(struct ctx *c, const struct udp_port *p,
				 uint32_t remote, uint16_t port)
{
	struct udp_remote *r = &ports_of(c)->remote[remote];
	struct verdict v = r->v;
	struct flowside key = {
		.eaddr = r->addr,
		.oaddr = p->addr,
		.eport = port,
		.oport = p->number,
	};
	struct udp_flow *u;
	struct flow *flow;

	/* The guest knows the remote by its own name for it, and each of its
	 * ports once */
	v.side.oport = port;
	if (!flow_sidx_is_none(
		    flow_lookup(&c->ft, IPPROTO_UDP, PIF_TAP, &v.side)))
		return NULL;
	flow = flow_alloc(&c->ft, c->now);
	if (!flow)
		return NULL;
	flow_initiate(&c->ft, flow, PIF_HOST, &key, c->now);
	flow_target(&c->ft, flow, &v, c->now);
	flow_set_type(&c->ft, flow, FLOW_UDP, c->now);
	udp_flow_init(flow);
	u = udp_flow_of(flow);
	u->unasked = true;
	u->port = r->port;
	u->remote = remote;
	r->unasked++;
	port_join(c, &ports_of(c)->port[r->port], flow);
	timer_set(&c->timers, flow, c->now + UDP_TIMEOUT);
	flow_activate(&c->ft, flow, c->now);
	return flow;
}

struct flow *udp_port_admit(struct ctx *c, struct udp_port *p,
			    const union sockaddr_inany *sender)
{
	struct udp_ports *ports = ports_of(c);
	struct flow *flow = NULL;
	union inany addr;
	uint16_t port;
	uint32_t i;

	if (inany_from_sa(&addr, &port, sender) || !port) {
		count(&c->cnt, CNT_DROP_ADDRESS);
		return NULL;
	}
	flow = last_flow(c, p, &addr, port);
	if (flow)
		return flow;
	flow = udp_port_flow(c, p, &addr, port);
	if (flow) {
		p->last = flow_sidx(&c->ft, flow, !udp_tapside(flow));
		return flow;
	}
	i = remote_find(ports, port_index(ports, p), &addr);
	if (!c->udp_strict && i != KEYED_NONE && ports->remote[i].flows &&
	    ports->remote[i].unasked < UDP_UNASKED_MAX)
		flow = unasked_open(c, p, i, port);
	if (!flow)
		count(&c->cnt, CNT_UDP_FILTERED);
	return flow;
}
