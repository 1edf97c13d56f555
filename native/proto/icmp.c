/* SPDX-License-Identifier: GPL-2.0-or-later */
/* icmp.c - ICMP and ICMPv6 echo through ping sockets
 *
 * A flow is an identifier and a destination. A ping socket is no privilege,
 * but the administrator decides who may have one (net.ipv4.ping_group_range);
 * who may not uses raw ones if a privileged start left some (ping_raw.h), or is
 * told "administratively prohibited". The kernel puts its own identifier in,
 * which is the guest's if no other ping socket has that, and computes
 * checksums. Sequence numbers and payload pass as they are, both
 * ways, repeated answers included: ping shows duplicates, and it should.
 */

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/icmp6.h>
#include <netinet/ip_icmp.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/checksum.h"
#include "base/sys.h"
#include "link/frame.h"
#include "proto/dgram.h"
#include "proto/handler.h"
#include "proto/icmp_error.h"
#include "proto/ping_raw.h"
#include "table/meter.h"

#define ECHO_HLEN 8 /* type, code, sum, identifier, sequence */
/* After the last request or answer: twice what conntrack gives, so that a ping
 * every half minute keeps its identifier */
#define PING_TIMEOUT	(60 * NSEC_PER_SEC)
#define PING_ERRORS_MAX 16 /* errors taken in one event */

/** struct ping_flow - What a flow of echo requests remembers
 * @ttl:	TTL the socket has, 0: not set yet
 * @raw:	The socket is a borrowed raw one
 */
struct ping_flow {
	uint8_t ttl;
	bool raw;
};

_Static_assert(sizeof(struct ping_flow) <= FLOW_PRIV_SIZE, "ping_flow");

static struct ping_flow *ping_flow_of(struct flow *flow)
{
	return (struct ping_flow *)(void *)flow->priv;
}

static bool ping_is_v4(const struct flow *flow)
{
	return flow->f.type == FLOW_PING4;
}

/* ping_aim() - Bind to the guest's identifier if it is free, and connect */
static int ping_aim(struct ctx *c, const struct flow *flow, int fd,
		    struct flowside *local)
{
	bool chosen = local->oport != flow->f.side[INISIDE].eport;
	bool v4 = ping_is_v4(flow);
	static const int off;
	int rc;

	/* Ping sockets are born with it on. Two of one identifier steal each
	 * other's answers, for the kernel does not look who they came from */
	sys_setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &off, sizeof(off));

	rc = dgram_outbound(c, fd, v4);
	if (rc)
		return rc;
	rc = dgram_bind(c, fd, v4, &local->oaddr, local->oport);
	if (rc == -EADDRINUSE && !chosen)
		rc = dgram_bind(c, fd, v4, &local->oaddr, 0);
	if (rc)
		return rc;
	rc = dgram_connect(c, fd, &local->eaddr, 0);
	if (rc)
		return rc;
	return dgram_name(fd, &local->oaddr, &local->oport);
}

/* ping_setup() - Prepare a new flow's socket; @local: filled with our side */
static int ping_setup(struct ctx *c, struct flow *flow, int fd,
		      struct flowside *local)
{
	static const int on = 1;
	int rc;

	*local = flow->f.side[TGTSIDE];
	if (!local->oport)
		local->oport = flow->f.side[INISIDE].eport;
	if (ping_flow_of(flow)->raw)
		rc = ping_raw_aim(c, flow, fd, local);
	else
		rc = ping_aim(c, flow, fd, local);
	if (rc)
		return rc;

	/* ping tells the TTL of answers; without it, it tells our own */
	if (ping_is_v4(flow))
		sys_setsockopt(fd, IPPROTO_IP, IP_RECVTTL, &on, sizeof(on));
	else
		sys_setsockopt(fd, IPPROTO_IPV6, IPV6_RECVHOPLIMIT, &on,
			       sizeof(on));
	return 0;
}

/* ping_socket() - A ping socket, or a raw one, or -errno, which is logged */
static int ping_socket(struct ctx *c, struct flow *flow)
{
	bool v4 = ping_is_v4(flow);
	int fd = dgram_socket(c, flow, v4 ? IPPROTO_ICMP : IPPROTO_ICMPV6, v4);

	if (fd != -EACCES)
		return fd;
	fd = ping_raw_borrow(c, flow);
	if (fd >= 0) {
		ping_flow_of(flow)->raw = true;
		return fd;
	}
	/* Nothing but a sysctl can help: that is said once */
	if (!c->cnt.n[CNT_PING_DENIED])
		flow_log(&c->log, c->now, PING_DENIED, flow, 0, 0, 0, 0);
	count(&c->cnt, CNT_PING_DENIED);
	flow_log(&c->log, c->now, SOCK_ERROR, flow, EACCES, 0, 0, 0);
	return fd;
}

