/* SPDX-License-Identifier: GPL-2.0-or-later */
/* udp_tx.c - Datagrams into a socket, in as few system calls as possible
 *
 * What is added becomes messages of one sendmmsg(): a run of equal datagrams is
 * one UDP_SEGMENT message, whatever cannot join a run is a message of its own,
 * and the order stays. The kernel refuses a UDP_SEGMENT message whose datagrams
 * need fragmenting, or on a path that cannot checksum; the run is then sent
 * one by one, and the flow remembers from which size on not to try.
 */

#include "proto/udp_tx.h"

#include <errno.h>
#include <netinet/icmp6.h>
#include <netinet/ip_icmp.h>
#include <netinet/udp.h>

#include "base/sys.h"
#include "proto/dgram.h"
#include "proto/icmp_error.h"
#include "proto/udp_error.h"
#include "proto/udp_relay.h"
#include "proto/udp_sock.h"

/* listener_start() - Messages through the listener of a flow that has nothing
 * better; 0 or -errno */
static int listener_start(struct ctx *c, struct flow *flow, struct udp_tx *tx)
{
	const struct flowside *host = &flow->f.side[tx->to];
	const struct listener *l =
		udp_listener_of(c, flow, tx->to, udp_flow_of(flow)->listener);
	socklen_t len = sizeof(int);
	int domain;

	if (!l)
		return -ENOTCONN;

	tx->fd = l->fd;
	tx->sourced = true;
	if (sys_getsockopt(l->fd, SOL_SOCKET, SO_DOMAIN, &domain, &len))
		return -errno;
	if (domain == AF_INET6 && inany_is_v4(&host->eaddr)) {
		tx->peer.sa6 = (struct sockaddr_in6){
			.sin6_family = AF_INET6,
			.sin6_port = htons(host->eport),
			.sin6_addr = host->eaddr.a6,
		};
		tx->peer_len = sizeof(tx->peer.sa6);
	}
	return 0;
}

int udp_tx_start(struct ctx *c, struct flow *flow, struct udp_tx *tx,
		 unsigned to)
{
	const struct flowside *host = &flow->f.side[to];

	tx->n = tx->iovs = 0;
	tx->to = to;
	tx->fd = flow->f.fd[to];
	tx->port = NULL;
	tx->sourced = false;
	tx->named = tx->fd < 0;
	if (!tx->named)
		return 0;

	tx->peer_len =
		inany_to_sa(&tx->peer, &host->eaddr, host->eport, c->scope_id);
	tx->port = udp_port_of(c, flow);
	if (!tx->port)
		return listener_start(c, flow, tx);
	tx->fd = tx->port->fd;
	return 0;
}

/* ctl_put() - Append one control message; there is room by construction */
static void ctl_put(struct msghdr *mh, int level, int type, const void *data,
		    size_t len)
{
	struct cmsghdr *cm =
		(struct cmsghdr *)(void *)((uint8_t *)mh->msg_control +
					   mh->msg_controllen);

	cm->cmsg_level = level;
	cm->cmsg_type = type;
	cm->cmsg_len = CMSG_LEN(len);
	memcpy(CMSG_DATA(cm), data, len);
	mh->msg_controllen += CMSG_SPACE(len);
}

/* ctl_put_source() - The address that a message through a listener is from */
static void ctl_put_source(const struct ctx *c, const struct udp_tx *tx,
			   const union inany *src, struct msghdr *mh)
{
	if (tx->peer.sa.sa_family == AF_INET) {
		struct in_pktinfo pi = { .ipi_spec_dst = src->v4.a4 };

		ctl_put(mh, IPPROTO_IP, IP_PKTINFO, &pi, sizeof(pi));
	} else {
		struct in6_pktinfo pi = { .ipi6_addr = src->a6 };

		if (inany_is_linklocal6(src))
			pi.ipi6_ifindex = c->scope_id;
		ctl_put(mh, IPPROTO_IPV6, IPV6_PKTINFO, &pi, sizeof(pi));
	}
}

/* udp_tx_name() - What a connected socket of the flow's own would know */
static void udp_tx_name(struct ctx *c, struct flow *flow, struct udp_tx *tx,
			struct msghdr *mh)
{
	const union inany *src = &flow->f.side[tx->to].oaddr;
	int ttl = udp_flow_of(flow)->ttl;

