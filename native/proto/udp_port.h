/* SPDX-License-Identifier: GPL-2.0-or-later */
/* udp_port.h - The host's port of a guest's UDP socket, for all its remotes
 *
 * Owns: UDP ports. A UDP port is one unconnected socket of the host that stands
 * for one socket of the guest, whomever that speaks to: every remote sees the
 * same address and port (endpoint-independent mapping, RFC 4787 REQ-1), which
 * is what STUN, WireGuard and games build on. Flows stay what they are, one for
 * each remote; they share the port, which is closed with the last of them.
 *
 * What arrives belongs to the flow of its sender. A sender without one is let in
 * if the guest's socket has sent to its address, whatever its port
 * (address-dependent filtering, RFC 4787 5), and becomes a flow of its own: so a
 * TFTP server may answer from a new port.
 *
 * A port is bound to one address of the host, that from which the remote is
 * reached: other addresses are left to other programs. A guest's socket that
 * needs two addresses has a port on each, of one number where that is free.
 */
#ifndef PASSTPY_PROTO_UDP_PORT_H
#define PASSTPY_PROTO_UDP_PORT_H

#include "proto/ctx.h"
#include "table/keyed.h"

/* UDP ports at a time. The host has 28 232 ports for programs that do not care
 * which (net.ipv4.ip_local_port_range): it keeps more than a third of them */
#define UDP_PORTS_MAX 16384
/* Of these, how many may have the guest's own number. One in 63 of the numbers
 * that need no privilege: whatever the guest does, a program of the host that
 * wants a certain one nearly always gets it. A socket whose number matters is
 * one of few; what uses thousands (a resolver) does not care */
#define UDP_PORTS_KEPT 1024
/* Ports of one remote address that may answer unasked at a time, for each port
 * of ours. A TFTP server has one for each transfer */
#define UDP_UNASKED_MAX 64

/** struct udp_port
 * @guest:	Address of the guest's socket
 * @guest_port:	Its port
 * @number:	Our port
 * @addr:	Our address
 * @fd:		Socket, bound to them
 * @flows:	Flows that use it
 * @members:	Their indexes, all XORed: of the last one it is the index
 * @last:	Flow of the datagram that was received last; it may be gone
 * @batch:	Datagrams to ask for in the next recvmmsg()
 * @large:	A datagram longer than a small slot was seen
 * @ttl:	TTL the socket has, 0: not set yet
 */
struct udp_port {
	union inany guest;
	uint16_t guest_port;
	uint16_t number;
	union inany addr;
	int fd;
	uint32_t flows;
	uint32_t members;
	flow_sidx_t last;
	uint16_t batch;
	bool large;
	uint8_t ttl;
};

/** struct udp_remote - An address that a UDP port has sent to
 * @port:	Index of the port
 * @addr:	The address
 * @flows:	Flows that the guest began: while there are any, it is let in
 * @unasked:	Flows that it began, from ports that the guest did not ask
 * @v:		Verdict for those: that of the first flow, turned round; under
 *		the rule that one of the guest's was put under last
 */
struct udp_remote {
	uint32_t port;
	union inany addr;
	uint32_t flows;
	uint32_t unasked;
	struct verdict v;
};

/** struct udp_ports - All of a datapath
 * @port:	UDP_PORTS_MAX slots
 * @ports:	Which of them are in use, by address and port of the guest
 * @remote:	A slot for each flow at most
 * @remotes:	Which of them are in use, by port and address
 * @kept:	Ports that have the guest's own number
 * @relays:	Flows that leave through a proxy (udp_relay.h)
 * @probe:	Sockets that routes are asked by, per family (v4, v6), or -1
 * @key:	Secret of the hashes
 */
struct udp_ports {
	struct udp_port *port;
	struct keyed ports;
	struct udp_remote *remote;
	struct keyed remotes;
	uint32_t kept;
	uint32_t relays;
	int probe[2];
	struct siphash_key key;
};

/* udp_ports_init(), udp_ports_fini() - As handlers do it: see proto/handler.h */
int udp_ports_init(struct ctx *c, const uint8_t secret[16]);
void udp_ports_fini(struct ctx *c);

/**
 * udp_source() - Which of our addresses is a flow's target reached from?
 * @ret_addr:	Filled
 *
 * Return: 0, or -errno as of connect(): no route, forbidden, no descriptor
 */
int udp_source(struct ctx *c, const struct flow *flow, union inany *ret_addr);

/* udp_path_mtu() - MTU towards the endpoint of a side, or -errno */
int udp_path_mtu(struct ctx *c, const struct flow *flow, unsigned sidei);

/**
 * udp_port_take() - Give a flow from the guest its port, an old one or a new one
 * @v:		The verdict that admitted it
 * @source:	Our address
 * @local:	Filled: the target side with our address and port
 *
 * Return: 0; -EADDRINUSE if the flow needs a socket of its own, because another
 *	   flow has its addresses or it would talk to itself; -ENFILE if there
 *	   are too many ports (counted); else -errno
 */
int udp_port_take(struct ctx *c, struct flow *flow, const struct verdict *v,
		  const union inany *source, struct flowside *local);

/* udp_is_free() - Can a socket of ours have these addresses, or would it hear
 * itself, or what another flow is to hear? */
bool udp_is_free(const struct ctx *c, const struct flowside *local);

/* udp_port_ruled() - A flow was put under another rule: so is what its remote
 * begins from now on */
void udp_port_ruled(struct ctx *c, struct flow *flow);

/* udp_port_drop() - A flow has ended; the last one closes its port */
void udp_port_drop(struct ctx *c, struct flow *flow);

/* udp_port_at() - Port of an index, or NULL if there is none */
struct udp_port *udp_port_at(struct ctx *c, uint32_t i);

/* udp_port_of() - Port of a flow, or NULL if it has none */
struct udp_port *udp_port_of(struct ctx *c, struct flow *flow);

/* udp_port_flow() - Flow of a port and a remote, or NULL */
struct flow *udp_port_flow(struct ctx *c, const struct udp_port *p,
			   const union inany *addr, uint16_t port);

/* udp_port_admit() - The same for the sender of a datagram, which may begin a
 * flow; NULL if it may not (counted) */
struct flow *udp_port_admit(struct ctx *c, struct udp_port *p,
			    const union sockaddr_inany *sender);

#endif /* PASSTPY_PROTO_UDP_PORT_H */
