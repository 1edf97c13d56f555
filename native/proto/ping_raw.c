/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ping_raw.c - Raw sockets for echo, where nobody may have a ping socket
 *
 * They are never connected, although each has one peer: a raw socket that is
 * disconnected leaves the kernel's table for good, and one that is connected
 * cannot be bound again.
 */

#include "proto/ping_raw.h"

#include <assert.h>
#include <errno.h>
#include <linux/filter.h>
#include <netinet/icmp6.h>
#include <netinet/ip_icmp.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "base/checksum.h"
#include "base/sys.h"
#include "base/wire.h"
#include "proto/dgram.h"
#include "proto/icmp_error.h"

#define ANY_PORT  9  /* nothing is sent to it */
#define DRAIN_MAX 64 /* messages that one flow may leave to the next */

/** struct lent - A socket, and the flow that has borrowed it or NULL */
struct lent {
	int fd;
	struct flow *flow;
};

struct ping_raw {
	uint32_t n;
	struct lent lent[PING_RAW_MAX];
};

static struct ping_raw *pool_of(const struct ctx *c, const struct flow *flow)
{
	return c->shared[flow->f.type];
}

static int attach(int fd, struct sock_filter *code, unsigned short len)
{
	struct sock_fprog prog = { .len = len, .filter = code };

	return sys_setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &prog,
			      sizeof(prog)) ?
		       -errno :
		       0;
}

/* hear_nothing() - Let the kernel keep everything from a socket */
static int hear_nothing(int fd)
{
	struct sock_filter code[] = { BPF_STMT(BPF_RET | BPF_K, 0) };

	return attach(fd, code, ARRAY_SIZE(code));
}

/** struct code - A filter being written, whose last line refuses */
struct code {
	struct sock_filter line[16];
	uint8_t n, len;
};

static void put(struct code *f, uint16_t op, uint32_t k)
{
	f->line[f->n++] = (struct sock_filter)BPF_STMT(op, k);
}

/* put_equal() - Go on if what was loaded is @k */
static void put_equal(struct code *f, uint32_t k)
{
	uint8_t refuse = (uint8_t)(f->len - 1 - (f->n + 1));

	f->line[f->n++] = (struct sock_filter)BPF_JUMP(
		BPF_JMP | BPF_JEQ | BPF_K, k, 0, refuse);
}

/* hear_replies() - Let in echo replies of this target with this identifier only
 *
 * What a filter sees begins with the IP header over IPv4, and behind it over
 * IPv6, where that is found at SKF_NET_OFF.
 */
static int hear_replies(int fd, bool v4, const union inany *target,
			uint16_t ident)
{
	const void *addr = v4 ? (const void *)&target->v4.a4 : &target->a6;
	uint32_t at = (uint32_t)SKF_NET_OFF + (v4 ? 12 : 8), word[4];
	uint8_t words = v4 ? 1 : 4;
	struct code f = { .len = (uint8_t)(2 * words + 7) };

	memcpy(word, addr, words * sizeof(word[0]));
	put(&f, v4 ? BPF_LDX | BPF_B | BPF_MSH : BPF_LDX | BPF_W | BPF_IMM, 0);
	for (uint8_t i = 0; i < words; i++) {
		put(&f, BPF_LD | BPF_W | BPF_ABS, at + 4U * i);
		put_equal(&f, ntohl(word[i]));
	}
	put(&f, BPF_LD | BPF_B | BPF_IND, 0);
	put_equal(&f, v4 ? ICMP_ECHOREPLY : ICMP6_ECHO_REPLY);
	put(&f, BPF_LD | BPF_H | BPF_IND, 4);
	put_equal(&f, ident);
	put(&f, BPF_RET | BPF_K, UINT32_MAX);
	put(&f, BPF_RET | BPF_K, 0);
	assert(f.n == f.len);
	return attach(fd, f.line, f.len);
}

static int option_of(int fd, int name)
{
	socklen_t len = sizeof(int);
	int value = -1;

	sys_getsockopt(fd, SOL_SOCKET, name, &value, &len);
	return value;
}

