/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ICMP errors: what an errno means, and what a quote looks like on the wire */

#include <errno.h>
#include <netinet/icmp6.h>
#include <netinet/ip_icmp.h>
#include <string.h>

#include "guest.h"
#include "proto/icmp_error.h"

static struct guest g;
static uint8_t buf[10 + GUEST_FRAME];

/* A guest's datagram, from its UDP header on */
static const uint8_t datagram[] = { 0x9c, 0x40, 0x00, 0x35, 0x00, 0x0c,
				    0xab, 0xcd, 'b',  'y',  'e',  '!' };

static struct flowside key_of(bool v6, uint8_t last)
{
	struct flowside key = { .eport = 40000, .oport = 53 };

	if (v6) {
		inet_pton(AF_INET6, "2001:db8::5", &key.eaddr);
		inet_pton(AF_INET6, "2001:db8:1::", &key.oaddr);
		key.oaddr.a6.s6_addr[15] = last;
	} else {
		inany_from_v4(&key.eaddr,
			      (struct in_addr){ htonl(0xc0000205) });
		inany_from_v4(&key.oaddr,
			      (struct in_addr){ htonl(0xc6336400 | last) });
	}
	return key;
}

/* received() - Next frame from its IP header on; its length in @ret_len */
static const uint8_t *received(size_t *ret_len)
{
	ssize_t n = recv(g.fd, buf, sizeof(buf), MSG_DONTWAIT);

	CHECK(n > 10 + ETH_HLEN_);
	*ret_len = (size_t)n - 10 - ETH_HLEN_;
	return buf + 10 + ETH_HLEN_;
}

static void errnos_have_a_meaning(void)
{
	uint8_t type = 0, code = 0;

	CHECK(icmp_error_from_errno(EHOSTUNREACH, true, &type, &code));
	CHECK_EQ(type, ICMP_DEST_UNREACH);
	CHECK_EQ(code, ICMP_HOST_UNREACH);
	CHECK(icmp_error_from_errno(EHOSTUNREACH, false, &type, &code));
	CHECK_EQ(type, ICMP6_DST_UNREACH);
	CHECK_EQ(code, ICMP6_DST_UNREACH_ADDR);
	CHECK(icmp_error_from_errno(ENETUNREACH, true, &type, &code));
	CHECK_EQ(code, ICMP_NET_UNREACH);
	CHECK(icmp_error_from_errno(EACCES, true, &type, &code));
	CHECK_EQ(code, ICMP_PKT_FILTERED);
	CHECK(icmp_error_from_errno(EPERM, false, &type, &code));
	CHECK_EQ(code, ICMP6_DST_UNREACH_ADMIN);
}

static void other_errnos_leave_the_result_alone(void)
{
	const int none[] = { 0, EMFILE, ECONNREFUSED, ETIMEDOUT, EINVAL };
	uint8_t type = 77, code = 78;

	for (size_t i = 0; i < ARRAY_SIZE(none); i++)
		CHECK(!icmp_error_from_errno(none[i], true, &type, &code));
	CHECK_EQ(type, 77);
	CHECK_EQ(code, 78);
}

static void quote4_is_the_guests_packet(void)
{
	struct flowside key = key_of(false, 1);
	const struct ip4_hdr *outer, *inner;
	const uint8_t *p;
	size_t len;

	CHECK_EQ(icmp_error_quote(&g.dp->ctx, NULL, &key, IPPROTO_UDP,
				  ICMP_DEST_UNREACH, ICMP_FRAG_NEEDED, 1400,
				  datagram, sizeof(datagram), sizeof(datagram)),
		 0);
	p = received(&len);
	CHECK_EQ(len, 20 + 8 + 20 + sizeof(datagram));
	outer = (const struct ip4_hdr *)(const void *)p;
	CHECK_EQ(outer->saddr, key.oaddr.v4.a4.s_addr);
	CHECK_EQ(outer->daddr, key.eaddr.v4.a4.s_addr);
	CHECK_EQ(outer->protocol, IPPROTO_ICMP);
	CHECK_EQ(csum_fold(csum_add(p + 20, len - 20, 0)), 0xffff);
	CHECK_EQ(p[20], ICMP_DEST_UNREACH);
	CHECK_EQ(p[26] << 8 | p[27], 1400);

	inner = (const struct ip4_hdr *)(const void *)(p + 28);
	CHECK_EQ(csum_fold(csum_add(inner, 20, 0)), 0xffff);
	CHECK_EQ(ntohs(inner->tot_len), 20 + sizeof(datagram));
	CHECK_EQ(inner->saddr, key.eaddr.v4.a4.s_addr);
	CHECK_EQ(inner->daddr, key.oaddr.v4.a4.s_addr);
	CHECK_EQ(inner->protocol, IPPROTO_UDP);
	CHECK(!memcmp(p + 48, datagram, sizeof(datagram)));
	CHECK_EQ(g.dp->ctx.cnt.n[CNT_ICMP_ERRORS_TO_TAP], 1);
}