/* ping_release() - Give up the socket of a flow that cannot be opened */
static void ping_release(struct ctx *c, struct flow *flow, int fd)
{
	if (ping_flow_of(flow)->raw)
		ping_raw_give_back(c, flow);
	else
		close(fd);
}

static int ping_open(struct ctx *c, struct flow *flow, const struct verdict *v,
		     struct miss *m)
{
	struct flowside local;
	int fd, rc;

	(void)m;
	*ping_flow_of(flow) = (struct ping_flow){ 0 };
	if (flow->f.pif[INISIDE] != PIF_TAP)
		return -EOPNOTSUPP;
	if (inany_is_v4(&v->side.eaddr) != ping_is_v4(flow))
		return -EAFNOSUPPORT;

	fd = ping_socket(c, flow);
	if (fd < 0)
		return fd;

	rc = ping_setup(c, flow, fd, &local);
	if (rc)
		goto fail;
	rc = flow_adopt(&c->epoll, &c->ft, flow, TGTSIDE, fd, c->now);
	if (rc)
		goto fail;

	flow_set_our_addr(flow, TGTSIDE, &local.oaddr, local.oport);
	timer_set(&c->timers, flow, c->now + PING_TIMEOUT);
	return 0;

fail:
	ping_release(c, flow, fd);
	return rc;
}

/* ping_reject() - A port means nothing here: the host does not want to */
static void ping_reject(struct ctx *c, struct miss *m, int err)
{
	icmp_error_reject(c, m, err == ECONNREFUSED ? EACCES : err);
}

/* ping_restore() - Make what came back of a request the guest's own again
 *
 * Only identifier and checksum can differ; the sum is corrected, not computed,
 * since the end may be missing (RFC 1624, equation 3).
 */
static void ping_restore(const struct flow *flow, uint8_t *l4)
{
	struct icmp_hdr echo;
	uint64_t sum;

	memcpy(&echo, l4, sizeof(echo));
	sum = (uint16_t)~echo.check + (uint64_t)(uint16_t)~echo.id;
	echo.id = htons(flow->f.side[INISIDE].eport);
	echo.check = (uint16_t)~csum_fold(sum + echo.id);
	memcpy(l4, &echo, sizeof(echo));
}

/* is_own_ident() - A raw socket hears of others' echo to the same target, too */
static bool is_own_ident(const struct flow *flow, const uint8_t *l4)
{
	struct icmp_hdr echo;

	memcpy(&echo, l4, sizeof(echo));
	return echo.id == htons(flow->f.side[TGTSIDE].oport);
}

/* ping_errors() - Pass on what is in the socket's error queue */
static void ping_errors(struct ctx *c, struct flow *flow)
{
	int fd = flow->f.fd[TGTSIDE];
	uint8_t l4[ICMP_QUOTE_MAX];
	struct sock_error e;
	unsigned n;

	for (n = 0; n < PING_ERRORS_MAX; n++) {
		if (icmp_error_next(fd, l4, sizeof(l4), &e))
			break;
		budget_spend(&c->budget, 2 * WORK_CALL);
		flow_log(&c->log, c->now, SOCK_ERROR, flow, e.err, 0, 0, 0);
		if (e.len < ECHO_HLEN || !is_own_ident(flow, l4))
			continue;
		ping_restore(flow, l4);
		icmp_error_relay(c, flow, &e, l4, e.len);
	}
	if (!n)
		dgram_take_error(fd);
}

