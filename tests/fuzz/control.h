/* SPDX-License-Identifier: GPL-2.0-or-later */
/* control.h - The control plane, which is not always in its right mind */
#ifndef PASSTPY_TESTS_CONTROL_H
#define PASSTPY_TESTS_CONTROL_H

#include "captures.h"
#include "peers.h"
#include "relays.h"

/* to_guest() - A connection or datagram from outside goes to the guest */
static inline struct verdict to_guest(const struct miss *m)
{
	struct verdict v = { .action = VERDICT_FORWARD,
			     .pif = PIF_TAP,
			     .proxy = (uint8_t)below(3),
			     .side = { .eport = 8080, .oport = m->key.eport } };

	if (inany_is_v4(&m->key.eaddr)) {
		inany_from_v4(&v.side.eaddr,
			      (struct in_addr){ htonl(0xc0000205) });
		inany_from_v4(&v.side.oaddr,
			      (struct in_addr){ htonl(0xc6336409) });
	} else {
		inet_pton(AF_INET6, "2001:db8::5", &v.side.eaddr);
		inet_pton(AF_INET6, "2001:db8:1::9", &v.side.oaddr);
	}
	return v;
}

static inline struct verdict decide(const struct miss *m)
{
	bool tcp = m->ipproto == IPPROTO_TCP;
	struct verdict v;

	if (m->pif == PIF_HOST && !one_in(2)) {
		v = to_guest(m);
	} else {
		v = guest_forward(m, tcp ? world.tcp_port : world.udp_port);
		if (m->pif != PIF_TAP) {
			v.action = VERDICT_SPLICE;
			v.proxy = (uint8_t)(one_in(4) ? below(3) : 0);
		}
		if (m->pif == PIF_HOST)
			v.pif = PIF_SPLICE;
	}
	if (one_in(20))
		v.side.eport = 1; /* refused */
	if (one_in(20))		  /* there is no way to it */
		inany_from_v4(&v.side.eaddr,
			      (struct in_addr){ htonl(0xcb007101) });
	if (one_in(10))
		v.action = (uint8_t)below(VERDICT_NUM);
	if (tcp && m->pif == PIF_TAP && one_in(4))
		v.action = VERDICT_INSPECT;
	if (one_in(50))
		v.pif = (uint8_t)below(PIF_NUM);
	return v;
}

/* exchange() - Another socket for some flow, often one that can have it */
static inline void exchange(void)
{
	const struct flow_table *ft = &ctx_of()->ft;
	int fd;

	if (!ft->top)
		return;
	fd = one_in(20) ? socket(AF_INET, SOCK_STREAM, 0) : join();
	if (datapath_adopt(world.g.dp, flow_id(ft, &ft->flows[below(ft->top)]),
			   fd, one_in(4)))
		close(fd);
	else
		world.exchanged++;
}

/* verdict_socket() - One that comes with a verdict: of the namespace, one end of a
 * pair, or that of a proxy; or -1 */
static inline int verdict_socket(const struct miss *m, const struct verdict *v,
				 struct relay *relay)
{
	int type = m->ipproto == IPPROTO_TCP ? SOCK_STREAM : SOCK_DGRAM;

	if (one_in(m->pif == PIF_TAP ? 4 : 50))
		return m->ipproto == IPPROTO_UDP ? relay_socket(relay) : join();
	if (v->action != VERDICT_SPLICE || one_in(20) ||
	    (m->pif == PIF_SPLICE && (type == SOCK_STREAM || one_in(2))))
		return -1;
	return socket(inany_is_v4(&m->key.eaddr) ? AF_INET : AF_INET6,
		      type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
}

static inline void answer(const struct miss *m, struct verdict v)
{
	struct relay relay = { .control = -1 };
	int fd = verdict_socket(m, &v, &relay);
	bool relayed = relay.control >= 0;
	uint64_t id;

	if (!datapath_open(world.g.dp, stage_miss_id(&ctx_of()->stage, m), &v,
			   fd, relayed ? &relay : NULL, &id))
		return;
	if (fd >= 0)
		close(fd);
	if (relayed)
		close(relay.control);
}

/* hear_out() - What guests say goes on to where it should, elsewhere, or not at all */
static inline void hear_out(void)
{
	struct said said;
	union inany to;

	inany_from_v4(&to, (struct in_addr){ htonl(INADDR_LOOPBACK) });
	while (datapath_said(world.g.dp, &said)) {
		uint64_t id = said.flow_id;

		if (said.gone || one_in(2))
			continue;
		if (one_in(4))
			(void)datapath_close_flow(world.g.dp, id, WHY_POLICY);
		else
			(void)datapath_connect(world.g.dp, id, &to,
					       one_in(4) ? 1 : world.tcp_port);
	}
}

static inline void answer_misses(void)
{
	struct miss *m;

	while ((m = guest_next_miss(&world.g)))
		if (!one_in(20))
			answer(m, decide(m));
}

/* inject() - A frame of a service */
static inline void inject(void)
{
	static const uint8_t arp[60] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
					 0x9a, 0x55, 0x9a, 0x55, 0x9a, 0x55,
					 0x08, 0x06, 0,	   1,	 8,    0,
					 6,    4,    0,	   2 };

	(void)tap_inject(&ctx_of()->tap, arp, sizeof(arp));
}

/* replace_listener() - A port is closed, and another one opened in its place; or
 * it gets another number */
static inline void replace_listener(void)
{
	struct listeners *ls = &ctx_of()->listeners;
	uint32_t other = LISTENER + 2 * IN_NUM;

	if (one_in(2)) {
		CHECK_EQ(listener_renumber(ls, &ctx_of()->epoll,
					   world.renumbered ? other : LISTENER,
					   world.renumbered ? LISTENER : other),
			 0);
		world.renumbered = !world.renumbered;
		return;
	}
	CHECK_EQ(listener_del(ls, &ctx_of()->epoll, LISTENER + 1), 0);
	add_listener(SOCK_DGRAM, IPPROTO_UDP, IN_HOST, LISTENER + 1,
		     &world.udp_in[IN_HOST]);
}

static inline void play_control(void)
{
	answer_misses();
	hear_out();
	if (one_in(20))
		guest_meddle(&world.g, &rnd);
	if (one_in(8))
		play_captures(world.g.dp, &rnd);
	if (one_in(4))
		exchange();
	if (one_in(50))
		inject();
	if (one_in(50))
		replace_listener();
}

#endif /* PASSTPY_TESTS_CONTROL_H */
