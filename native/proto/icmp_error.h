/* SPDX-License-Identifier: GPL-2.0-or-later */
/* icmp_error.h - From errno and socket error queue to ICMP for the guest */
#ifndef PASSTPY_PROTO_ICMP_ERROR_H
#define PASSTPY_PROTO_ICMP_ERROR_H

#include "proto/ctx.h"

/* Bytes of a guest's packet, from the L4 header on, that any quote can use: an
 * ICMPv6 error is no longer than the minimum MTU (RFC 4443 2.4 c) */
#define ICMP_QUOTE_MAX 1232

/** struct sock_error - One entry of a socket's error queue
 * @err:	errno value it stands for
 * @icmp:	It came in an ICMP or ICMPv6 error; @type and @code are set
 * @type:	ICMP or ICMPv6 type
 * @code:	Code
 * @info:	MTU, or pointer of a parameter problem
 * @offender:	Who reported it, or the unspecified address
 * @to:		Whom our packet was for
 * @to_port:	Its port; unspecified as @to for a socket without ports
 * @len:	Bytes of our packet that came back
 */
struct sock_error {
	int err;
	bool icmp;
	uint8_t type;
	uint8_t code;
	uint32_t info;
	union inany offender;
	union inany to;
	uint16_t to_port;
	uint32_t len;
};

/**
 * icmp_error_from_errno() - Does a failed connect() have an ICMP meaning?
 * @err:	Positive errno
 * @v4:		IPv4, else IPv6
 * @type:	Filled with the ICMP or ICMPv6 type
 * @code:	Filled with the code
 *
 * EHOSTUNREACH, EHOSTDOWN, ENETUNREACH, EACCES, EPERM and ENOPROTOOPT have
 * one. What a refused connection is depends on the protocol.
 *
 * Return: false for an errno that ICMP does not know (nothing is filled)
 */
bool icmp_error_from_errno(int err, bool v4, uint8_t *type, uint8_t *code);

/**
 * icmp_error_reporter() - Who is to tell the guest of a packet that went nowhere?
 * @err:	Positive errno
 * @key:	The packet's addresses as the guest sent them
 *
 * Return: the target, which is what a path or a host would look like; ourselves
 *	   where we, or the host we run on, did not let it go
 */
const union inany *icmp_error_reporter(const struct ctx *c, int err,
				       const struct flowside *key);

/**
 * icmp_error_quote() - Send the guest an ICMP error about a packet of its own
 * @src:	Who reports it; NULL: the destination of the packet
 * @key:	The packet's addresses as the guest sent them (eaddr: guest)
 * @ipproto:	Protocol of the quoted packet
 * @l4:		Start of the quoted L4 header and payload
 * @l4_len:	Bytes of @l4
 * @ip_payload:	Length the quoted IP header is to claim for its payload
 *
 * Return: 0, -EINVAL for a destination that must not be answered (RFC 1122
 *	   3.2.2, RFC 4443 2.4 e: multicast, broadcast), or -errno of the tap
 */
int icmp_error_quote(struct ctx *c, const union inany *src,
		     const struct flowside *key, uint8_t ipproto, uint8_t type,
		     uint8_t code, uint32_t info, const void *l4,
		     uint32_t l4_len, uint32_t ip_payload);

/**
 * icmp_error_reject() - Tell the guest that a missed packet goes nowhere
 * @m:		Miss from the tap; what it parked is quoted
 * @err:	Positive errno. ECONNREFUSED, which a verdict gives too, is "port
 *		unreachable"; one without a meaning for ICMP is not told
 */
void icmp_error_reject(struct ctx *c, struct miss *m, int err);

/**
 * icmp_error_keep() - Have the kernel keep ICMP errors of a socket for us
 * @v4:		Family of @fd
 * @on:		Or no longer, and forget those it has
 *
 * Without it nothing is lost but errors, so that its failure is none.
 */
void icmp_error_keep(int fd, bool v4, bool on);

/**
 * icmp_error_next() - Take one entry off a socket's error queue
 * @fd:		Socket, see icmp_error_keep()
 * @buf:	Filled with what came back of our packet: above UDP's header,
 *		or from the echo or TCP header on
 * @size:	Bytes of @buf
 * @ret_e:	Filled
 *
 * Return: 0, -EAGAIN when the queue is empty, other -errno of recvmsg()
 */
int icmp_error_next(int fd, void *buf, uint32_t size, struct sock_error *ret_e);

/**
 * icmp_error_mtu() - The MTU that one family means, in the other's words
 * @mtu:	MTU of a path, in bytes
 * @from_v4:	Family it was told in
 * @to_v4:	Family to tell it in
 *
 * Headers differ by 20 bytes (RFC 7915 4.2, 5.2).
 */
int icmp_error_mtu(int mtu, bool from_v4, bool to_v4);

/**
 * icmp_error_relay() - Pass an error from outside on to the guest
 * @flow:	Flow whose packet it was
 * @e:		From icmp_error_next()
 * @l4:		The packet as the guest sent it, from the L4 header on
 * @l4_len:	Bytes of @l4
 *
 * Types other than unreachable, too big, time exceeded and parameter problem
 * are not passed on, nor is what did not come as ICMP. Where the flow ends in
 * the other family the error is translated as far as it has a meaning there
 * (RFC 7915).
 *
 * Return: true if the guest was told
 */
bool icmp_error_relay(struct ctx *c, struct flow *flow,
		      const struct sock_error *e, const void *l4,
		      uint32_t l4_len);

#endif /* PASSTPY_PROTO_ICMP_ERROR_H */