/* type_of() - Which flows a socket is for; FLOW_TYPE_NONE: it is another kind */
static enum flow_type type_of(int fd)
{
	int proto = option_of(fd, SO_PROTOCOL);

	if (option_of(fd, SO_TYPE) != SOCK_RAW)
		return FLOW_TYPE_NONE;
	switch (option_of(fd, SO_DOMAIN)) {
	case AF_INET:
		return proto == IPPROTO_ICMP ? FLOW_PING4 : FLOW_TYPE_NONE;
	case AF_INET6:
		return proto == IPPROTO_ICMPV6 ? FLOW_PING6 : FLOW_TYPE_NONE;
	}
	return FLOW_TYPE_NONE;
}

int ping_raw_add(struct ctx *c, int fd)
{
	enum flow_type type = type_of(fd);
	struct ping_raw *pool;
	int rc;

	if (type == FLOW_TYPE_NONE)
		return -EINVAL;
	pool = c->shared[type];
	if (!pool) {
		pool = sys_calloc(1, sizeof(*pool));
		if (!pool)
			return -ENOMEM;
		c->shared[type] = pool;
	}
	if (pool->n == PING_RAW_MAX)
		return -ENOSPC;
	rc = hear_nothing(fd);
	if (rc)
		return rc;
	pool->lent[pool->n++] = (struct lent){ .fd = fd };
	return 0;
}

static struct lent *lent_to(struct ping_raw *pool, const struct flow *flow)
{
	for (uint32_t i = 0; pool && i < pool->n; i++)
		if (pool->lent[i].flow == flow)
			return &pool->lent[i];
	return NULL;
}

static uint64_t last_use(const struct lent *lent)
{
	return MAX(lent->flow->f.created, lent->flow->f.last_use);
}

/* least_used() - The one whose flow was silent for the longest time */
static struct lent *least_used(struct ping_raw *pool)
{
	struct lent *found = &pool->lent[0];

	for (uint32_t i = 1; i < pool->n; i++)
		if (last_use(&pool->lent[i]) < last_use(found))
			found = &pool->lent[i];
	return found;
}

int ping_raw_borrow(struct ctx *c, struct flow *flow)
{
	struct ping_raw *pool = pool_of(c, flow);
	struct lent *lent;

	if (!pool || !pool->n)
		return -EACCES;
	lent = lent_to(pool, NULL);
	if (!lent) {
		struct flow *loser;

		lent = least_used(pool);
		loser = lent->flow;
		ping_raw_give_back(c, loser);
		flow_mark_closed(&c->ft, loser, WHY_EVICTED, 0, c->now);
	}
	lent->flow = flow;
	return lent->fd;
}

/* outbound() - As dgram_outbound(), for a socket that may have been there
 *
 * Without privileges a socket can be bound to an interface once. It stays
 * there, if the interface does.
 */
static int outbound(const struct ctx *c, int fd, bool v4)
{
	char name[sizeof(c->outbound_if[0])] = "";
	socklen_t len = sizeof(name);
	int rc = dgram_outbound(c, fd, v4);

	if (rc != -EPERM)
		return rc;
	if (sys_getsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, name, &len) ||
	    strncmp(name, c->outbound_if[v4 ? 0 : 1], sizeof(name)) != 0)
		return -ENODEV;
	return 0;
}

static bool is_ident_taken(const struct ping_raw *pool, const struct flow *flow,
			   const union inany *target, uint16_t ident)
{
	for (uint32_t i = 0; i < pool->n; i++) {
		const struct flow *other = pool->lent[i].flow;

		if (other && other != flow &&
		    other->f.side[TGTSIDE].oport == ident &&
		    inany_equal(&other->f.side[TGTSIDE].eaddr, target))
			return true;
	}
	return false;
}

/* source() - Find out from which address the host talks to a target
 * @local:	@oaddr: what it is to be bound to; filled
 */
