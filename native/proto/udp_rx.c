/* SPDX-License-Identifier: GPL-2.0-or-later */
/* udp_rx.c - Receiving datagrams in batches into the scratch buffers */

#include "proto/udp_rx.h"

#include <errno.h>
#include <netinet/udp.h>

#include "base/sys.h"

/* rx_slot() - Describe a slot for the kernel; returns its number of pieces */
static unsigned rx_slot(uint8_t *bufs, unsigned i, bool small,
			struct iovec iov[2])
{
	const size_t small_end = (size_t)UDP_RX_SMALL * UDP_RX_SMALL_SIZE;

	if (!small) {
		iov[0].iov_base = bufs + (size_t)i * UDP_RX_STRIDE;
		iov[0].iov_len = CTX_BUF_SIZE;
		return 1;
	}
	iov[0].iov_base = bufs + (size_t)i * UDP_RX_SMALL_SIZE;
	iov[0].iov_len = UDP_RX_SMALL_SIZE;
	if (i >= UDP_RX_SPILLS)
		return 1;
	iov[1].iov_base = bufs + small_end + (size_t)i * CTX_BUF_SIZE;
	iov[1].iov_len = CTX_BUF_SIZE - UDP_RX_SMALL_SIZE;
	return 2;
}

static uint64_t udp_rx_price(const struct udp_rx *rx)
{
	uint64_t bytes = 0;

	for (unsigned i = 0; i < rx->n; i++)
		bytes += rx->mm[i].msg_len;
	return WORK_CALL + rx->n * WORK_FRAME + work_bytes(bytes);
}

int udp_rx_batch(struct ctx *c, int fd, struct udp_rx *rx, unsigned want,
		 bool names)
{
	bool small = want > UDP_RX_LARGE;
	int n;

	want = MIN(want, small ? UDP_RX_SMALL : UDP_RX_LARGE);
	for (unsigned i = 0; i < want; i++) {
		rx->mm[i].msg_hdr = (struct msghdr){
			.msg_name = names ? &rx->peer[i] : NULL,
			.msg_namelen = names ? sizeof(rx->peer[i]) : 0,
			.msg_iov = rx->iov[i],
			.msg_iovlen = rx_slot(c->bufs, i, small, rx->iov[i]),
			.msg_control = &rx->ctl[i],
			.msg_controllen = sizeof(rx->ctl[i]),
		};
	}
	n = sys_recvmmsg(fd, rx->mm, want, MSG_DONTWAIT, NULL);
	rx->n = n < 0 ? 0 : (unsigned)n;
	budget_spend(&c->budget, udp_rx_price(rx));
	if (n < 0)
		return -errno;
	return n ? 0 : -EAGAIN;
}

unsigned udp_rx_next(unsigned asked, unsigned got, bool large)
{
	if (got < asked) /* little to do: cheap to prepare for */
		return MIN(MAX(2 * got, 2), large ? UDP_RX_LARGE : asked);
	if (asked < UDP_RX_LARGE)
		return MIN(2 * asked, UDP_RX_LARGE);
	return large ? UDP_RX_LARGE : UDP_RX_SMALL;
}

bool udp_rx_whole(struct ctx *c, const struct udp_rx *rx, unsigned i,
		  bool *ret_large)
{
	bool cut = rx->mm[i].msg_hdr.msg_flags & MSG_TRUNC;

	*ret_large |= cut || rx->mm[i].msg_len > UDP_RX_SMALL_SIZE;
	if (cut)
		count(&c->cnt, CNT_UDP_TRUNCATED);
	return !cut;
}

uint32_t udp_rx_gro(struct udp_rx *rx, unsigned i)
{
	struct msghdr *mh = &rx->mm[i].msg_hdr;
	int size;

	for (struct cmsghdr *cm = CMSG_FIRSTHDR(mh); cm;
	     cm = CMSG_NXTHDR(mh, cm)) {
		if (cm->cmsg_level != SOL_UDP || cm->cmsg_type != UDP_GRO)
			continue;
		memcpy(&size, CMSG_DATA(cm), sizeof(size));
		return size > 0 ? (uint32_t)size : 0;
	}
	return 0;
}

unsigned udp_rx_pieces(const struct udp_rx *rx, unsigned i, struct iovec *iov)
{
	uint32_t left = rx->mm[i].msg_len;
	unsigned n = 0;

	do {
		iov[n].iov_base = rx->iov[i][n].iov_base;
		iov[n].iov_len = MIN(left, rx->iov[i][n].iov_len);
		left -= (uint32_t)iov[n++].iov_len;
	} while (left && n < rx->mm[i].msg_hdr.msg_iovlen);
	return n;
}

bool udp_rx_local(struct udp_rx *rx, unsigned i, union inany *addr)
{
	struct msghdr *mh = &rx->mm[i].msg_hdr;
	struct in6_pktinfo pi6;
	struct in_pktinfo pi4;
	bool found = false;

	for (struct cmsghdr *cm = CMSG_FIRSTHDR(mh); cm;
	     cm = CMSG_NXTHDR(mh, cm)) {
		if (cm->cmsg_level == IPPROTO_IP &&
		    cm->cmsg_type == IP_PKTINFO) {
			/* A group, or everybody, stays what it is. Else
			 * ipi_spec_dst and not ipi_addr, which may be the
			 * broadcast address of a subnet: we answer from it */
			memcpy(&pi4, CMSG_DATA(cm), sizeof(pi4));
			inany_from_v4(addr, pi4.ipi_addr);
			if (inany_is_unicast(addr))
				inany_from_v4(addr, pi4.ipi_spec_dst);
			return true;
		}
		if (cm->cmsg_level == IPPROTO_IPV6 &&
		    cm->cmsg_type == IPV6_PKTINFO) {
			memcpy(&pi6, CMSG_DATA(cm), sizeof(pi6));
			inany_from_v6(addr, &pi6.ipi6_addr);
			found = true;
		}
	}
	return found;
}
