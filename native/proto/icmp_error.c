/* SPDX-License-Identifier: GPL-2.0-or-later */
/* icmp_error.c - ICMP errors for the guest, quoting packets of its own
 *
 * What a guest sent is gone when its error comes back, except for what the
 * error carried: the kernel hands that out above the header it matched the
 * socket by. So IP header (and UDP header) of the quote are made again from
 * the addresses of the flow as the guest knows them; whatever was mapped on
 * the way out is mapped back here, and nowhere else.
 */

#include "proto/icmp_error.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/errqueue.h>
#include <netinet/icmp6.h>
#include <netinet/ip_icmp.h>

#include "base/sys.h"
#include "link/frame.h"
#include "link/ip_header.h"

#define QUOTE_TTL 64 /* of quoted headers: the true one is not known */

/** struct unreachable - What an errno means, per family */
struct unreachable {
	int err;
	uint8_t code4;
	uint8_t code6;
};

static const struct unreachable unreachable_codes[] = {
	{ ENETUNREACH, ICMP_NET_UNREACH, ICMP6_DST_UNREACH_NOROUTE },
	{ EHOSTUNREACH, ICMP_HOST_UNREACH, ICMP6_DST_UNREACH_ADDR },
	{ EHOSTDOWN, ICMP_HOST_UNREACH, ICMP6_DST_UNREACH_ADDR },
	{ ENOPROTOOPT, ICMP_PROT_UNREACH, ICMP6_DST_UNREACH_NOPORT },
	{ EACCES, ICMP_PKT_FILTERED, ICMP6_DST_UNREACH_ADMIN },
	{ EPERM, ICMP_PKT_FILTERED, ICMP6_DST_UNREACH_ADMIN },
};

bool icmp_error_from_errno(int err, bool v4, uint8_t *type, uint8_t *code)
{
	for (size_t i = 0; i < ARRAY_SIZE(unreachable_codes); i++) {
		const struct unreachable *u = &unreachable_codes[i];

		if (u->err != err)
			continue;
		*type = v4 ? ICMP_DEST_UNREACH : ICMP6_DST_UNREACH;
		*code = v4 ? u->code4 : u->code6;
		return true;
	}
	return false;
}

const union inany *icmp_error_reporter(const struct ctx *c, int err,
				       const struct flowside *key)
{
	const union inany *us = &c->our_addr[inany_is_v4(&key->eaddr) ? 0 : 1];
	bool refused = err == EACCES || err == EPERM;

	return refused && !inany_is_any(us) ? us : &key->oaddr;
}

int icmp_error_quote(struct ctx *c, const union inany *src,
		     const struct flowside *key, uint8_t ipproto, uint8_t type,
		     uint8_t code, uint32_t info, const void *l4,
		     uint32_t l4_len, uint32_t ip_payload)
{
	uint8_t quote[sizeof(struct ip6_hdr_) + ICMP_QUOTE_MAX];
	uint32_t most = UINT16_MAX; /* that the header can tell */
	uint32_t hlen, len = MIN(l4_len, ICMP_QUOTE_MAX);
	int rc;

	if (!inany_is_unicast(&key->oaddr))
		return -EINVAL;

	if (inany_is_v4(&key->eaddr))
		most -= (uint32_t)sizeof(struct ip4_hdr);
	hlen = ip_header(quote, &key->eaddr, &key->oaddr, ipproto,
			 MIN(ip_payload, most), QUOTE_TTL);
	memcpy(quote + hlen, l4, len);
	rc = frame_icmp_error(&c->tap, src ? src : &key->oaddr, &key->eaddr,
			      type, code, info, quote, hlen + len);
	if (rc)
		return rc;

	count(&c->cnt, CNT_ICMP_ERRORS_TO_TAP);
	return 0;
}

void icmp_error_reject(struct ctx *c, struct miss *m, int err)
{
	bool v4 = inany_is_v4(&m->key.eaddr);
	struct stage_item *item;
	uint8_t type, code;
	uint32_t pos = 0;

	if (m->pif != PIF_TAP || !inany_is_unicast(&m->key.oaddr))
		return;
	if (err == ECONNREFUSED) {
		type = v4 ? ICMP_DEST_UNREACH : ICMP6_DST_UNREACH;
		code = v4 ? ICMP_PORT_UNREACH : ICMP6_DST_UNREACH_NOPORT;
	} else if (!icmp_error_from_errno(err, v4, &type, &code)) {
		return;
	}

	while ((item = stage_next(&c->stage, m, &pos))) {
		if (item->len <= ETH_HLEN_)
			continue;
		if (frame_icmp_error(&c->tap,
				     icmp_error_reporter(c, err, &m->key),
				     &m->key.eaddr, type, code, 0,
				     stage_item_data(item) + ETH_HLEN_,
				     item->len - ETH_HLEN_))
			return;
		count(&c->cnt, CNT_ICMP_ERRORS_TO_TAP);
	}
}

/* parse_error() - From the kernel's record to ours */
static void parse_error(const struct cmsghdr *cm, struct sock_error *e)
{
	union sockaddr_inany sa = { 0 };
	struct sock_extended_err ee;
	uint16_t port;

	if (cm->cmsg_len < CMSG_LEN(sizeof(ee)))
		return;
	memcpy(&ee, CMSG_DATA(cm), sizeof(ee));
	e->err = (int)ee.ee_errno;
	e->info = ee.ee_info;
	e->icmp = ee.ee_origin == SO_EE_ORIGIN_ICMP ||
		  ee.ee_origin == SO_EE_ORIGIN_ICMP6;
	e->type = ee.ee_type;
	e->code = ee.ee_code;

	/* SO_EE_OFFENDER(): a socket address follows the record */
	memcpy(&sa, CMSG_DATA(cm) + sizeof(ee),
	       MIN(cm->cmsg_len - CMSG_LEN(sizeof(ee)), sizeof(sa)));
	inany_from_sa(&e->offender, &port, &sa);
}