	mh->msg_name = &tx->peer;
	mh->msg_namelen = tx->peer_len;
	if (tx->sourced)
		ctl_put_source(c, tx, src, mh);
	if (!ttl || (tx->port && tx->port->ttl == ttl))
		return;
	if (inany_is_v4(src))
		ctl_put(mh, IPPROTO_IP, IP_TTL, &ttl, sizeof(ttl));
	else
		ctl_put(mh, IPPROTO_IPV6, IPV6_HOPLIMIT, &ttl, sizeof(ttl));
}

/* udp_tx_message() - Describe a run for the kernel */
static void udp_tx_message(struct ctx *c, struct flow *flow, struct udp_tx *tx,
			   const struct udp_run *run, union udp_tx_ctl *ctl,
			   struct msghdr *mh)
{
	*mh = (struct msghdr){
		.msg_iov = run->iov,
		.msg_iovlen = run->n,
		.msg_control = ctl,
	};
	if (tx->named)
		udp_tx_name(c, flow, tx, mh);
	if (run->segs > 1) {
		uint16_t size = (uint16_t)run->size;

		ctl_put(mh, SOL_UDP, UDP_SEGMENT, &size, sizeof(size));
	}
}

/* payload_of() - What the guest sent of a run */
static const struct iovec *payload_of(const struct udp_run *run)
{
	return run->iov + (run->head ? 1 : 0);
}

static void udp_tx_done(struct ctx *c, struct flow *flow, unsigned to,
			const struct udp_run *run)
{
	ctx_moved(c, flow, to, payload_of(run), run->bytes, run->size);
	flow_touch(flow, !to, run->segs, run->bytes, c->now);
}

/* udp_tx_mtu() - MTU towards the peer, or -errno */
static int udp_tx_mtu(struct ctx *c, struct flow *flow, const struct udp_tx *tx)
{
	bool v4 = udp_is_v4(flow, tx->to);
	socklen_t len = sizeof(int);
	int mtu;

	if (tx->named) /* only a connected socket knows */
		return udp_path_mtu(c, flow, tx->to);
	return sys_getsockopt(tx->fd, v4 ? IPPROTO_IP : IPPROTO_IPV6,
			      v4 ? IP_MTU : IPV6_MTU, &mtu, &len) ?
		       -errno :
		       mtu;
}

/* udp_tx_lost() - A datagram that could not be sent: tell the guest why; a
 * sender on a socket cannot be told */
static void udp_tx_lost(struct ctx *c, struct flow *flow, struct udp_tx *tx,
			const struct iovec *iov, int err)
{
	const struct flowside *guest = &flow->f.side[!tx->to];
	uint32_t len = (uint32_t)iov->iov_len + UDP_HLEN;
	bool v4 = udp_is_v4(flow, !tx->to);
	bool sock_v4 = udp_is_v4(flow, tx->to);
	uint8_t type, code;
	int mtu = 0;

	count(&c->cnt, CNT_UDP_ERRORS);
	flow_log(&c->log, c->now, SOCK_ERROR, flow, err, 0, 0, 0);
	if (flow->f.pif[!tx->to] != PIF_TAP)
		return;
	if (err == EMSGSIZE) {
		mtu = udp_tx_mtu(c, flow, tx);
		if (mtu < 0)
			return;
		type = v4 ? ICMP_DEST_UNREACH : ICMP6_PACKET_TOO_BIG;
		code = v4 ? ICMP_FRAG_NEEDED : 0;
		mtu = icmp_error_mtu(mtu, sock_v4, v4);
	} else if (!icmp_error_from_errno(err, v4, &type, &code)) {
		return;
	}
	/* Payload follows its UDP header in the guest's frame */
	icmp_error_quote(c, icmp_error_reporter(c, err, guest), guest,
			 IPPROTO_UDP, type, code, (uint32_t)mtu,
			 (uint8_t *)iov->iov_base - UDP_HLEN, len, len);
}