static void quote6_is_the_guests_packet(void)
{
	struct flowside key = key_of(true, 1);
	struct flowside router = key_of(true, 99);
	const uint8_t *p;
	uint64_t sum;
	size_t len;

	CHECK_EQ(icmp_error_quote(&g.dp->ctx, &router.oaddr, &key, IPPROTO_UDP,
				  ICMP6_TIME_EXCEEDED, 0, 0, datagram,
				  sizeof(datagram), sizeof(datagram)),
		 0);
	p = received(&len);
	CHECK_EQ(len, 40 + 8 + 40 + sizeof(datagram));
	CHECK(!memcmp(p + 8, &router.oaddr, 16));
	CHECK(!memcmp(p + 24, &key.eaddr, 16));
	sum = csum_pseudo(&router.oaddr, &key.eaddr, IPPROTO_ICMPV6,
			  (uint32_t)len - 40);
	CHECK_EQ(csum_fold(csum_add(p + 40, len - 40, sum)), 0xffff);
	CHECK_EQ(p[40], ICMP6_TIME_EXCEEDED);
	CHECK(!memcmp(p + 48 + 8, &key.eaddr, 16));
	CHECK(!memcmp(p + 48 + 24, &key.oaddr, 16));
	CHECK_EQ(p[48 + 6], IPPROTO_UDP);
	CHECK(!memcmp(p + 88, datagram, sizeof(datagram)));
}

static void quotes_are_cut_but_claim_their_length(void)
{
	static uint8_t l4[65527];
	struct flowside key = key_of(false, 1), key6 = key_of(true, 1);
	const uint8_t *p;
	size_t len;

	CHECK_EQ(icmp_error_quote(&g.dp->ctx, NULL, &key, IPPROTO_UDP, 3, 3, 0,
				  l4, sizeof(l4), sizeof(l4)),
		 0);
	p = received(&len);
	CHECK_EQ(len, 576);
	CHECK_EQ(p[28 + 2] << 8 | p[28 + 3], 65535);

	CHECK_EQ(icmp_error_quote(&g.dp->ctx, NULL, &key6, IPPROTO_UDP, 1, 4, 0,
				  l4, sizeof(l4), sizeof(l4)),
		 0);
	p = received(&len);
	CHECK_EQ(len, 1280);
	CHECK_EQ(p[48 + 4] << 8 | p[48 + 5], 65527);
}

static void no_error_about_multicast(void)
{
	struct flowside key = key_of(false, 1);

	inany_from_v4(&key.oaddr, (struct in_addr){ htonl(0xe0000001) });
	CHECK_EQ(icmp_error_quote(&g.dp->ctx, NULL, &key, IPPROTO_UDP, 3, 3, 0,
				  datagram, sizeof(datagram), sizeof(datagram)),
		 (uint64_t)-EINVAL);
	CHECK_EQ(recv(g.fd, buf, sizeof(buf), MSG_DONTWAIT), (uint64_t)-1);
}

int main(void)
{
	RUN(errnos_have_a_meaning);
	RUN(other_errnos_leave_the_result_alone);
	guest_setup(&g);
	RUN(quote4_is_the_guests_packet);
	RUN(quote6_is_the_guests_packet);
	RUN(quotes_are_cut_but_claim_their_length);
	RUN(no_error_about_multicast);
	guest_teardown(&g);
	return 0;
}
