/* SPDX-License-Identifier: GPL-2.0-or-later */
/* udp_relay.c - Datagrams of the guest that leave through a SOCKS5 proxy */

#include "proto/udp_relay.h"

#include <assert.h>
#include <errno.h>

#include "base/sys.h"
#include "proto/dgram.h"
#include "proto/udp_port.h"
#include "proto/udp_sock.h"

_Static_assert(sizeof(struct udp_relayed) <= FLOW_PRIV_SIZE, "udp_relayed");

/* A head, RFC 1928 section 7: two bytes of zero, the number of a fragment, type
 * of address, address, port */
#define AT_FRAGMENT 2
#define AT_ADDRESS  3
#define PORT_LEN    2

enum { ADDR_IPV4 = 1, ADDR_NAME = 3, ADDR_IPV6 = 4 };

static uint32_t *relays(struct ctx *c)
{
	return &((struct udp_ports *)c->shared[FLOW_UDP])->relays;
}

/* head_len() - Length of a head; 0: there is none, or not all of it */
static uint32_t head_len(const uint8_t *data, size_t len)
{
	uint32_t head;

	if (len < AT_ADDRESS + 2)
		return 0;
	switch (data[AT_ADDRESS]) {
	case ADDR_IPV4:
		head = AT_ADDRESS + 1 + 4 + PORT_LEN;
		break;
	case ADDR_IPV6:
		head = AT_ADDRESS + 1 + 16 + PORT_LEN;
		break;
	case ADDR_NAME:
		head = AT_ADDRESS + 2U + data[AT_ADDRESS + 1] + PORT_LEN;
		break;
	default:
		return 0;
	}
	return len < head ? 0 : head;
}

/* set_heads() - What goes before each datagram, and what may come before one */
static int set_heads(struct udp_relayed *r, const struct relay *relay)
{
	if (!relay->len || relay->len > sizeof(r->head) ||
	    head_len(relay->head, relay->len) != relay->len)
		return -EINVAL;
	memcpy(r->head, relay->head, relay->len);
	r->udp.head = relay->len;
	r->udp.gso_limit = 0; /* each has a head */
	r->from_len = 0;
	if (r->head[AT_ADDRESS] != ADDR_NAME) {
		r->from_len = relay->len;
		memcpy(r->from, r->head, relay->len);
	}
	return 0;
}

int udp_relay_open(struct ctx *c, struct flow *flow, const struct miss *m)
{
	unsigned tapside = udp_tapside(flow);
	struct flowside local;
	int rc;

	if (*relays(c) >= UDP_RELAYS_MAX) {
		count(&c->cnt, CNT_UDP_RELAYS_FULL);
		return -ENFILE;
	}
	rc = set_heads(udp_relayed(flow), m->relay);
	if (!rc)
		rc = dgram_name(m->given_fd, &local.oaddr, &local.oport);
	if (rc)
		return rc;
	flow_set_our_addr(flow, !tapside, &local.oaddr, local.oport);
	rc = flow_adopt(&c->epoll, &c->ft, flow, !tapside, m->given_fd, c->now);
	if (rc)
		return rc;
	rc = flow_adopt(&c->epoll, &c->ft, flow, tapside, m->relay->control,
			c->now);
	if (rc) {
		flow_epoll_del(&c->epoll, flow, !tapside);
		(void)flow_take_fd(&c->ft, flow, !tapside);
		return rc;
	}
	udp_set_buffers(m->given_fd);
	++*relays(c);
	return 0;
}

void udp_relay_close(struct ctx *c, struct flow *flow)
{
	if (udp_flow_of(flow)->head)
		--*relays(c);
}

void udp_relay_control(struct ctx *c, struct flow *flow)
{
	int fd = flow->f.fd[udp_tapside(flow)];
	ssize_t n;

	/* It has nothing to say but that it ends */
	n = sys_recv(fd, c->bufs, CTX_BUF_SIZE, MSG_DONTWAIT);
	budget_spend(&c->budget, WORK_CALL + work_bytes(n > 0 ? (size_t)n : 0));
	if (!n)
		flow_mark_closed(&c->ft, flow, WHY_DONE, 0, c->now);
	else if (n < 0 && errno != EAGAIN)
		flow_mark_closed(&c->ft, flow, WHY_RST_PEER, errno, c->now);
}

/* is_from_peer() - Is it an answer of whom the guest speaks to?
 *
 * A proxy that was told a name says which address that has: the first one that
 * has the right port is the name's from then on.
 */
static bool is_from_peer(struct udp_relayed *r, const uint8_t *data,
			 uint32_t len)
{
	uint16_t head = r->udp.head;

	if (len == r->from_len && !memcmp(data, r->from, len))
		return true;
	if (len == head && !memcmp(data, r->head, len))
		return true;
	if (r->from_len || data[AT_ADDRESS] == ADDR_NAME ||
	    memcmp(data + len - PORT_LEN, r->head + head - PORT_LEN, PORT_LEN))
		return false;
	memcpy(r->from, data, len);
	r->from_len = (uint16_t)len;
	return true;
}

bool udp_relay_strip(struct ctx *c, struct flow *flow, struct udp_rx *rx,
		     unsigned i)
{
	struct iovec *iov = &rx->iov[i][0];
	const uint8_t *data = iov->iov_base;
	uint32_t len = rx->mm[i].msg_len;
	uint32_t head = head_len(data, MIN(len, iov->iov_len));

	/* We need not join fragments, and say so by dropping them */
	if (!head || data[0] || data[1] || data[AT_FRAGMENT]) {
		count(&c->cnt, CNT_UDP_RELAY_BAD);
		return false;
	}
	assert(head <= len && head <= iov->iov_len);
	if (!is_from_peer(udp_relayed(flow), data, head)) {
		count(&c->cnt, CNT_UDP_FILTERED);
		return false;
	}
	iov->iov_base = (uint8_t *)iov->iov_base + head;
	iov->iov_len -= head;
	rx->mm[i].msg_len = len - head;
	return true;
}