static int source(struct ctx *c, const struct flow *flow,
		  struct flowside *local)
{
	bool v4 = flow->f.type == FLOW_PING4;
	int fd = dgram_socket(c, flow, IPPROTO_UDP, v4), rc;
	uint16_t port;

	if (fd < 0)
		return fd;
	rc = dgram_outbound(c, fd, v4);
	if (!rc)
		rc = dgram_bind(c, fd, v4, &local->oaddr, 0);
	if (!rc)
		rc = dgram_connect(c, fd, &local->eaddr, ANY_PORT);
	if (!rc)
		rc = dgram_name(fd, &local->oaddr, &port);
	close(fd);
	return rc;
}

int ping_raw_aim(struct ctx *c, struct flow *flow, int fd,
		 struct flowside *local)
{
	bool v4 = flow->f.type == FLOW_PING4;
	int rc;

	while (is_ident_taken(pool_of(c, flow), flow, &local->eaddr,
			      local->oport))
		local->oport++;
	rc = outbound(c, fd, v4);
	if (!rc)
		rc = dgram_bind(c, fd, v4, &local->oaddr, 0);
	if (!rc)
		rc = source(c, flow, local);
	if (!rc)
		rc = hear_replies(fd, v4, &local->eaddr, local->oport);
	if (!rc)
		icmp_error_keep(fd, v4, true);
	return rc;
}

/* forget() - Leave nothing of one flow to the next
 *
 * The error queue is emptied by the kernel.
 */
static void forget(int fd, bool v4)
{
	uint8_t byte;

	(void)hear_nothing(fd);
	icmp_error_keep(fd, v4, false);
	dgram_take_error(fd);
	for (unsigned n = 0; n < DRAIN_MAX; n++)
		if (sys_recv(fd, &byte, sizeof(byte), MSG_DONTWAIT) < 0)
			break;
}

void ping_raw_give_back(struct ctx *c, struct flow *flow)
{
	struct lent *lent = lent_to(pool_of(c, flow), flow);

	if (!lent)
		return;
	if (flow->f.fd[TGTSIDE] >= 0) {
		flow_epoll_del(&c->epoll, flow, TGTSIDE);
		(void)flow_take_fd(&c->ft, flow, TGTSIDE);
	}
	forget(lent->fd, flow->f.type == FLOW_PING4);
	lent->flow = NULL;
}

int ping_raw_send(const struct ctx *c, const struct flow *flow,
		  const uint8_t *l4, uint32_t len)
{
	union sockaddr_inany sa;
	struct icmp_hdr echo;
	struct iovec iov[2] = {
		{ &echo, sizeof(echo) },
		{ (void *)(l4 + sizeof(echo)), len - sizeof(echo) },
	};
	struct msghdr mh = {
		.msg_name = &sa,
		.msg_namelen = inany_to_sa(&sa, &flow->f.side[TGTSIDE].eaddr, 0,
					   c->scope_id),
		.msg_iov = iov,
		.msg_iovlen = ARRAY_SIZE(iov),
	};

	memcpy(&echo, l4, sizeof(echo));
	echo.id = htons(flow->f.side[TGTSIDE].oport);
	echo.check = 0;
	/* Over IPv6 the kernel computes it: it knows both addresses */
	if (flow->f.type == FLOW_PING4) {
		uint64_t sum = csum_add(&echo, sizeof(echo), 0);

		sum = csum_add(iov[1].iov_base, iov[1].iov_len, sum);
		echo.check = (uint16_t)~csum_fold(sum);
	}
	if (sys_sendmsg(flow->f.fd[TGTSIDE], &mh, MSG_DONTWAIT | MSG_NOSIGNAL) <
	    0)
		return errno;
	return 0;
}

void ping_raw_fini(struct ctx *c, enum flow_type type)
{
	struct ping_raw *pool = c->shared[type];

	for (uint32_t i = 0; pool && i < pool->n; i++)
		close(pool->lent[i].fd);
	free(pool);
	c->shared[type] = NULL;
}