/* ping_send() - One request; the kernel sets identifier and checksum */
static int ping_send(struct ctx *c, struct flow *flow, const struct frame *f)
{
	uint32_t len = ECHO_HLEN + f->payload_len;
	int err = 0;

	if (ping_flow_of(flow)->raw)
		err = ping_raw_send(c, flow, f->eth + f->l4, len);
	else if (sys_send(flow->f.fd[TGTSIDE], f->eth + f->l4, len,
			  MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		err = errno;
	if (!err)
		ctx_moved(c, flow, TGTSIDE,
			  &(struct iovec){ f->eth + f->l4, len }, len, len);
	return err;
}

/* ping_lost() - A request that could not be sent: tell the guest if ICMP can */
static void ping_lost(struct ctx *c, struct flow *flow, const struct frame *f,
		      int err)
{
	const struct flowside *guest = &flow->f.side[INISIDE];
	uint32_t len = ECHO_HLEN + f->payload_len;
	uint8_t type, code;

	flow_log(&c->log, c->now, SOCK_ERROR, flow, err, 0, 0, 0);
	if (icmp_error_from_errno(err, ping_is_v4(flow), &type, &code))
		icmp_error_quote(c, icmp_error_reporter(c, err, guest), guest,
				 f->ipproto, type, code, 0, f->eth + f->l4, len,
				 len);
}

/* is_allowed() - Do limits let a request or an answer pass? It counts as its
 * payload, but one without any is not for nothing */
static bool is_allowed(struct ctx *c, const struct flow *flow, unsigned from,
		       uint32_t payload)
{
	payload = MAX(payload, 1U);
	return !meter_has(flow) ||
	       meter_datagrams(&c->ft, flow, from, payload, payload, c->now);
}

/* ping_frame() - One request of the guest */
static void ping_frame(struct ctx *c, struct flow *flow, const struct frame *f)
{
	struct ping_flow *p = ping_flow_of(flow);
	struct icmp_hdr echo;
	int err;

	if (!is_allowed(c, flow, INISIDE, f->payload_len))
		return;
	if (f->ttl != p->ttl) {
		p->ttl = f->ttl;
		dgram_set_ttl(flow->f.fd[TGTSIDE], ping_is_v4(flow), f->ttl);
	}
	budget_spend(&c->budget, WORK_CALL + work_bytes(f->payload_len));
	err = ping_send(c, flow, f);
	if (err && err != EAGAIN) {
		/* The answer to an earlier request, most likely */
		ping_errors(c, flow);
		err = ping_send(c, flow, f);
	}
	if (err) {
		ping_lost(c, flow, f, err);
		return;
	}
	flow_touch(flow, INISIDE, 1, f->payload_len, c->now);
	memcpy(&echo, f->eth + f->l4, sizeof(echo));
	flow_log(&c->log, c->now, PING_FROM_TAP, flow, ntohs(echo.id),
		 ntohs(echo.seq), f->payload_len, 0);
}

static void ping_from_tap(struct ctx *c, struct flow *flow, struct burst *b)
{
	for (const struct frame *f = b->head; f; f = f->next) {
		ping_frame(c, flow, f);
		if (budget_is_spent(&c->budget)) {
			b->rest = f->next;
			return;
		}
	}
}

/* ping_answer_ttl() - TTL or hop limit of what was received; 0: not told */
static uint8_t ping_answer_ttl(struct msghdr *mh)
{
	int ttl;

	for (struct cmsghdr *cm = CMSG_FIRSTHDR(mh); cm;
	     cm = CMSG_NXTHDR(mh, cm)) {
		if ((cm->cmsg_level == IPPROTO_IP && cm->cmsg_type == IP_TTL) ||
		    (cm->cmsg_level == IPPROTO_IPV6 &&
		     cm->cmsg_type == IPV6_HOPLIMIT)) {
			memcpy(&ttl, CMSG_DATA(cm), sizeof(ttl));
			return (uint8_t)ttl;
		}
	}
	return 0;
}

/* is_from_target() - A ping socket hears everybody who knows its identifier */
static bool is_from_target(const struct flow *flow,
			   const union sockaddr_inany *sa)
{
	const union inany *target = &flow->f.side[TGTSIDE].eaddr;
	union inany addr;
	uint16_t port;

	return !inany_from_sa(&addr, &port, sa) && inany_equal(&addr, target);
}

/* ping_to_tap() - One answer to the guest, with its own identifier */
static void ping_to_tap(struct ctx *c, struct flow *flow, const uint8_t *msg,
			uint32_t len, uint8_t ttl)
{
	TAP_BATCH_SCOPE(batch, &c->tap);
	const struct flowside *guest = &flow->f.side[INISIDE];
	uint8_t proto = flow_type_proto[flow->f.type];
	uint8_t reply = ping_is_v4(flow) ? ICMP_ECHOREPLY : ICMP6_ECHO_REPLY;
	uint32_t payload = len - ECHO_HLEN;
	struct icmp_hdr echo;
	struct frame_out f;
	struct iovec iov;

	memcpy(&echo, msg, sizeof(echo));
	if (echo.type != reply || echo.code ||
	    !is_allowed(c, flow, TGTSIDE, payload))
		return;
	iov = (struct iovec){ (void *)msg, len };
	ctx_moved(c, flow, INISIDE, &iov, len, len);
	echo.id = htons(guest->eport);
	iov = (struct iovec){ (void *)(msg + ECHO_HLEN), payload };
	memcpy(frame_ip(&f, &c->tap, &guest->oaddr, &guest->eaddr, proto,
			ECHO_HLEN, payload, ttl),
	       &echo, sizeof(echo));
	frame_csum_icmp(&f, &guest->oaddr, &guest->eaddr, proto, ECHO_HLEN,
			iov.iov_base, payload);
	if (tap_batch_send(&batch, &f, &iov, 1, payload))
		return;

	flow_touch(flow, TGTSIDE, 1, payload, c->now);
	flow_log(&c->log, c->now, PING_TO_TAP, flow, ntohs(echo.id),
		 ntohs(echo.seq), payload, 0);
}

/* ping_receive() - Take one answer; false when there is none */
static bool ping_receive(struct ctx *c, struct flow *flow)
{
	union {
		struct cmsghdr align;
		uint8_t buf[CMSG_SPACE(sizeof(int))];
	} ctl;
	struct iovec iov = { c->bufs, CTX_BUF_SIZE };
	union sockaddr_inany peer = { 0 };
	struct msghdr mh = {
		.msg_name = &peer,
		.msg_namelen = sizeof(peer),
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &ctl,
		.msg_controllen = sizeof(ctl),
	};
	ssize_t n = sys_recvmsg(flow->f.fd[TGTSIDE], &mh, MSG_DONTWAIT);
	ssize_t skip; /* an IPv4 header, from a raw socket */

	budget_spend(&c->budget,
		     2 * (WORK_CALL + work_bytes((uint64_t)MAX(n, 0))));
	if (n < 0)
		return false;
	skip = ping_flow_of(flow)->raw && ping_is_v4(flow) ?
		       (c->bufs[0] & 0xf) * 4 :
		       0;
	if (n >= skip + ECHO_HLEN && is_from_target(flow, &peer) &&
	    is_own_ident(flow, c->bufs + skip))
		ping_to_tap(c, flow, c->bufs + skip, (uint32_t)(n - skip),
			    ping_answer_ttl(&mh));
	return true;
}

static void ping_from_sock(struct ctx *c, struct flow *flow, unsigned sidei,
			   uint32_t events)
{
	(void)sidei;
	if (events & EPOLLERR)
		ping_errors(c, flow);
	if (!(events & EPOLLIN))
		return;
	/* A guest that is full lets them wait: epoll tells again */
	while (!c->tap.blocked && ping_receive(c, flow) &&
	       !budget_is_spent(&c->budget))
		;
}

static void ping_timer(struct ctx *c, struct flow *flow)
{
	uint64_t deadline =
		MAX(flow->f.created, flow->f.last_use) + PING_TIMEOUT;

	if (c->now >= deadline)
		flow_mark_closed(&c->ft, flow, WHY_IDLE, 0, c->now);
	else
		timer_set(&c->timers, flow, deadline);
}

static bool ping_defer(struct ctx *c, struct flow *flow)
{
	if (ping_flow_of(flow)->raw)
		ping_raw_give_back(c, flow);
	else
		close(flow_take_fd(&c->ft, flow, TGTSIDE));
	return true;
}

static void ping4_fini(struct ctx *c)
{
	ping_raw_fini(c, FLOW_PING4);
}

static void ping6_fini(struct ctx *c)
{
	ping_raw_fini(c, FLOW_PING6);
}

const struct handler ping4_handler = {
	.ipproto = IPPROTO_ICMP,
	.fini = ping4_fini,
	.open = ping_open,
	.reject = ping_reject,
	.interest = dgram_interest,
	.from_tap = ping_from_tap,
	.from_sock = ping_from_sock,
	.timer = ping_timer,
	.defer = ping_defer,
};

const struct handler ping6_handler = {
	.ipproto = IPPROTO_ICMPV6,
	.fini = ping6_fini,
	.open = ping_open,
	.reject = ping_reject,
	.interest = dgram_interest,
	.from_tap = ping_from_tap,
	.from_sock = ping_from_sock,
	.timer = ping_timer,
	.defer = ping_defer,
};