/* udp_tx_one() - Send one run by itself; 0 or positive errno */
static int udp_tx_one(struct ctx *c, struct flow *flow, struct udp_tx *tx,
		      const struct udp_run *run)
{
	union udp_tx_ctl ctl;
	struct msghdr mh;

	udp_tx_message(c, flow, tx, run, &ctl, &mh);
	if (sys_sendmsg(tx->fd, &mh, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		return errno;
	udp_tx_done(c, flow, tx->to, run);
	return 0;
}

/* is_full() - No room now: the datagram is dropped, as in any router */
static bool is_full(int err)
{
	return err == EAGAIN || err == ENOBUFS || err == ENOMEM;
}

/* is_source_gone() - May it be that our address is no longer the host's?
 *
 * A port stays bound to it, and the guest may send for ever. What it sends next
 * begins a flow anew, from the address of today. */
static bool is_source_gone(int err)
{
	return err == EINVAL || err == ENETUNREACH || err == EADDRNOTAVAIL;
}

/* udp_tx_split() - Send the datagrams of a run one by one */
static void udp_tx_split(struct ctx *c, struct flow *flow, struct udp_tx *tx,
			 const struct udp_run *run)
{
	struct iovec *src = run->iov, *at = NULL, piece = { 0 };
	unsigned left = run->segs;

	for (uint32_t off = 0; off < run->bytes; off += run->size) {
		uint32_t len = MIN(run->size, run->bytes - off);
		bool first = src != at; /* of what came in one piece */
		struct udp_run one = { 0 };
		struct iovec iov[2];
		int err;

		if (first)
			piece = *src;
		at = src;
		one.iov = iov;
		one.n = udp_iov_cut(iov, &src, len);
		udp_run_add(&one, len, len);
		err = udp_tx_one(c, flow, tx, &one);
		if (is_full(err)) {
			count_n(&c->cnt, CNT_UDP_DROP_SOCK_FULL, left);
			return;
		}
		left--;
		if (err && first)
			udp_tx_lost(c, flow, tx, &piece, err);
	}
}

/* udp_tx_is_refused() - Is it known that the kernel takes no such run? */
static bool udp_tx_is_refused(struct flow *flow, const struct udp_run *run)
{
	return run->segs > 1 && run->size >= udp_flow_of(flow)->gso_limit;
}

/* udp_tx_refused() - Was it UDP_SEGMENT that the kernel did not like? */
static bool udp_tx_refused(struct flow *flow, const struct udp_run *run,
			   int err)
{
	struct udp_flow *u = udp_flow_of(flow);

	if (run->segs < 2)
		return false;
	switch (err) {
	case EMSGSIZE: /* a datagram does not fit the path's MTU */
	case EINVAL:   /* the same, before Linux 6.9; or too many of them */
		u->gso_limit = MIN(u->gso_limit, run->size);
		return true;
	case EIO: /* no checksum offload on the way, or IPsec */
	case ENOPROTOOPT:
	case EOPNOTSUPP:
		u->gso_limit = 0;
		return true;
	default:
		return false;
	}
}

/**
 * udp_tx_failed() - sendmmsg() stopped at a run
 * @retry:	The run had its second chance already; set if it gets it now
 *
 * Return: how many of the next runs are settled now: 0 to try it again
 */
static unsigned udp_tx_failed(struct ctx *c, struct flow *flow,
			      struct udp_tx *tx, const struct udp_run *run,
			      unsigned runs, int err, bool *retry)
{
	if (udp_tx_refused(flow, run, err)) {
		udp_tx_split(c, flow, tx, run);
		return 1;
	}
	if (is_full(err)) {
		for (unsigned i = 0; i < runs; i++)
			count_n(&c->cnt, CNT_UDP_DROP_SOCK_FULL, run[i].segs);
		return runs;
	}
	/* More often than not it is the answer to an earlier datagram: taking
	 * it off the socket is all that is needed to go on */
	if (!*retry && !tx->sourced) {
		udp_errors(c, flow, tx->to);
		*retry = true;
		return 0;
	}
	if (run->inner) /* the first one of its frame was told of */
		count(&c->cnt, CNT_UDP_ERRORS);
	else
		udp_tx_lost(c, flow, tx, payload_of(run), err);
	if (tx->port && is_source_gone(err) && !flow->f.closed)
		flow_mark_closed(&c->ft, flow, WHY_UNREACHABLE, err, c->now);
	*retry = false;
	return 1;
}

void udp_tx_flush(struct ctx *c, struct flow *flow, struct udp_tx *tx)
{
	bool retry = false;
	unsigned i = 0, n;
	int sent;

	for (unsigned k = 0; k < tx->n; k++)
		udp_tx_message(c, flow, tx, &tx->run[k], &tx->ctl[k],
			       &tx->mm[k].msg_hdr);

	while (i < tx->n) {
		for (n = i; n < tx->n; n++)
			if (udp_tx_is_refused(flow, &tx->run[n]))
				break;
		if (n == i) {
			udp_tx_split(c, flow, tx, &tx->run[i++]);
			continue;
		}
		sent = sys_sendmmsg(tx->fd, tx->mm + i, n - i,
				    MSG_DONTWAIT | MSG_NOSIGNAL);
		budget_spend(&c->budget, (uint64_t)MAX(sent, 1) * WORK_CALL);
		if (sent > 0) {
			retry = false;
			for (; sent--; i++)
				udp_tx_done(c, flow, tx->to, &tx->run[i]);
			continue;
		}
		i += udp_tx_failed(c, flow, tx, &tx->run[i], tx->n - i, errno,
				   &retry);
	}
	tx->n = tx->iovs = 0;
}

void udp_tx_ttl(struct ctx *c, struct flow *flow, struct udp_tx *tx,
		uint8_t ttl)
{
	struct udp_flow *u = udp_flow_of(flow);
	bool v4 = udp_is_v4(flow, tx->to);

	if (u->ttl == ttl || u->head) /* how far to the proxy is our affair */
		return;
	udp_tx_flush(c, flow, tx);
	u->ttl = ttl;
	if (!tx->named)
		dgram_set_ttl(tx->fd, v4, ttl);
	if (!tx->port || tx->port->ttl)
		return;
	/* What most flows of a guest have, the port has: it need not be said */
	dgram_set_ttl(tx->fd, v4, ttl);
	tx->port->ttl = ttl;
}

/* add_relayed() - Each datagram by itself, behind a head of its own */
static void add_relayed(struct ctx *c, struct flow *flow, struct udp_tx *tx,
			const struct iovec *iov, unsigned n, uint32_t len,
			uint32_t size)
{
	struct udp_relayed *r = udp_relayed(flow);
	struct iovec rest[2], *src = rest;
	uint32_t off = 0;

	memcpy(rest, iov, n * sizeof(*iov));
	do {
		uint32_t piece = MIN(size, len - off);
		struct udp_run *run;
		unsigned pieces;

		if (tx->iovs + 3 > UDP_TX_MAX)
			udp_tx_flush(c, flow, tx);
		run = &tx->run[tx->n++];
		*run = (struct udp_run){ .iov = &tx->iov[tx->iovs] };
		run->head = r->udp.head;
		run->inner = off;
		run->iov[0] = (struct iovec){ r->head, r->udp.head };
		run->iov[1] = (struct iovec){ src->iov_base, 0 };
		pieces = udp_iov_cut(run->iov + 1, &src, piece);
		run->n = 1 + MAX(pieces, 1U);
		tx->iovs += run->n;
		udp_run_add(run, piece, piece);
		off += piece;
	} while (off < len);
}

void udp_tx_add(struct ctx *c, struct flow *flow, struct udp_tx *tx,
		const struct iovec *iov, unsigned n, uint32_t len,
		uint32_t size)
{
	struct udp_run *run;

	if (udp_flow_of(flow)->head) {
		add_relayed(c, flow, tx, iov, n, len, size);
		return;
	}
	if (tx->iovs + n > UDP_TX_MAX)
		udp_tx_flush(c, flow, tx);
	run = tx->n ? &tx->run[tx->n - 1] : NULL;
	if (!run || size >= udp_flow_of(flow)->gso_limit ||
	    !udp_run_fits(run, len, size, udp_run_max(flow, tx->to))) {
		run = &tx->run[tx->n++];
		*run = (struct udp_run){ .iov = &tx->iov[tx->iovs] };
	}
	for (unsigned i = 0; i < n; i++)
		tx->iov[tx->iovs++] = iov[i];
	run->n += n;
	udp_run_add(run, len, size);
}