void icmp_error_keep(int fd, bool v4, bool on)
{
	int value = on;

	if (v4)
		sys_setsockopt(fd, IPPROTO_IP, IP_RECVERR, &value,
			       sizeof(value));
	else
		sys_setsockopt(fd, IPPROTO_IPV6, IPV6_RECVERR, &value,
			       sizeof(value));
}

int icmp_error_next(int fd, void *buf, uint32_t size, struct sock_error *ret_e)
{
	union {
		struct cmsghdr align;
		uint8_t buf[CMSG_SPACE(sizeof(struct sock_extended_err) +
				       sizeof(struct sockaddr_in6)) +
			    CMSG_SPACE(sizeof(int))];
	} ctl;
	struct iovec iov = { .iov_base = buf, .iov_len = size };
	union sockaddr_inany to = { 0 };
	struct msghdr mh = {
		.msg_name = &to,
		.msg_namelen = sizeof(to),
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &ctl,
		.msg_controllen = sizeof(ctl),
	};
	struct sock_error e = { 0 };
	ssize_t n;

	n = sys_recvmsg(fd, &mh, MSG_ERRQUEUE | MSG_DONTWAIT);
	if (n < 0)
		return -errno;

	e.len = (uint32_t)n;
	inany_from_sa(&e.to, &e.to_port, &to);
	for (struct cmsghdr *cm = CMSG_FIRSTHDR(&mh); cm;
	     cm = CMSG_NXTHDR(&mh, cm)) {
		if ((cm->cmsg_level == IPPROTO_IP &&
		     cm->cmsg_type == IP_RECVERR) ||
		    (cm->cmsg_level == IPPROTO_IPV6 &&
		     cm->cmsg_type == IPV6_RECVERR))
			parse_error(cm, &e);
	}
	*ret_e = e;
	return 0;
}

/* is_relayed() - Is this an error that a router would pass to the guest? */
static bool is_relayed(const struct sock_error *e, bool v4)
{
	if (!e->icmp)
		return false;
	if (v4)
		return e->type == ICMP_DEST_UNREACH ||
		       e->type == ICMP_TIME_EXCEEDED ||
		       e->type == ICMP_PARAMETERPROB;
	return e->type >= ICMP6_DST_UNREACH && e->type <= ICMP6_PARAM_PROB;
}

int icmp_error_mtu(int mtu, bool from_v4, bool to_v4)
{
	if (from_v4 == to_v4)
		return mtu;
	return mtu + (to_v4 ? -20 : 20);
}

/* translate() - Say an error in the other family's words (RFC 7915 4.2, 5.2) */
static bool translate(struct sock_error *e, bool to_v4)
{
	uint8_t exceeded = to_v4 ? ICMP6_TIME_EXCEEDED : ICMP_TIME_EXCEEDED;

	if (e->type == exceeded) {
		e->type = to_v4 ? ICMP_TIME_EXCEEDED : ICMP6_TIME_EXCEEDED;
		return true;
	}
	switch (e->err) {
	case EMSGSIZE:
		e->type = to_v4 ? ICMP_DEST_UNREACH : ICMP6_PACKET_TOO_BIG;
		e->code = to_v4 ? ICMP_FRAG_NEEDED : 0;
		e->info = (uint32_t)icmp_error_mtu((int)e->info, !to_v4, to_v4);
		return true;
	case ECONNREFUSED:
		e->type = to_v4 ? ICMP_DEST_UNREACH : ICMP6_DST_UNREACH;
		e->code = to_v4 ? ICMP_PORT_UNREACH : ICMP6_DST_UNREACH_NOPORT;
		return true;
	default:
		return icmp_error_from_errno(e->err, to_v4, &e->type, &e->code);
	}
}

bool icmp_error_relay(struct ctx *c, struct flow *flow,
		      const struct sock_error *e, const void *l4,
		      uint32_t l4_len)
{
	unsigned tapside = flow->f.pif[INISIDE] == PIF_TAP ? INISIDE : TGTSIDE;
	const struct flowside *guest = &flow->f.side[tapside];
	const struct flowside *host = &flow->f.side[!tapside];
	bool v4 = inany_is_v4(&guest->eaddr);
	const union inany *src = &e->offender;
	struct sock_error told = *e;

	if (!is_relayed(e, inany_is_v4(&host->eaddr)))
		return false;
	if (inany_is_v4(&host->eaddr) != v4 && !translate(&told, v4))
		return false;

	/* The guest knows the target by its own name for it. What the host says
	 * of itself must not come from an address the guest may have as well,
	 * nor from one that is of no use there: the target says it instead. */
	if (inany_is_v4(src) != v4 || inany_equal(src, &host->eaddr) ||
	    inany_equal(src, &host->oaddr) || inany_equal(src, &guest->eaddr) ||
	    !inany_is_unicast(src) || inany_is_loopback(src))
		src = NULL;

	flow_log(&c->log, c->now, ICMP_ERROR, flow, e->type, e->code, e->info,
		 0);
	return !icmp_error_quote(c, src, guest,
				 (uint8_t)flow_type_proto[flow->f.type],
				 told.type, told.code, told.info, l4, l4_len,
				 l4_len);
}
